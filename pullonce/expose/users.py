"""What podman's own storage has on top of layers that it reads from a view: containers, running or not, and images.

Nobody tells us; but where podman keeps its containers and images can be read. Storage that no configuration names, given to
podman by `--root`, is not known. Source: containers-storage.conf(5); github.com/containers/storage, layers.go, containers.go.
"""

import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

_SYSTEM = (Path("/etc/containers/storage.conf"), Path("/usr/share/containers/storage.conf"))
_LAYERS = ("overlay-layers/layers.json", "overlay-layers/volatile-layers.json")
_CONTAINERS = ("overlay-containers/containers.json", "overlay-containers/volatile-containers.json")
_IMAGES = ("overlay-images/images.json",)


class Users:
    """Looks for them in some directories.

    Args:
        roots: where podman, buildah and CRI-O keep their own (`graphroot`).
        as_root: they run as root.
    """

    def __init__(self, roots: Iterable[Path], *, as_root: bool) -> None:
        self.roots = list(dict.fromkeys(roots))
        self.as_root = as_root

    def of(self, layer_ids: Collection[str]) -> list[str]:
        """The containers and images that are built on one of these layers, in words, sorted."""
        return sorted({each for root in self.roots for each in _built_on(root, layer_ids)}) if layer_ids else []


def configured(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """The configurations of containers/storage that this user's podman may read, the one that counts first."""
    home = Path(environ.get("HOME") or "/")
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "storage.conf"
    named = [Path(environ["CONTAINERS_STORAGE_CONF"])] if environ.get("CONTAINERS_STORAGE_CONF") else []
    found = []
    for path in (*named, *([own] if os.geteuid() else []), *_SYSTEM):
        try:
            found.append(tomllib.loads(path.read_text()))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue
    return found


def graph_roots(environ: Mapping[str, str]) -> list[Path]:
    """Where podman keeps its own, by configuration and by default."""
    home = Path(environ.get("HOME") or "/")
    own = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "containers" / "storage"
    default = own if os.geteuid() else Path("/var/lib/containers/storage")
    said = [_table(each, "storage").get("graphroot") for each in configured(environ)]
    return [*(Path(each) for each in said if isinstance(each, str)), default]


def reads(environ: Mapping[str, str], view: Path) -> bool:
    """Whether podman looks for images in a view, by the configuration that counts."""
    for configuration in configured(environ)[:1]:
        stores = _table(_table(configuration, "storage"), "options").get("additionalimagestores")
        return isinstance(stores, list) and str(view) in map(str, stores)
    return False


def _table(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _built_on(root: Path, layer_ids: Collection[str]) -> Iterable[str]:
    parents = {str(each.get("id")): str(each.get("parent", "")) for each in _listed(root, _LAYERS)}

    def leads_there(layer: str) -> bool:
        for _ in range(len(parents) + 1):
            if layer in layer_ids:
                return True
            layer = parents.get(layer, "")
        return False

    for kind, files in (("container", _CONTAINERS), ("image", _IMAGES)):
        for each in _listed(root, files):
            if leads_there(str(each.get("layer", ""))):
                names = each.get("names")
                name = str(names[0]) if isinstance(names, list) and names else str(each.get("id"))[:12]
                yield f"the {kind} {name}"


def _listed(root: Path, files: Iterable[str]) -> list[dict[str, Any]]:
    """What some files list; nothing where one is not there, or is not ours to read."""
    found: list[dict[str, Any]] = []
    for name in files:
        try:
            found += msgspec.json.decode((root / name).read_bytes(), type=list[dict[str, Any]])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return found
