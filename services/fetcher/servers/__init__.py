"""Which servers are asked for the images of a registry, in which order, and how: `hosts.toml`, mirrors."""
