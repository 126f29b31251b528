"""containerd: its snapshotter, and the mirror before its registries. Pure.

A file of version 2 names the CRI's settings otherwise than one of version 3. containerd 2 reads both, but takes the name of the
snapshotter only from version 3 on (tried with 2.4); containerd 1 lets what a file imports replace whole sections (tried with
1.6). So containerd 1 gets lines in its file, and containerd 2 with a file of version 2 a file of version 3 beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pullonce.runtimes.containerd_names import (
    CAPABILITIES,
    CERTS,
    CONFIG,
    DEFAULT,
    DROP_IN,
    PROXY,
    UNPACK,
    Names,
    Table,
    version_of,
)  # fmt: skip
from pullonce.runtimes.files import Files, Planned
from pullonce.runtimes.loaded import Loaded, Part, load
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Plan, TomlEdit
from pullonce.runtimes.toml_words import dotted, shown
from pullonce.runtimes.trouble import CannotAdd


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        config: its file; empty: that of the distribution.
        major: of the containerd that reads it; 0: as its file says.
        registries: for which the mirror is; none: for all.
        doors: `snapshotter`, `mirror`; none: those that the gateway has.
        platform: of the machine.
    """

    config: str = ""
    major: int = 0
    registries: tuple[str, ...] = ()
    doors: tuple[str, ...] = ()
    platform: str = "linux/amd64"


def plan(files: Files, offer: Offer, wanted: Wanted) -> Plan:
    """What containerd lacks.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    made = Plan("containerd", restart=["systemctl restart containerd"])
    path = wanted.config or CONFIG
    there = files.read(path) is not None
    start = "version = 3\n" if wanted.major != 1 else "version = 2\n"
    edit = TomlEdit(files, path, start=start)
    version = version_of(edit.document.values, there=there or wanted.major == 1)
    major = wanted.major or (2 if version >= 3 else 1)
    if not wanted.major:
        made.notes.append(f"{path} is taken for that of containerd {major}; --containerd-version says otherwise")
    target = _target(files, edit, version, major)
    doors = wanted.doors or tuple(door for door in ("snapshotter", "mirror") if getattr(offer, door))
    if "snapshotter" in doors:
        _snapshotter(target, offer, wanted.platform)
    certs = _config_path(target, made) if "mirror" in doors else ""
    target.finish()
    if target.edit is not edit:
        made.take(target.edit)  # first: containerd does not start where a file is missing that it is to import
    made.take(edit)
    if certs:
        _hosts(files, certs, offer, wanted.registries, made)
    return made


class _Target:
    """The file that gets the additions, and all that containerd reads beside it.

    Attributes:
        loaded: the files as they will count, the one that is edited among them.
        borrowed: it is a file that somebody had imported, whose section containerd 1 puts in the place of ours.
    """

    def __init__(self, edit: TomlEdit, names: Names, loaded: Loaded, *, borrowed: bool = False) -> None:
        self.edit = edit
        self.names = names
        self.loaded = loaded
        self.borrowed = borrowed

    def keys(self, table: Callable[[Names], Table], keys: Mapping[str, Any]) -> None:
        """Keys of a table, unless another file says them; what it says otherwise is a conflict."""
        missing = {key: value for key, value in keys.items() if not self._said(table, key, value)}
        if missing:
            self.edit.keys(table(self.names), missing)

    def _said(self, table: Callable[[Names], Table], key: str, value: object) -> bool:
        said = False
        for part in self.others():
            at = (*table(part.names), key)
            there = part.document.get(*at)
            if there is None or self.loaded.drops(part, key):
                continue
            said = True
            if there != value:
                why = f"{dotted(at)} is {shown(there)}, and not {shown(value)}"
                self.edit.conflicts.append(CannotAdd(why, path=part.path, line=part.document.line(*at)))
        return said

    def others(self) -> list[Part]:
        """The other files that count."""
        return [part for part in self.loaded.parts if part.path != self.edit.path and part not in self.loaded.void()]

    def finish(self) -> None:
        """Whether what was added counts."""
        if self.borrowed and self.edit.changed:
            why = (
                "containerd 1 takes this section on the CRI in the place of the one in its own file: move it there, or add by "
                "hand here what is said by `pullonce gateway config` for this file (--config)"
            )
            line = self.edit.document.line(*self.names.cri)
            self.edit.conflicts.append(CannotAdd(why, path=self.edit.path, line=line))


def _target(files: Files, edit: TomlEdit, version: int, major: int) -> _Target:
    """The file in which additions count: containerd's own, or where that cannot be, one beside it."""
    if major == 2 and version < 3:
        # Of the CRI's settings in a file of version 2, containerd 2 takes over the registries and not the snapshotter.
        beside = TomlEdit(files, DROP_IN, start="version = 3\n")
        texts = {DROP_IN: beside.document.text}
        if not any(part.path == DROP_IN for part in _load(files, edit, texts, major).parts):
            edit.item((), "imports", DROP_IN)  # and not its directory, where files may lie that nobody has switched on
        return _Target(beside, Names.of(version_of(beside.document.values, there=True)), _load(files, edit, texts, major))
    loaded = _load(files, edit, {}, major)
    counts = loaded.cri_parts()[-1:] if major < 2 else []
    if counts and counts[0].path != edit.path:
        return _Target(TomlEdit(files, counts[0].path), counts[0].names, loaded, borrowed=True)
    return _Target(edit, Names.of(version), loaded)


