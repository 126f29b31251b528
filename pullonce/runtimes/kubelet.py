"""kubelet: where it asks for images. Pure.

Sources: kubelet(8); KubeletConfiguration v1beta1, `imageServiceEndpoint` and the drop-in directory (`--config-dir`).
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from pullonce.runtimes.files import Files
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import SIGNATURE, Change, Plan
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid
from pullonce.runtimes.yaml_text import YamlText

CONFIG = "/var/lib/kubelet/config.yaml"
UNITS = (
    *("/lib/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/run/systemd/system"),
    "/etc/systemd/system",
)
ENVIRONMENTS = ("/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet")
ENDPOINT = "imageServiceEndpoint"

_DROP_IN_HEAD = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
_FLAG = re.compile(r"^--([a-z-]+)(?:=(.*))?$")


@dataclass(frozen=True, slots=True)
class Flag:
    """One option on kubelet's command line, and where it comes from."""

    name: str
    value: str
    path: str
    line: int


def flags(files: Files) -> list[Flag]:
    """The options that units and files of environment give kubelet, as far as they stand there in plain words.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    return [flag for path in _sources(files) if (text := files.read(path)) for flag in _flags(path, text)]


def _sources(files: Files) -> Iterator[str]:
    for directory in UNITS:
        yield f"{directory}/kubelet.service"
        drop_ins = f"{directory}/kubelet.service.d"
        yield from (f"{drop_ins}/{name}" for name in files.names(drop_ins) if name.endswith(".conf"))
    yield from ENVIRONMENTS


def _flags(path: str, text: str) -> Iterator[Flag]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(("#", ";")) or "--" not in line:
            continue
        words = [word for part in _words(line) for word in _words(part)]
        for position, word in enumerate(words):
            if found := _FLAG.match(word[word.find("--") :] if "--" in word else ""):
                value = found[2]
                if value is None:
                    value = words[position + 1] if position + 1 < len(words) and not words[position + 1].startswith("-") else ""
                yield Flag(found[1], value, path, number)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def last(found: list[Flag], name: str) -> Flag | None:
    """The last of an option, which counts."""
    return next((flag for flag in reversed(found) if flag.name == name), None)


def plan(files: Files, offer: Offer, config: str = "") -> Plan:
    """What kubelet lacks.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    made = Plan("kubelet", restart=["systemctl restart kubelet"])
    wanted = f"unix://{offer.cri}"
    if not offer.behind:
        made.notes.append(
            "the image service has to stand in front of the container runtime: set "
            "PULLONCE_GATEWAY_CRI_BEHIND=/run/containerd/containerd.sock for the gateway, or pods do not find what it pulls"
        )
    given = flags(files)
    if flag := last(given, "image-service-endpoint"):
        if flag.value.removeprefix("unix://") != offer.cri:
            why = f"--image-service-endpoint={flag.value} goes before the configuration: it has to be {wanted}"
            made.conflicts.append(CannotAdd(why, path=flag.path, line=flag.line))
        return made
    named = last(given, "config")
    main = config or (named.value if named and named.value else CONFIG)
    directory = last(given, "config-dir")
    beside = directory.value.rstrip("/") if directory and directory.value else ""
    path = f"{beside}/50-pullonce.conf" if beside and not config else main
    if _stated(files, main, beside, wanted, made):
        return made
    _endpoint(files, path, wanted, new=_DROP_IN_HEAD, made=made)
    if path == main:
        if files.read(main) is None:
            made.notes.append(
                f"{main} is not there: is that where this node's kubelet has its configuration? --config names another"
            )
        made.notes.append("kubeadm writes this file anew when it upgrades a node: repeat this then")
    return made


def documents(files: Files, main: str, directory: str) -> Iterator[tuple[str, YamlText]]:
    """The configuration in the order in which it counts, the last before the others: path, document.

    Args:
        directory: of `--config-dir`; empty for none.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    more = [f"{directory.rstrip('/')}/{name}" for name in files.names(directory) if name.endswith(".conf")] if directory else []
    for path in (main, *more):
        text = files.read(path)
        if text is None:
            continue
        try:
            yield path, YamlText(text)
        except ConfigInvalid as exc:
            raise exc.of(path) from None


def _stated(files: Files, main: str, directory: str, wanted: str, made: Plan) -> bool:
    """Whether some file says already whom to ask; each that says somebody else is a conflict."""
    said = False
    for path, document in documents(files, main, directory):
        if (value := document.get(ENDPOINT)) in (None, ""):
            continue
        said = True
        if str(value).removeprefix("unix://") != wanted.removeprefix("unix://"):
            why = f"{ENDPOINT} is {value}, and not {wanted}"
            made.conflicts.append(CannotAdd(why, path=path, line=document.line(ENDPOINT)))
    return said


def _endpoint(files: Files, path: str, wanted: str, *, new: str, made: Plan) -> None:
    before = files.read(path)
    try:
        document = YamlText(SIGNATURE + new if before is None else before)
        with_endpoint = document.with_key(ENDPOINT, wanted)
    except ConfigInvalid as exc:
        raise exc.of(path) from None
    except CannotAdd as exc:
        made.conflicts.append(exc.of(path))
        return
    if with_endpoint is not document or before is None:
        shown = f"{ENDPOINT}: {wanted}\n" if before is not None else with_endpoint.text
        made.changes.append(Change(path, before, with_endpoint.text, shown))
