"""podman, buildah, skopeo and CRI-O: whether they ask our mirror, and see what is exposed. Pure.

Sources: containers-registries.conf(5), containers-storage.conf(5), crio.conf(5).
"""

from collections.abc import Iterator
from typing import Any

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import Files
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.podman import REGISTRIES, REGISTRIES_D, STORAGE, STORAGE_DEFAULT, crio_options, location, prefix_of
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.toml_words import shown
from pullonce.runtimes.trouble import ConfigInvalid


def examine(files: Files, offer: Offer, wanted: Wanted, facts: Facts, *, name: str = "podman") -> list[Finding]:
    """What keeps podman, or CRI-O, from the mirror and from what is exposed.

    Raises:
        ConfigInvalid, FilesRefused: their files cannot be read.
    """
    mirror = list(_mirror(files, offer, name)) if offer.mirror else []
    view = list(_view(files, offer, name))
    sees = bool(offer.view) and not view
    if sees:
        mirror = [
            Finding(name, "limits", each.what, each.why, each.mend, each.path, each.line) if each.severity == "blocks" else each
            for each in mirror
        ]
    return [*mirror, *view]


class _Registry:
    """One [[registry]], as it counts."""

    def __init__(self, path: str, line: int, values: dict[str, Any]) -> None:
        self.path = path
        self.line = line
        self.values = values
        mirrors = values.get("mirror")
        self.mirrors = [each for each in mirrors if isinstance(each, dict)] if isinstance(mirrors, list) else []

    @property
    def prefix(self) -> str:
        return prefix_of(self.values)


def _mirror(files: Files, offer: Offer, name: str) -> Iterator[Finding]:
    add = f"`pullonce gateway config {name} --door mirror` prints what to add, `--write` adds it"
    registries: dict[str, _Registry] = {}
    for path, document in _documents(files):
        yield from _first_version(path, document, name)
        here: dict[str, _Registry] = {}
        for made in _registries(path, document):
            if first := here.get(made.prefix):
                yield _second(made, first, offer, name)
                continue
            here[made.prefix] = made
            if (other := registries.get(made.prefix)) and any(offer.mirror_host in str(each) for each in other.mirrors):
                yield Finding(
                    name,
                    "limits",
                    f"a second [[registry]] for {made.prefix} takes the place of the one with the mirror",
                    "the later of two files counts, as a whole",
                    f"have the mirror in {path}",
                    path,
                    made.line,
                )
        registries |= here
    with_mirror = [
        each for each in registries.values() if any(offer.mirror_host in str(one.get("location")) for one in each.mirrors)
    ]
    if not with_mirror:
        yield Finding(
            name,
            "blocks",
            f"no [[registry]] has the mirror {offer.mirror_host}",
            "the registries themselves are asked",
            add,
            REGISTRIES_D,
            0,
        )
    for registry in with_mirror:
        yield from _entry(registry, offer, name)


def _first_version(path: str, document: TomlText, name: str) -> Iterator[Finding]:
    """What is of the first version of the format: fine by itself, and refused beside what is of the second in the same file."""
    both = document.get("registry") is not None
    for old in ("search", "insecure", "block"):
        if document.get("registries", old) is None:
            continue
        why = (
            "a file that has [[registry]] as well is refused"
            if both
            else "it counts as long as nothing of the second stands in the same file"
        )
        yield Finding(
            name,
            "blocks" if both else "note",
            f"[registries.{old}] is of the first version of this format",
            why,
            "write it in the second version: unqualified-search-registries, and [[registry]]",
            path,
            document.line("registries", old),
        )


def _registries(path: str, document: TomlText) -> Iterator[_Registry]:
    found = document.get("registry")
    for number, each in enumerate(found if isinstance(found, list) else ()):
        if isinstance(each, dict):
            yield _Registry(path, document.line("registry", number), each)


