"""What the machine is like, and which ids we have ourselves."""

from pathlib import Path

from pullonce.bundle.defaults import SHARED
from pullonce.bundle.spec import Host
from pullonce.oci.mappings import IdRange, Mappings

_EVERY = IdRange(0, 0, (1 << 32) - 1)


def look() -> Host:
    """Look at the machine. Source: user_namespaces(7), cgroups(7)."""
    uids, gids = _ranges("uid_map"), _ranges("gid_map")
    mapped = uids not in ((), (_EVERY,))
    return Host(
        unified=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        shared=frozenset(each for each in SHARED if Path(each).exists()),
        mapping=Mappings(uids, gids) if mapped else None,
        may_set_groups=_may_set_groups(),
    )


def _ranges(name: str) -> tuple[IdRange, ...]:
    try:
        lines = Path(f"/proc/self/{name}").read_text().splitlines()
    except OSError:
        return ()
    return tuple(IdRange(*map(int, line.split())) for line in lines)


def _may_set_groups() -> bool:
    try:
        return Path("/proc/self/setgroups").read_text().strip() != "deny"
    except OSError:
        return True
