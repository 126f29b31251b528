"""What an image says of the process that is to run in it, checked: it may say anything. Pure.

Source: OCI image-spec 1.1, "OCI Image Configuration"; the limits are Linux's (execve(2), `MAX_ARG_STRLEN` and a quarter of a
stack of 8 MiB), so what passes here can be started.
"""

from collections.abc import Iterable

import msgspec

from pullonce.bundle.errors import ConfigInvalid
from pullonce.oci import go_json

_LONGEST_TEXT = 128 * 1024 - 1
_MOST_TEXT = 2 << 20
_LONGEST_PATH = 4095
_SHOWN = 60


class Nothing(msgspec.Struct, frozen=True):
    """The value of each key of what Go writes as `map[string]struct{}`."""


class ProcessConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """`config` of an image's configuration."""

    user: str = ""
    exposed_ports: dict[str, Nothing] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: dict[str, Nothing] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""


_DOTTED = {"os_version": "os.version", "os_features": "os.features"}


class Configuration(msgspec.Struct, frozen=True, rename=_DOTTED):
    """An image's configuration, as far as a runtime is concerned."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    author: str = ""
    created: str = ""
    config: ProcessConfig = ProcessConfig()


def read(content: bytes) -> Configuration:
    """Read and check an image's configuration.

    Raises:
        ConfigInvalid: it is none, or says what no process can be started with.
    """
    try:
        found = go_json.decode(content, Configuration)
    except go_json.NoDocument as exc:
        raise ConfigInvalid(f"the image's config cannot be read: {exc}") from None
    said = found.config
    for what, text in (("User", said.user), ("WorkingDir", said.working_dir), ("StopSignal", said.stop_signal)):
        check_text(f"the image's {what}", text)
    for what, texts in (("Env", said.env), ("Entrypoint", said.entrypoint), ("Cmd", said.cmd)):
        check_texts(f"the image's {what}", texts)
    check_environment("the image's Env", said.env)
    if said.working_dir:
        check_path("the image's WorkingDir", said.working_dir)
    return found


def check_text(what: str, text: str) -> None:
    """Raises ConfigInvalid for a text that no process can be given."""
    if "\0" in text:
        raise ConfigInvalid(f"{what} has a NUL byte, which no process can be given: {text[:_SHOWN]!r}")
    if _size(text) > _LONGEST_TEXT:
        raise ConfigInvalid(f"{what} has more than {_LONGEST_TEXT} bytes, Linux's limit: {text[:_SHOWN]!r}…")
    if not _is_written(text):
        raise ConfigInvalid(f"{what} is no UTF-8, which config.json has to be: {text[:_SHOWN]!r}")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _is_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_texts(what: str, texts: Iterable[str]) -> None:
    """The same for several, and for all of them together."""
    size = 0
    for text in texts:
        check_text(what, text)
        size += _size(text) + 9  # its end, and a pointer to it
    if size > _MOST_TEXT:
        raise ConfigInvalid(f"{what} has {size} bytes; Linux gives a process {_MOST_TEXT} at most")


def check_environment(what: str, variables: Iterable[str]) -> None:
    """Raises ConfigInvalid where one is no `NAME=VALUE`."""
    for each in variables:
        if each.find("=") < 1:
            raise ConfigInvalid(f"{what} has {each[:_SHOWN]!r}; expected NAME=VALUE")


def check_path(what: str, path: str) -> None:
    """Raises ConfigInvalid for what is no absolute path."""
    check_text(what, path)
    if not path.startswith("/"):
        raise ConfigInvalid(f"{what} is {path[:_SHOWN]!r}; expected an absolute path")
    if _size(path) > _LONGEST_PATH:
        raise ConfigInvalid(f"{what} is longer than a path may be: {path[:_SHOWN]!r}…")
