"""What is asked for on top of an image: read from the words of a command line, checked. Pure."""

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pullonce.bundle.defaults import CAPABILITIES
from pullonce.bundle.errors import ConfigInvalid, OptionInvalid
from pullonce.bundle.image import check_environment, check_path, check_text, check_texts
from pullonce.oci.mappings import Mappings

NAMESPACES = {"net": "network", "pid": "pid", "ipc": "ipc", "uts": "uts"}
"""Those that may be the machine's or another container's, by the name that options have; the runtime's name."""
PRIVATE, HOST = "", "host"

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_TYPE = re.compile(r"[a-z0-9._]{1,32}")
_KEYS = {
    "type": "type", "src": "source", "source": "source", "dst": "destination", "destination": "destination",
    "target": "destination", "options": "options",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a container."""

    destination: str
    type: str = "bind"
    source: str = ""
    options: tuple[str, ...] = ()

    @property
    def is_bind(self) -> bool:
        return self.type == "bind" or "bind" in self.options or "rbind" in self.options


@dataclass(frozen=True, slots=True)
class Process:
    """The process, as far as it is not the image's.

    Attributes:
        command: in place of the image's entrypoint and command.
        arguments: in place of its command, behind its entrypoint.
        env: `NAME=VALUE`.
    """

    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False


@dataclass(frozen=True, slots=True)
class Isolation:
    """What keeps the container apart.

    Attributes:
        namespaces: runtime's name of a namespace → `host`, or the path of another; what is not there is private.
        added, dropped: capabilities, as `CAP_…`.
        new_privileges: whether set-id programs work.
    """

    namespaces: Mapping[str, str] = field(default_factory=dict)
    mapping: Mappings | None = None
    hostname: str = ""
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    new_privileges: bool = False

    def is_private(self, namespace: str) -> bool:
        return not self.namespaces.get(namespace)


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that is asked for."""

    process: Process = field(default_factory=Process)
    isolation: Isolation = field(default_factory=Isolation)
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False


def consistent(options: Options) -> Options:
    """Options that do not contradict each other. Raises OptionInvalid."""
    if options.process.command and options.process.arguments:
        raise OptionInvalid("--args is the whole command; leave out what follows `--`, or put it in there")
    if options.isolation.hostname and options.isolation.namespaces.get("uts") == HOST:
        raise OptionInvalid("--hostname would rename this machine, since --uts is host; leave one of the two out")
    destinations = [mount.destination for mount in options.mounts]
    twice = next((each for each in destinations if destinations.count(each) > 1), None)
    if twice:
        raise OptionInvalid(f"two mounts are to be on {twice}; expected one")
    return options


def command_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The words of a command: a JSON list of them; one text that is taken apart as a shell does; or several, a word each.

    Raises:
        OptionInvalid: it is none of them, or names no program.
    """
    if not texts:
        return ()
    words = list(texts) if len(texts) > 1 else _words(texts[0])
    if not words or not words[0]:
        raise OptionInvalid("a command needs at least a program")
    return checked_words("the command", words)


def _words(text: str) -> list[str]:
    if not text.lstrip().startswith("["):
        try:
            return shlex.split(text)
        except ValueError as exc:
            raise OptionInvalid(f"{text[:60]!r} cannot be taken apart as a shell does: {exc}") from None
    try:
        words = json.loads(text)
    except ValueError as exc:
        raise OptionInvalid(f"{text[:60]!r} is no JSON list of words: {exc}") from None
    if not all(isinstance(word, str) for word in words):
        raise OptionInvalid(f"{text[:60]!r} has what is no text; expected a JSON list of words")
    return list(words)


def checked_words(what: str, words: Sequence[str]) -> tuple[str, ...]:
    """Words that a process can be given. Raises OptionInvalid."""
    with_option(lambda: check_texts(what, words))
    return tuple(words)


def with_option(check: Callable[[], None]) -> None:
    """Carry out a check that an image's config has to pass too, for what the user said."""
    try:
        check()
    except ConfigInvalid as exc:
        raise OptionInvalid(str(exc)) from None


def variable_of(text: str, ours: Mapping[str, str]) -> str:
    """`NAME=VALUE`; of a name alone the value is ours. Empty where we have none.

    Raises:
        OptionInvalid: it has no name, or a NUL byte.
    """
    if "=" not in text:
        text = f"{text}={ours[text]}" if text in ours else ""
        if not text:
            return ""
    with_option(lambda: check_environment("--env", [text]))
    with_option(lambda: check_text("--env", text))
    return text


def absolute(what: str, path: str) -> str:
    """A path in the container. Raises OptionInvalid."""
    with_option(lambda: check_path(what, path))
    return path


def hostname_of(text: str) -> str:
    """Raises OptionInvalid for what is no name of a machine. Source: sethostname(2), hostname(7)."""
    if not _HOSTNAME.fullmatch(text):
        raise OptionInvalid(f"{text[:80]!r} is no host name; expected up to 64 letters, digits, `-`, `_` or `.`")
    return text


def namespace_of(text: str) -> str:
    """`private`, `host`, or the path of a namespace. Raises OptionInvalid."""
    if text in ("private", "none"):
        return PRIVATE
    if text != HOST and not text.startswith("/"):
        raise OptionInvalid(f"{text[:60]!r} is no namespace; expected private, host, or a path such as /run/netns/blue")
    with_option(lambda: check_text("a namespace", text))
    return text


def capability_of(text: str) -> str:
    """`NET_ADMIN`, `cap_net_admin`, or `ALL`; as `CAP_NET_ADMIN`. Raises OptionInvalid."""
    name = text.upper()
    if name == "ALL":
        return name
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in CAPABILITIES:
        raise OptionInvalid(f"{text[:40]!r} is no capability of Linux; capabilities(7) lists them, ALL stands for all")
    return name


def mount_of(text: str, here: str) -> Mount:
    """`type=bind,src=/data,dst=/data,ro`: docker's words and ctr's.

    Args:
        here: our working directory, for the source of a bind mount.

    Raises:
        OptionInvalid: it cannot be read.
    """
    said: dict[str, str] = {}
    flags: list[str] = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals and key in _KEYS:
            said[_KEYS[key]] = value
        elif key in ("readonly", "ro") and value in ("", "true", "1"):
            flags.append("ro")
        elif key in ("readonly", "ro") and value in ("false", "0"):
            flags.append("rw")
        elif part:
            flags.append(part)
    kind = said.get("type", "bind")
    if not _TYPE.fullmatch(kind):
        raise OptionInvalid(f"{kind[:40]!r} is no type of a mount; expected bind, tmpfs or another that mount(8) knows")
    destination = posixpath.normpath(absolute("the destination of --mount", said.get("destination", "")))
    if destination.strip("/") == "":
        raise OptionInvalid("a mount on / would hide the image; expected another destination")
    options = (*filter(None, said.get("options", "").split(":")), *flags)
    made = Mount("/" + destination.lstrip("/"), kind, said.get("source", ""), options)
    return _complete(made, here)


def _complete(mount: Mount, here: str) -> Mount:
    for word in (mount.source, *mount.options):
        with_option(lambda word=word: check_text("--mount", word))  # type: ignore[misc]
    if not mount.is_bind:
        return Mount(mount.destination, mount.type, mount.source or mount.type, mount.options or ("nosuid", "nodev"))
    if not mount.source:
        raise OptionInvalid("a bind mount needs a source; expected type=bind,src=PATH,dst=PATH")
    options = mount.options if {"bind", "rbind"} & {*mount.options} else ("rbind", *mount.options)
    if not any(each.lstrip("r") in ("private", "shared", "slave", "unbindable") for each in options):
        options = (*options, "rprivate")
    return Mount(mount.destination, "bind", posixpath.normpath(posixpath.join(here, mount.source)), options)
