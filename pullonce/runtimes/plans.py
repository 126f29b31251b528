"""Which runtimes there are, and what each needs of the gateway. Pure."""

from dataclasses import replace

from pullonce.errors import PullonceError
from pullonce.runtimes import containerd, docker, k3s, kubelet, podman
from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import Files, Planned
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Plan
from pullonce.runtimes.rules import containerd as rules
from pullonce.runtimes.trouble import CannotAdd

RUNTIMES = ("containerd", "kubelet", "docker", "podman", "crio", "k3s", "rke2")

DOORS = {
    "containerd": ("snapshotter", "mirror"),
    "kubelet": ("cri",),
    "docker": ("mirror",),
    "podman": ("mirror", "view"),
    "crio": ("mirror", "view"),
    "k3s": ("snapshotter", "mirror"),
    "rke2": ("snapshotter", "mirror"),
}
"""Runtime → the doors by which it can use the gateway; any of them will do."""

SETTINGS = {"snapshotter": "PULLONCE_GATEWAY_SNAPSHOTTER", "mirror": "PULLONCE_GATEWAY_MIRROR", "cri": "PULLONCE_GATEWAY_CRI"}


class DoorOff(PullonceError):
    """The gateway has no door for that."""


def plan_for(runtime: str, files: Files, offer: Offer, wanted: Wanted) -> Plan:
    """What a runtime lacks.

    Raises:
        DoorOff: the gateway does not offer what the runtime could use, or what was asked for.
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    doors = wanted.doors or DOORS[runtime]
    if unfit := [door for door in doors if door not in DOORS[runtime]]:
        raise DoorOff(f"{runtime} does not use the {unfit[0]}; it uses {' and '.join(DOORS[runtime])}")
    off = [door for door in doors if not getattr(offer, door)]
    if off and (wanted.doors or len(off) == len(doors)):
        setting = SETTINGS.get(off[0])
        why = f", or has no address for others: set {setting} for the gateway" if setting else ""
        raise DoorOff(f"the gateway's {off[0]} is off{why}")
    match runtime:
        case "containerd":
            return _judged(containerd.plan(files, offer, wanted), files, offer, wanted)
        case "kubelet":
            return kubelet.plan(files, offer, wanted.config)
        case "docker":
            return docker.plan(files, offer, wanted.config)
        case "podman" | "crio":
            return podman.plan(files, offer, wanted.registries, mirror="mirror" in doors, view="view" in doors, runtime=runtime)
        case _:
            distribution = k3s.K3S if runtime == "k3s" else k3s.RKE2
            return k3s.plan(files, offer, distribution, wanted.platform, wanted.doors)


def _judged(made: Plan, files: Files, offer: Offer, wanted: Wanted) -> Plan:
    """The plan, and what the doctor would say of its outcome: what does not help is not written."""
    if made.conflicts:
        return made
    if wanted.doors == ("mirror",):
        offer = replace(offer, snapshotter="")
    after = Planned(files, {change.path: change.after for change in made.changes})
    for each in rules.examine(after, offer, wanted, Facts()):
        if each.severity == "blocks":
            made.conflicts.append(CannotAdd(f"{each.what}: {each.why}; {each.mend}", path=each.path, line=each.line))
    return made