def _second(second: _Registry, first: _Registry, offer: Offer, name: str) -> Finding:
    """Of two in one file the first counts."""
    lost = any(offer.mirror_host in str(each) for each in second.mirrors) and not any(
        offer.mirror_host in str(each) for each in first.mirrors
    )
    mirror = ", and the mirror is in the second" if lost else ""
    return Finding(
        name,
        "limits",
        f"a second [[registry]] for {second.prefix} stands in this file",
        f"the first of them counts, in line {first.line}{mirror}",
        "have one of them alone",
        second.path,
        second.line,
    )


def _entry(registry: _Registry, offer: Offer, name: str) -> Iterator[Finding]:
    """One registry with our mirror."""

    def found(severity: Any, what: str, why: str, mend: str) -> Finding:
        return Finding(name, severity, what, why, mend, registry.path, registry.line)

    host = registry.prefix.split("/")[0].removeprefix("*.")
    if registry.values.get("blocked"):
        yield found(
            "limits",
            f"{registry.prefix} is blocked",
            "nothing is pulled from it at all",
            "take blocked out, if that is not meant",
        )
    for position, mirror in enumerate(registry.mirrors):
        where = str(mirror.get("location"))
        if offer.mirror_host not in where:
            continue
        right = location(offer, host)
        if not (where == right or where.startswith(right + "/")):
            why = "the mirror learns only from this path whose image is meant"
            yield found("blocks", f"the mirror of {registry.prefix} is at {where}", why, f"set location = {shown(right)}")
        if offer.mirror.startswith("http://") and mirror.get("insecure") is not True:
            yield found(
                "blocks",
                f"the mirror of {registry.prefix} lacks insecure = true",
                "the gateway speaks plain HTTP on loopback, and is asked by TLS",
                "set insecure = true beside its location",
            )
        if position:
            yield found(
                "limits",
                f"the mirror of {registry.prefix} comes behind {registry.mirrors[0].get('location')}",
                "that one is asked first",
                "let it be the first",
            )
        if mirror.get("pull-from-mirror") == "digest-only" or registry.values.get("mirror-by-digest-only"):
            yield found(
                "limits",
                f"the mirror of {registry.prefix} is for digests only",
                "a pull by tag goes to the registry itself",
                'set pull-from-mirror = "all"',
            )


def _documents(files: Files) -> Iterator[tuple[str, TomlText]]:
    for path in (REGISTRIES, *(f"{REGISTRIES_D}/{name}" for name in files.names(REGISTRIES_D) if name.endswith(".conf"))):
        if (document := _read(files, path)) is not None:
            yield path, document


def _read(files: Files, path: str) -> TomlText | None:
    text = files.read(path)
    try:
        return None if text is None else TomlText(text)
    except ConfigInvalid as exc:
        raise exc.of(path) from None


def _view(files: Files, offer: Offer, name: str) -> Iterator[Finding]:
    path = STORAGE if files.read(STORAGE) is not None else STORAGE_DEFAULT
    document = _read(files, path) or TomlText("")
    stores = document.get("storage", "options", "additionalimagestores")
    named = stores if isinstance(stores, list) else []
    line = document.line("storage", "options", "additionalimagestores")
    options = list(crio_options(files)) if name == "crio" else []
    if options:
        path, line, given = options[-1]
        named = [each.partition("=")[2] for each in given if each.startswith("overlay.imagestore=")]
    for each in named:
        if each != offer.view and str(each).endswith("/exposed"):
            yield Finding(
                name,
                "blocks",
                f"{each} is named as an image store, and is not what this gateway's store exposes",
                f"{name} does not start where a store that is named is not there",
                "name what `pullonce expose` says, or take it out",
                path,
                line,
            )
    if offer.view and offer.view not in named:
        yield Finding(
            name,
            "limits",
            f"{offer.view} is not among the additional image stores",
            f"{name} does not see what is exposed, and pulls it by itself",
            f"`pullonce gateway config {name} --door view` prints what to add",
            path,
            line,
        )
    if offer.view in named and document.get("storage", "driver") not in (None, "overlay"):
        yield Finding(
            name,
            "blocks",
            f"the storage driver is {shown(document.get('storage', 'driver'))}",
            "what is exposed is for the driver overlay",
            'set driver = "overlay"',
            path,
            document.line("storage", "driver"),
        )
