"""podman, buildah, skopeo and CRI-O, which read the same files: the mirror, and the store's images as they lie. Pure.

Sources: containers-registries.conf(5), containers-registries.conf.d(5), containers-storage.conf(5).
"""

import tomllib
from collections.abc import Iterator
from typing import Any

from pullonce.runtimes.files import Files
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Plan, TomlEdit
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

REGISTRIES = "/etc/containers/registries.conf"
REGISTRIES_D = "/etc/containers/registries.conf.d"
DROP_IN = f"{REGISTRIES_D}/50-pullonce.conf"
STORAGE = "/etc/containers/storage.conf"
STORAGE_DEFAULT = "/usr/share/containers/storage.conf"
KNOWN = ("docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "public.ecr.aws", "mcr.microsoft.com")
"""Registries that get the mirror where none is named: a mirror is that of a registry, and there is none for all."""

_STORAGE_START = """\
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
"""What a storage.conf has to say so that all stays as it is without one."""


def plan(
    files: Files,
    offer: Offer,
    registries: tuple[str, ...] = (),
    *,
    mirror: bool = True,
    view: bool = True,
    runtime: str = "podman",
) -> Plan:
    """What podman, or CRI-O, lacks.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    made = Plan(runtime, restart=["systemctl restart crio"] if runtime == "crio" else [])
    if mirror and offer.mirror:
        _mirrors(files, offer, registries, made)
    if view and offer.view:
        _storage(files, offer.view, made)
    if runtime == "crio":
        _storage_option(files, offer, made)
    else:
        made.notes.append(
            "podman, buildah and skopeo read this at each start; a running `podman system service` has to be restarted"
        )
    return made


def _mirrors(files: Files, offer: Offer, registries: tuple[str, ...], made: Plan) -> None:
    edit = TomlEdit(files, DROP_IN)
    there = {prefix: (path, line) for path, prefix, line in stated(files) if path != DROP_IN}
    for registry in registries or KNOWN:
        if registry in there:
            path, line = there[registry]
            why = f"{registry} is configured there, and a second [[registry]] of that name would take its place"
            conflict = CannotAdd(f"{why}: add {_shown(offer, registry)} to it by hand", path=path, line=line)
            if registries:
                made.conflicts.append(conflict)
            else:
                made.notes.append(str(conflict))
            continue
        element = _registry(offer, registry)
        if line := _otherwise(edit.document, element):
            why = f"{registry} has another [[registry]] there, which goes before a second one of that name"
            conflict = CannotAdd(f"{why}: take it out, or have {_shown(offer, registry)} in it", path=DROP_IN, line=line)
            made.conflicts.append(conflict)
            continue
        edit.element(("registry",), element)
    made.take(edit)


def _otherwise(document: TomlText, element: dict[str, Any]) -> int:
    """The line of the first [[registry]] of that prefix, which counts, if it says something else; 0 if it does not."""
    found = document.get("registry")
    for number, each in enumerate(found if isinstance(found, list) else ()):
        if isinstance(each, dict) and prefix_of(each) == element["prefix"]:
            return 0 if each == element else document.line("registry", number)
    return 0


def prefix_of(registry: dict[str, Any]) -> str:
    """For which images a [[registry]] is."""
    return str(registry.get("prefix") or registry.get("location") or "")


def _registry(offer: Offer, registry: str) -> dict[str, Any]:
    mirror: dict[str, Any] = {"location": location(offer, registry)}
    if offer.mirror.startswith("http://"):
        mirror["insecure"] = True
    return {"prefix": registry, "location": registry, "mirror": [mirror]}


def location(offer: Offer, registry: str) -> str:
    """Where the mirror has the images of a registry: podman says nowhere else whose they are."""
    return f"{offer.mirror_host}/{registry.replace(':', '_')}"


def _shown(offer: Offer, registry: str) -> str:
    return f'[[registry.mirror]] location = "{location(offer, registry)}"'


def stated(files: Files) -> Iterator[tuple[str, str, int]]:
    """The registries that are configured: file, prefix, line.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    for path in (REGISTRIES, *(f"{REGISTRIES_D}/{name}" for name in files.names(REGISTRIES_D) if name.endswith(".conf"))):
        text = files.read(path)
        if text is None:
            continue
        try:
            document = TomlText(text)
        except ConfigInvalid as exc:
            raise exc.of(path) from None
        found = document.get("registry")
        for number, each in enumerate(found if isinstance(found, list) else ()):
            if isinstance(each, dict):
                yield path, prefix_of(each), document.line("registry", number)


def _storage(files: Files, view: str, made: Plan) -> None:
    start = _STORAGE_START if files.read(STORAGE) is None else ""
    if start and (text := files.read(STORAGE_DEFAULT)) is not None:
        start = text  # a file in /etc takes the place of this one as a whole
        try:
            tomllib.loads(text)
        except (ValueError, RecursionError):
            TomlEdit(files, STORAGE_DEFAULT)  # says which line
    edit = TomlEdit(files, STORAGE, start=start)
    edit.item(("storage", "options"), "additionalimagestores", view)
    made.take(edit)


def _storage_option(files: Files, offer: Offer, made: Plan) -> None:
    if not offer.view:
        return
    wanted = f"overlay.imagestore={offer.view}"
    for path, line, options in crio_options(files):
        if wanted not in options:
            why = f'crio.storage_option takes the place of {STORAGE}: add "{wanted}" to it by hand'
            made.conflicts.append(CannotAdd(why, path=path, line=line))


def crio_options(files: Files) -> Iterator[tuple[str, int, list[str]]]:
    """What CRI-O's own files say of its storage: file, line, options. Where there is any, storage.conf's options do not count.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    directory = "/etc/crio/crio.conf.d"
    for path in ("/etc/crio/crio.conf", *(f"{directory}/{name}" for name in files.names(directory))):
        text = files.read(path)
        if text is None:
            continue
        try:
            document = TomlText(text)
        except ConfigInvalid as exc:
            raise exc.of(path) from None
        if isinstance(options := document.get("crio", "storage_option"), list) and options:
            yield path, document.line("crio", "storage_option"), [str(each) for each in options]
