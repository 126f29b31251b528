"""What a request asks for, by its path and query: a registry, a repository in it, and a thing of that repository. Pure.

Which registry is meant, a client says in one of three ways:

    ?ns=quay.io                      containerd, and whatever mirrors as it does
    /v2/quay.io/org/app/…            podman, skopeo, buildah, CRI-O, BuildKit: the mirror's location ends in the registry's name
    /v2/library/redis/…              docker, which mirrors one registry only: the default one

`ns` decides where it is given. Else the first part of the path is a registry if it could be nothing else: it holds a dot, is
`localhost`, or ends in a port. A port stands behind an underscore there (`registry.lan_5000`), since locations may hold no
colon; with another default registry than docker.io the host before it must hold a dot, since names may have underscores.

Source: distribution-spec 1.1, "Endpoints"; containerd's `ns` is documented with its hosts.toml.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pullonce.errors import PullonceError, ReferenceInvalid
from pullonce.oci.digest import is_digest
from pullonce.oci.reference import HUB, Reference, parse
from schemas.oci import Digest

Kind = Literal["manifests", "blobs", "tags", "referrers"]

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<last>[^/]+)")
_PORT = re.compile(r"(?P<host>[A-Za-z0-9.-]+)_(?P<port>[0-9]{1,5})")
_LONGEST = 1024
_CODES: dict[str, str] = {"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN"}


class NoSuchThing(PullonceError):
    """The path leads to nothing that there could be.

    Attributes:
        code: of the specification.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    kind: Kind
    registry: str
    repository: str
    name: str
    """The repository as the client called it."""
    guessed: bool
    """The registry was read out of the path, and could be a name: it is shown no login."""
    tag: str
    digest: Digest
    """One of the two is empty; both, where tags are asked for."""

    @property
    def place(self) -> str:
        """`registry/repository`, by which access is given."""
        return f"{self.registry}/{self.repository}"

    @property
    def reference(self) -> str:
        """What to pull, for a manifest."""
        return f"{self.place}{f'@{self.digest}' if self.digest else f':{self.tag}'}"


def wanted(path: str, ns: str, default: str) -> Wanted:
    """Read the path of a request, percent-encoding undone.

    Args:
        ns: that parameter of its query; empty: it has none.
        default: the registry that is meant where nothing names one.

    Raises:
        NoSuchThing: it is no path of the specification, or names what no registry could have.
    """
    found = _PATH.fullmatch(path) if len(path) <= _LONGEST else None
    if found is None or (found["kind"] == "tags" and found["last"] != "list"):
        raise NoSuchThing(f"{path[:200]!r} is no path of the distribution API that a mirror answers", "UNSUPPORTED")
    name, kind, last = found["name"], found["kind"], found["last"]
    code = _CODES.get(kind, "NAME_UNKNOWN")
    by_digest = kind in ("blobs", "referrers") or ":" in last
    if by_digest and not is_digest(last):
        raise NoSuchThing(f"{last[:160]!r} is no digest; expected sha256:<64 hex digits> or sha512:<128 hex digits>", code)
    registry, repository = (ns.lower(), name) if ns else _split(name, default)
    reference = _parsed(registry, repository, last if kind == "manifests" and not by_digest else "", code)
    return Wanted(
        kind=kind,  # type: ignore[arg-type]  # the pattern has no other
        registry=reference.registry,
        repository=reference.repository,
        name=name,
        guessed=not ns and registry != default and not _is_host(registry.partition(":")[0]),
        tag=reference.tag if kind == "manifests" and not by_digest else "",
        digest=Digest(last if by_digest else ""),
    )


def _parsed(registry: str, repository: str, tag: str, code: str) -> Reference:
    try:
        found = parse(f"{registry}/{repository}{f':{tag}' if tag else ''}")
    except ReferenceInvalid as exc:
        raise NoSuchThing(str(exc), code if tag else "NAME_INVALID") from None
    # What a registry is called decides what is read as one: `a/b` has none, and would be of docker's hub.
    same = found.registry == (HUB if registry == f"index.{HUB}" else registry)
    if not same or found.digest or ":" in repository:
        raise NoSuchThing(f"{registry[:160]!r} is no registry with the repository {repository[:200]!r}", "NAME_INVALID")
    return found


def _split(name: str, default: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash:
        return default, name
    # Docker's hub has no underscore in the names of its users; others may have a `team_1`.
    port = _PORT.fullmatch(first)
    if port and (default == HUB or _is_host(port["host"])):
        return f"{port['host']}:{port['port']}", rest
    if ":" in first or _is_host(first):
        return first, rest
    return default, name


def _is_host(name: str) -> bool:
    """Whether a name could be nothing else than a host's."""
    return "." in name or name == "localhost"