def _load(files: Files, edit: TomlEdit, texts: Mapping[str, str], major: int) -> Loaded:
    loaded = load(Planned(files, {**texts, edit.path: edit.document.text}), edit.path, major)
    return loaded or Loaded([], major)


def _snapshotter(target: _Target, offer: Offer, platform: str) -> None:
    proxy = {"type": "snapshot", "address": offer.snapshotter}
    if target.loaded.major < 2:
        target.keys(lambda _: PROXY, proxy)
        target.keys(lambda names: names.images, {"snapshotter": "pullonce", "disable_snapshot_annotations": False})
        return
    target.keys(lambda _: PROXY, {**proxy, "capabilities": ["remap-ids"]})
    exports = {"root": offer.home, "enable_remote_snapshot_annotations": "true"}
    target.keys(lambda _: (*PROXY, "exports"), exports)
    target.keys(lambda names: names.images, {"snapshotter": "pullonce"})
    if _unpacks_elsewhere(target, platform):
        return
    if target.edit.document.get(*UNPACK) is None:
        # A list takes the place of the default: without this `ctr` could pull for overlayfs no more (tried with 2.4).
        target.edit.element(UNPACK, {"platform": platform, "snapshotter": "overlayfs"})
    target.edit.element(UNPACK, {"platform": platform, "snapshotter": "pullonce"})


def _unpacks_elsewhere(target: _Target, platform: str) -> bool:
    """Whether another file has the list: of two the later one counts, as a whole."""
    having = [part for part in target.others() if part.document.get(*UNPACK) is not None]
    for part in having:
        listed = part.document.get(*UNPACK)
        named = [each.get("snapshotter") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        if "pullonce" not in named:
            why = f'{dotted(UNPACK)} does not name pullonce: add it by hand, with platform = "{platform}"'
            target.edit.conflicts.append(CannotAdd(why, path=part.path, line=part.document.line(*UNPACK)))
    return bool(having)


def _config_path(target: _Target, made: Plan) -> str:
    """The directory of hosts.toml, which is said where it is not; empty where that cannot be."""
    for part in target.loaded.cri_parts():
        registry = part.document.get(*part.names.registry)
        if not isinstance(registry, dict):
            continue
        for key in ("mirrors", "configs"):
            if (key == "mirrors" and registry.get(key)) or _has_tls(registry.get(key)):
                line = part.document.line(*part.names.registry, key)
                why = (
                    f"registry.{key} stands there, and containerd does not start where that stands beside config_path: move it "
                    f"to {CERTS}/<registry>/hosts.toml first, or leave the mirror out (--door snapshotter)"
                )
                made.conflicts.append(CannotAdd(why, path=part.path, line=line))
                return ""
    if path := target.loaded.registry("config_path").value:
        return str(path).split(":")[0]
    target.keys(lambda names: names.registry, {"config_path": CERTS})
    return CERTS


def _has_tls(configs: object) -> bool:
    return isinstance(configs, dict) and any(isinstance(each, dict) and each.get("tls") for each in configs.values())


def _hosts(files: Files, certs: str, offer: Offer, registries: tuple[str, ...], made: Plan) -> None:
    for registry in registries or (DEFAULT,):
        edit = TomlEdit(files, f"{certs}/{registry}/hosts.toml")
        edit.keys(("host", offer.mirror), {"capabilities": CAPABILITIES}, above=True)
        made.take(edit)
    if registries:
        return
    for name in files.names(certs):
        text = files.read(f"{certs}/{name}/hosts.toml") if name != DEFAULT else None
        if text is not None and offer.mirror not in text:
            made.notes.append(
                f"{certs}/{name}/hosts.toml is all that containerd reads for {name}: `--registry {name}` adds the mirror there"
            )
