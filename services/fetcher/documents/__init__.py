"""Manifests, indexes and configs: read as the field reads them, and followed from a reference to one platform's image."""
