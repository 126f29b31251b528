"""What login files, credential helpers and the CRI call a registry, and the name that it has in references. Pure."""

HUB_KEY = "https://index.docker.io/v1/"
"""What docker calls its own registry, in its files and to its helpers."""
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")


def server_of(key: str) -> str:
    """`https://index.docker.io/v1/` → `docker.io`; a key may be a host, a URL, or a host with a path."""
    name = key.partition("://")[2] or key
    name = name.rstrip("/").removesuffix("/v1").removesuffix("/v2").rstrip("/")
    host, slash, path = name.partition("/")
    return f"{'docker.io' if host.lower() in _HUB_HOSTS else host.lower()}{slash}{path}"
