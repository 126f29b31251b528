"""The distribution API over HTTP: requests, redirects, what an answer means, and which part of a blob it holds."""
