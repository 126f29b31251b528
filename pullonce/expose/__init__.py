"""A view of a store that podman, CRI-O, buildah and skopeo read as an additional image store: links, no copies."""
