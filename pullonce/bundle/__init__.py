"""OCI runtime bundles of images in a store: a directory that `runc run` starts."""
