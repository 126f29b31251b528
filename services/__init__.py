"""The services: each runs by itself as `python -m services.<name>` and imports none of the others."""
