"""The fetcher: resolves references and fetches blobs."""
