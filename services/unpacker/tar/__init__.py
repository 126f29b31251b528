"""Bytes of a layer → entries: compression, tar dialects, extension headers."""
