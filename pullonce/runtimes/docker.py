"""docker: the mirror before docker.io. Pure.

docker asks its mirrors for images of docker.io alone (moby#18818), with the containerd image store too.
"""

from pullonce.runtimes.files import Files
from pullonce.runtimes.json_text import JsonText
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Change, Plan
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

CONFIG = "/etc/docker/daemon.json"
MIRRORS = "registry-mirrors"


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
    if with_mirror is not document:
        made.changes.append(Change(path, before, with_mirror.text, JsonText("").with_item(MIRRORS, offer.mirror).text))
    made.notes.append("docker asks a mirror for images of docker.io only; from other registries it pulls by itself")
    return made
