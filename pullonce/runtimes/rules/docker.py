"""docker: whether it asks our mirror. Pure. Source: dockerd(8)."""

from collections.abc import Iterator
from typing import Any

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.docker import CONFIG, MIRRORS, flags
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import Files
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.json_text import JsonText
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.trouble import ConfigInvalid

NAME = "docker"
ADD = "`pullonce gateway config docker` prints what to add, `--write` adds it"


def examine(files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> list[Finding]:
    """What keeps docker from the mirror.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    if not offer.mirror:
        return []
    path = wanted.config or CONFIG
    try:
        document = JsonText(files.read(path) or "")
    except ConfigInvalid as exc:
        raise exc.of(path) from None
    given = document.values.get(MIRRORS)
    on_line = [*flags(files), *_running(facts)]
    return [
        *_twice(path, document, on_line),
        *_mirrors(path, document, given, offer, [value for value, _, _ in on_line]),
        *_insecure(path, document, offer),
        *_told(path, document),
    ]


def _running(facts: Facts) -> Iterator[tuple[str, str, int]]:
    """Mirrors with which dockerd runs."""
    for process in list(facts.processes.get("dockerd", ()))[:1]:
        for word in process.words:
            if word.startswith("--registry-mirror="):
                yield word.partition("=")[2], "the running dockerd", 0


def _twice(path: str, document: JsonText, flags: list[tuple[str, str, int]]) -> Iterator[Finding]:
    if flags and MIRRORS in document.values:
        what = f'"{MIRRORS}" stands in {path} and on the command line as well: dockerd does not start'
        why = "dockerd takes no setting from both"
        yield Finding(NAME, "blocks", what, why, "take --registry-mirror out there", flags[0][1], flags[0][2])


def _mirrors(path: str, document: JsonText, given: Any, offer: Offer, flags: list[str]) -> Iterator[Finding]:
    line = document.line(MIRRORS)
    if given is not None and not (isinstance(given, list) and all(isinstance(each, str) for each in given)):
        yield Finding(
            NAME,
            "blocks",
            f'"{MIRRORS}" is no list of addresses: dockerd does not start',
            "a list is expected",
            f'write ["{offer.mirror}"]',
            path,
            line,
        )
        return
    named = [each.rstrip("/") for each in (given or flags)]
    if offer.mirror not in named:
        what = f'"{MIRRORS}" does not name {offer.mirror}' if named else f'"{MIRRORS}" is not set'
        yield Finding(NAME, "blocks", what, "docker asks docker.io itself", ADD, path, line)
    elif named[0] != offer.mirror:
        why = "docker asks that one first, and ours only where it has nothing"
        yield Finding(NAME, "limits", f"the mirror comes behind {named[0]}", why, "let it be the first of the list", path, line)


def _insecure(path: str, document: JsonText, offer: Offer) -> Iterator[Finding]:
    host = offer.mirror_host.rpartition(":")[0].strip("[]")
    if offer.mirror.startswith("https://") or host == "localhost" or host.startswith("127.") or host == "::1":
        return
    insecure = document.values.get("insecure-registries")
    if not isinstance(insecure, list) or offer.mirror_host not in insecure:
        why = "docker speaks plain HTTP to this machine's own addresses only"
        yield Finding(
            NAME,
            "blocks",
            f"{offer.mirror} is beyond loopback and has no TLS",
            why,
            "give the mirror a certificate, or have it on loopback",
            path,
            document.line("insecure-registries"),
        )


def _told(path: str, document: JsonText) -> Iterator[Finding]:
    features = document.values.get("features")
    if isinstance(features, dict) and features.get("containerd-snapshotter"):
        why = "docker's containerd store reads no hosts.toml (moby#52890), so images of other registries are pulled by itself"
        yield Finding(
            NAME,
            "note",
            "images lie in docker's containerd store",
            why,
            "nothing has to be done",
            path,
            document.line("features"),
        )
    why = "docker asks mirrors for nothing else (moby#18818); images of other registries it pulls by itself"
    mend = "pull those by `pullonce pull`, and hand them over by `pullonce export … | docker load`"
    yield Finding(NAME, "note", "the mirror is for images of docker.io", why, mend, path, document.line(MIRRORS))
