"""docker: the mirror before docker.io. Pure.

docker asks its mirrors for images of docker.io alone (moby#18818), with the containerd image store too.
"""

from collections.abc import Iterator

from pullonce.runtimes.files import Files
from pullonce.runtimes.json_text import JsonText
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Change, Plan
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

CONFIG = "/etc/docker/daemon.json"
MIRRORS = "registry-mirrors"
_SOURCES = ("/etc/default/docker", "/etc/sysconfig/docker", "/etc/conf.d/docker")
_UNITS = ("/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system")
_FLAG = "--registry-mirror"


def flags(files: Files) -> Iterator[tuple[str, str, int]]:
    """Mirrors that units and files of environment give dockerd on its command line: value, file, line.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    units = [f"{directory}/docker.service" for directory in _UNITS]
    units += [f"{each}.d/{name}" for each in units for name in files.names(f"{each}.d") if name.endswith(".conf")]
    for path in (*units, *_SOURCES):
        for number, line in enumerate((files.read(path) or "").splitlines(), 1):
            if line.lstrip().startswith(("#", ";")):
                continue
            for rest in line.split(_FLAG)[1:]:
                value = rest.lstrip("= ").split()
                yield (value[0].strip("\"'") if value else ""), path, number


def plan(files: Files, offer: Offer, config: str = "") -> Plan:
    """What dockerd lacks.

    Raises:
        ConfigInvalid, FilesRefused: its file cannot be read.
    """
    made = Plan("docker", restart=["systemctl reload docker"])
    path = config or CONFIG
    before = files.read(path)
    try:
        document = JsonText(before or "")
        with_mirror = document.with_item(MIRRORS, offer.mirror)
    except ConfigInvalid as exc:
        raise exc.of(path) from None
    except CannotAdd as exc:
        made.conflicts.append(exc.of(path))
        return made
    on_line = list(flags(files))
    if on_line and MIRRORS not in document.values:
        # A setting that stands in both keeps dockerd from starting.
        if offer.mirror not in [value.rstrip("/") for value, _, _ in on_line]:
            _, where, line = on_line[0]
            why = f"{_FLAG} stands on dockerd's command line, and dockerd does not start where {path} says it too"
            made.conflicts.append(CannotAdd(f"{why}: add {_FLAG}={offer.mirror} there, or take it out", path=where, line=line))
        return made
    if on_line:
        _, where, line = on_line[0]
        why = f'{_FLAG} stands on the command line and "{MIRRORS}" in {path}: dockerd does not start; take one of them out'
        made.conflicts.append(CannotAdd(why, path=where, line=line))
        return made
    if with_mirror is not document:
        made.changes.append(Change(path, before, with_mirror.text, JsonText("").with_item(MIRRORS, offer.mirror).text))
    made.notes.append("docker asks a mirror for images of docker.io only; from other registries it pulls by itself")
    return made
