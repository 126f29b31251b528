"""containerd: its snapshotter, and the mirror before its registries. Pure.

A file of version 2 names the CRI's settings otherwise than one of version 3. containerd 2 reads both, but takes the name of the
snapshotter only from version 3 on (tried with 2.4); containerd 1 lets what a file imports replace whole sections (tried with
1.6). So containerd 1 gets lines in its file, and containerd 2 with a file of version 2 a file of version 3 beside it.
"""

from dataclasses import dataclass

from pullonce.runtimes.files import Files
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Plan, TomlEdit
from pullonce.runtimes.trouble import CannotAdd

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/pullonce.toml"
CERTS = "/etc/containerd/certs.d"
DEFAULT = "_default"
"""The directory of hosts.toml for all registries that have none of their own."""

CAPABILITIES = ["pull", "resolve"]

Table = tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class Names:
    """Where the settings stand that concern us, in a file of some version."""

    cri: Table
    images: Table
    registry: Table

    @staticmethod
    def of(version: int) -> "Names":
        if version >= 3:
            images = ("plugins", "io.containerd.cri.v1.images")
            return Names(images, images, (*images, "registry"))
        cri = ("plugins", "io.containerd.grpc.v1.cri" if version == 2 else "cri")
        return Names(cri, (*cri, "containerd"), (*cri, "registry"))


UNPACK: Table = ("plugins", "io.containerd.transfer.v1.local", "unpack_config")
PROXY: Table = ("proxy_plugins", "pullonce")


def version_of(values: dict[str, object], *, there: bool) -> int:
    """The version that a file has: without a word of it version 1; no file counts as one of version 3."""
    version = values.get("version", 1 if there else 3)
    return version if isinstance(version, int) else 1


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
    names = Names.of(version)
    target, target_names = edit, names
    if major == 2 and version < 3:
        # Of the CRI's settings in a file of version 2, containerd 2 takes over the registries and not the snapshotter.
        edit.item((), "imports", DROP_IN.rpartition("/")[0] + "/*.toml")
        target, target_names = TomlEdit(files, DROP_IN, start="version = 3\n"), Names.of(3)
    doors = wanted.doors or tuple(door for door in ("snapshotter", "mirror") if getattr(offer, door))
    if "snapshotter" in doors:
        _snapshotter(target, target_names, offer, major, wanted.platform)
    certs = _config_path(edit, target, names, target_names, made) if "mirror" in doors else ""
    made.take(edit)
    if target is not edit:
        made.take(target)
    if certs:
        _hosts(files, certs, offer, wanted.registries, made)
    return made


def _snapshotter(edit: TomlEdit, names: Names, offer: Offer, major: int, platform: str) -> None:
    proxy = {"type": "snapshot", "address": offer.snapshotter}
    if major < 2:
        edit.keys(PROXY, proxy)
        edit.keys(names.images, {"snapshotter": "pullonce", "disable_snapshot_annotations": False})
        return
    edit.keys(PROXY, {**proxy, "capabilities": ["remap-ids"]})
    edit.keys((*PROXY, "exports"), {"root": offer.home, "enable_remote_snapshot_annotations": "true"})
    edit.keys(names.images, {"snapshotter": "pullonce"})
    if edit.document.get(*UNPACK) is None:
        # A list takes the place of the default: without this `ctr` could pull for overlayfs no more (tried with 2.4).
        edit.element(UNPACK, {"platform": platform, "snapshotter": "overlayfs"})
    edit.element(UNPACK, {"platform": platform, "snapshotter": "pullonce"})


def _config_path(edit: TomlEdit, target: TomlEdit, names: Names, target_names: Names, made: Plan) -> str:
    """The directory of hosts.toml, which is said where it is not; empty where that cannot be."""
    for each, said in ((edit, names), (target, target_names)):
        registry = each.document.get(*said.registry)
        if not isinstance(registry, dict):
            continue
        for key in ("mirrors", "configs"):
            if (key == "mirrors" and registry.get(key)) or _has_tls(registry.get(key)):
                line = each.document.line(*said.registry, key)
                why = (
                    f"registry.{key} stands there, and containerd does not start where that stands beside config_path: move it "
                    f"to {CERTS}/<registry>/hosts.toml first, or leave the mirror out (--door snapshotter)"
                )
                made.conflicts.append(CannotAdd(why, path=each.path, line=line))
                return ""
        if path := registry.get("config_path"):
            return str(path).split(":")[0]
    target.keys(target_names.registry, {"config_path": CERTS})
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
