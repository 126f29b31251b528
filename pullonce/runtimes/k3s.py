"""k3s and rke2: a containerd of their own, whose configuration they make of a template. Pure.

Source: the documentation of k3s, "Configuring containerd", "Private Registry Configuration", "Configuration File".
"""

from dataclasses import dataclass
from typing import Any

from pullonce.runtimes.containerd_names import PROXY, UNPACK
from pullonce.runtimes.files import Files
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import SIGNATURE, Change, Plan
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid
from pullonce.runtimes.yaml_text import YamlText


@dataclass(frozen=True, slots=True)
class Distribution:
    """One of the two, and where it has its files."""

    name: str

    @property
    def settings(self) -> str:
        return f"/etc/rancher/{self.name}/config.yaml"

    @property
    def drop_in(self) -> str:
        return f"/etc/rancher/{self.name}/config.yaml.d/50-pullonce.yaml"

    @property
    def registries(self) -> str:
        return f"/etc/rancher/{self.name}/registries.yaml"

    @property
    def containerd(self) -> str:
        return f"/var/lib/rancher/{self.name}/agent/etc/containerd"


K3S, RKE2 = Distribution("k3s"), Distribution("rke2")

BASE = '{{ template "base" . }}\n'
"""Has the template begin with what would be there without it."""


def plan(files: Files, offer: Offer, distribution: Distribution, platform: str, doors: tuple[str, ...] = ()) -> Plan:
    """What k3s or rke2 lacks.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    name = distribution.name
    made = Plan(name, restart=[f"systemctl restart {name} (on agents: {name}-agent)"])
    if offer.snapshotter and (not doors or "snapshotter" in doors):
        _template(files, offer, distribution, platform, made)
        _yaml(files, distribution.drop_in, made, key="snapshotter", value="pullonce", elsewhere=_settings(files, distribution))
    if offer.mirror and (not doors or "mirror" in doors):
        _yaml(files, distribution.registries, made, key="mirrors", entry="*", value={"endpoint": [offer.mirror]})
    made.notes.append(f"this was made up from the documentation of {name} and not tried with it")
    return made


def template_of(files: Files, distribution: Distribution) -> tuple[str, int]:
    """The template that counts, or would, and the version of what it makes."""
    directory = distribution.containerd
    newer, older = f"{directory}/config-v3.toml.tmpl", f"{directory}/config.toml.tmpl"
    if files.read(newer) is not None:
        return newer, 3
    if files.read(older) is not None:
        return older, 2
    made = files.read(f"{directory}/config.toml")
    return (older, 2) if made is not None and "version = 2" in made else (newer, 3)


def _template(files: Files, offer: Offer, distribution: Distribution, platform: str, made: Plan) -> None:
    path, version = template_of(files, distribution)
    before = files.read(path)
    if before is not None and "[proxy_plugins.pullonce]" in before:
        return
    proxy = {"type": "snapshot", "address": offer.snapshotter}
    lines = TomlText("").with_keys(PROXY, proxy if version < 3 else {**proxy, "capabilities": ["remap-ids"]})
    if version >= 3:
        lines = lines.with_keys((*PROXY, "exports"), {"root": offer.home, "enable_remote_snapshot_annotations": "true"})
        if before is None or "unpack_config" not in before:
            for snapshotter in ("overlayfs", "pullonce"):  # the list takes the place of the default
                lines = lines.with_element(UNPACK, {"platform": platform, "snapshotter": snapshotter})
    head = SIGNATURE + BASE if before is None else before if before.endswith("\n") else before + "\n"
    made.changes.append(Change(path, before, f"{head}\n{lines.text}", (BASE if before is None else "") + lines.text))


def _settings(files: Files, distribution: Distribution) -> tuple[str, ...]:
    """The files of settings beside our own, all of which count."""
    directory = distribution.drop_in.rpartition("/")[0]
    more = (f"{directory}/{name}" for name in files.names(directory) if name.endswith((".yaml", ".yml")))
    return (distribution.settings, *(path for path in more if path != distribution.drop_in))


def _yaml(
    files: Files, path: str, made: Plan, *, key: str, value: Any, entry: str = "", elsewhere: tuple[str, ...] = ()
) -> None:  # fmt: skip
    """One key of a file, or one entry of a mapping under it; what other files say of the same otherwise is a conflict."""
    before = files.read(path)
    at = path
    try:
        said = False
        for at in elsewhere:
            document = YamlText(files.read(at) or "")
            if key in document.values and document.get(key) != value:
                raise CannotAdd(f"{key} is {document.get(key)}, and not {value}", line=document.line(key))
            said = said or key in document.values
        if said:
            return
        at = path
        document = YamlText(SIGNATURE if before is None else before)
        with_value = document.with_entry(key, entry, value) if entry else document.with_key(key, value)
        sketch = YamlText("").with_entry(key, entry, value) if entry else YamlText("").with_key(key, value)
    except ConfigInvalid as exc:
        raise exc.of(at) from None
    except CannotAdd as exc:
        made.conflicts.append(exc.of(at))
        return
    if with_value is not document:
        made.changes.append(Change(path, before, with_value.text, sketch.text))
