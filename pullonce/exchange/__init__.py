"""Images in and out of a store as archives that docker, containerd, podman and skopeo know."""
