"""References: what people write to name an image, and the one normalised form that everything else compares.

    redis                        docker.io/library/redis:latest
    index.docker.io/me/app:1     docker.io/me/app:1
    localhost:5000/x@sha256:…    localhost:5000/x@sha256:…

Rules: distribution-spec 1.1 (names, tags), the reference grammar and the familiar names of docker. Light to import, since a
command line that finds its answer at once has a budget of milliseconds.
"""

import re

from pullonce.errors import ReferenceInvalid

HUB = "docker.io"
_HUB_ALIASES = ("index.docker.io", HUB)
_LONGEST_NAME = 255
_LONGEST_LABEL = 63
_LAST_PORT = 65535

# Patterns are compiled when they are first used: a reference without registry, tag and digest, as most are, needs one of them.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?"
_REPOSITORY = r"[a-z0-9]+(?:(?:\.|__?|-+|/)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_HEX = frozenset("0123456789abcdef")


class Reference:
    """A normalised reference. `str()` gives the form that subjects, flights and the store's index use.

    Attributes:
        registry: host and port as people name it (`docker.io`, `localhost:5000`).
        repository: path within the registry (`library/redis`).
        tag: empty where only a digest was given.
        digest: empty where none was given. With both, the digest decides and the tag is only part of the name.
    """

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(self, registry: str, repository: str, tag: str = "", digest: str = "") -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """Registry and repository: the reference without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def locator(self) -> str:
        """What the registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.name}{':' + self.tag if self.tag else ''}{'@' + self.digest if self.digest else ''}"

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse(text: str) -> Reference:
    """Read a reference and normalise it. Parsing a normalised form gives it back unchanged.

    Raises:
        ReferenceInvalid: the text is no reference; the message says which rule it breaks.
    """
    _refuse_misunderstandings(text)
    rest, at, digest = text.partition("@")
    if at and not re.fullmatch(_DIGEST, digest):
        raise _invalid(text, f"the digest {digest!r} is not sha256:<64 hex digits> or sha512:<128 hex digits>, in lower case")
    name, tag = _split_tag(rest)
    if tag is not None and not re.fullmatch(_TAG, tag):
        raise _invalid(text, f"the tag {tag!r} is not 1 to 128 letters, digits, `_`, `.` or `-` (the first no `.` or `-`)")
    registry, repository = _split_registry(name)
    if registry != HUB and not re.fullmatch(_REGISTRY, registry):
        raise _invalid(text, f"{registry!r} is no registry host")
    _check_host(text, registry)
    if not re.fullmatch(_REPOSITORY, repository):
        hint = "; repositories are lower case" if repository != repository.lower() else ""
        raise _invalid(text, f"{repository!r} is no repository name{hint}")
    if len(registry) + 1 + len(repository) > _LONGEST_NAME:
        raise _invalid(text, f"registry and repository are longer than {_LONGEST_NAME} characters")
    if tag is None and not digest:
        tag = "latest"
    return Reference(registry, repository, tag or "", digest)


def _check_host(text: str, registry: str) -> None:
    """Refuse a host that has the right form and can still never be reached. Sources: RFC 1035 section 2.3.4, RFC 4291."""
    bracketed, _, behind = registry.rpartition("]")
    host, _, port = behind.partition(":")
    if port and not 1 <= int(port) <= _LAST_PORT:
        raise _invalid(text, f"{registry!r} has the port {port}; ports go from 1 to {_LAST_PORT}")
    if any(len(label) > _LONGEST_LABEL for label in host.split(".")):
        raise _invalid(text, f"a part of the host {host!r} is longer than the {_LONGEST_LABEL} letters that a name may have")
    if bracketed:
        from ipaddress import IPv6Address  # costs a light client's start too much to be had for everybody

        try:
            IPv6Address(bracketed[1:])
        except ValueError:
            raise _invalid(text, f"{bracketed[1:]!r} is no IPv6 address") from None


def _refuse_misunderstandings(text: str) -> None:
    """Name what was probably meant, where a plain grammar error would puzzle."""
    if not text:
        raise ReferenceInvalid("the reference is empty; expected something like `redis:7` or `ghcr.io/owner/app:1.2`")
    scheme, separator, rest = text.partition("://")
    if separator:
        raise _invalid(text, f"a reference has no scheme; leave `{scheme}://` out and give `{rest}`")
    if len(text) == 64 and _HEX.issuperset(text):
        raise _invalid(text, "64 hex digits alone are an image ID; give `name@sha256:…` to name an image by digest")


def _split_tag(rest: str) -> tuple[str, str | None]:
    """A colon starts a tag only behind the last slash: before it, it belongs to a port (or an IPv6 address)."""
    colon = rest.rfind(":")
    if colon < 0 or "/" in rest[colon:] or rest.endswith("]"):
        return rest, None
    return rest[:colon], rest[colon + 1 :]


def _split_registry(name: str) -> tuple[str, str]:
    """The first component is a host only if it could be nothing else; otherwise the name belongs to docker's hub."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = HUB, name
    else:
        registry, repository = first, rest
    if registry in _HUB_ALIASES:
        registry = HUB
        if "/" not in repository:
            repository = f"library/{repository}"
    return registry, repository


def _invalid(text: str, why: str) -> ReferenceInvalid:
    return ReferenceInvalid(f"{text!r} is no image reference: {why}")
