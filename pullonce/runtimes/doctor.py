"""Looks at one runtime, or at all that a machine has. Pure."""

from collections.abc import Mapping, Sequence

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.facts import Facts, Process
from pullonce.runtimes.files import Files, FilesRefused
from pullonce.runtimes.finding import Finding, unreadable
from pullonce.runtimes.k3s import K3S, RKE2
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plans import DOORS, RUNTIMES, SETTINGS
from pullonce.runtimes.rules import containerd, docker, gateway, k3s, kubelet, podman
from pullonce.runtimes.trouble import ConfigInvalid

_BINARIES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/opt/bin")
_PROGRAMS = {
    "containerd": ("containerd",), "kubelet": ("kubelet",), "docker": ("dockerd",), "podman": ("podman", "buildah", "skopeo"),
    "crio": ("crio",), "k3s": ("k3s",), "rke2": ("rke2",),
}  # fmt: skip
_SIGNS = {
    "containerd": "/etc/containerd/config.toml", "kubelet": "/var/lib/kubelet/config.yaml", "docker": "/etc/docker/daemon.json",
    "podman": "/etc/containers/registries.conf", "crio": "/etc/crio/crio.conf", "k3s": "/etc/rancher/k3s/config.yaml",
    "rke2": "/etc/rancher/rke2/config.yaml",
}  # fmt: skip
_ROUGHLY = 2.0
"""Seconds by which the kernel's word on when it was booted, and so a process started, may be off."""
_AT_EACH_PULL = ("/hosts.toml", "registries.conf", "registries.conf.d")
"""What is read at each pull, so that nothing has to be started anew."""


class Seen:
    """Files, and which of them there were."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.paths: list[str] = []

    def read(self, path: str) -> str | None:
        """As `Files.read`."""
        text = self._files.read(path)
        if text is not None:
            self.paths.append(path)
        return text

    def names(self, directory: str) -> list[str]:
        """As `Files.names`."""
        return self._files.names(directory)


def present(files: Files, facts: Facts) -> list[str]:
    """The runtimes that a machine has."""
    programs = {name for directory in _BINARIES for name in files.names(directory)} | set(facts.processes)
    return [
        runtime
        for runtime in RUNTIMES
        if programs.intersection(_PROGRAMS[runtime]) or _SIGNS[runtime].rpartition("/")[2] in _beside(files, _SIGNS[runtime])
    ]


def _beside(files: Files, path: str) -> list[str]:
    return files.names(path.rpartition("/")[0])


def examine(runtime: str, files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> list[Finding]:
    """What keeps one runtime from using pullonce."""
    if not any(getattr(offer, door) for door in DOORS[runtime]):
        settings = [SETTINGS[door] for door in DOORS[runtime] if door in SETTINGS]
        why = "its doors for that are off, or have no address for others"
        return [Finding(runtime, "blocks", f"the gateway has no door for {runtime}", why, f"set {' or '.join(settings)}")]
    seen = Seen(files)
    try:
        found = _rules(runtime, seen, offer, wanted, facts)
    except ConfigInvalid as exc:
        found = [unreadable(runtime, exc)]
    except FilesRefused as exc:
        found = [Finding(runtime, "note", str(exc), "what it says is not known", "run this as root")]
    return [*found, *_older(runtime, wanted.config, seen.paths, facts)]


def _rules(runtime: str, files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> list[Finding]:
    match runtime:
        case "containerd":
            return containerd.examine(files, offer, wanted, facts)
        case "kubelet":
            return kubelet.examine(files, offer, wanted, facts)
        case "docker":
            return docker.examine(files, offer, wanted, facts)
        case "podman" | "crio":
            return podman.examine(files, offer, wanted, facts, name=runtime)
        case _:
            return k3s.examine(files, offer, wanted, facts, distribution=K3S if runtime == "k3s" else RKE2)


def _older(runtime: str, config: str, paths: Sequence[str], facts: Facts) -> list[Finding]:
    """A process that was started before its configuration was changed."""
    counting = [path for path in paths if not any(each in path for each in _AT_EACH_PULL)]
    changed = {path: facts.changed[path] for path in counting if path in facts.changed}
    started = [process.started for process in _running(facts.processes, runtime) if _config(process, runtime) == config]
    if not started or not changed:
        return []
    newest = max(changed, key=lambda path: changed[path])
    if changed[newest] <= started[0] + _ROUGHLY:
        return []
    restart = "systemctl reload docker" if runtime == "docker" else f"systemctl restart {runtime}"
    what = f"{runtime} runs since before {newest} was changed"
    return [Finding(runtime, "limits", what, "it may not have read it yet", restart, newest)]


def config_of(processes: Mapping[str, Sequence[Process]], runtime: str) -> str:
    """The file that the running process was told to read; empty where it was not told."""
    told = [_config(process, runtime) for process in _running(processes, runtime)]
    # The containerd that dockerd starts for itself is nobody's to configure.
    return next((path for path in told if "/docker/containerd" not in path), "")


def _running(processes: Mapping[str, Sequence[Process]], runtime: str) -> list[Process]:
    return [process for name in _PROGRAMS[runtime] for process in processes.get(name, ())]


def _config(process: Process, runtime: str) -> str:
    options = {"containerd": ("-c", "--config"), "docker": ("--config-file",)}.get(runtime, ())
    for position, word in enumerate(process.words):
        name, equals, value = word.partition("=")
        if name in options:
            return value if equals else "".join(process.words[position + 1 : position + 2])
    return ""


def doctor(runtimes: Sequence[str], files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> list[Finding]:
    """What keeps some runtimes from using pullonce, what concerns all of them first."""
    doors = [door for door in SETTINGS if getattr(offer, door) and any(door in DOORS[runtime] for runtime in runtimes)]
    found = list(gateway.examine(offer, doors, facts))
    for runtime in runtimes:
        found += examine(runtime, files, offer, wanted, facts)
    return found
