"""Who the process of a container is: what an image or a user of ours calls it, looked up in the image's own files. Pure.

    redis   1000   redis:daemon   1000:1000   :daemon

A number is a number, whatever names there are. A group that is not given is that of the user's line in /etc/passwd, else 0;
then the groups that have the user as a member are his further ones. The first line with a name counts, and one that is no line
of such a file does not.

Sources: OCI image-spec 1.1, "Conversion to OCI Runtime Configuration", `Config.User`; passwd(5), group(5). That the first
group stands among the further ones too is as in docker and containerd since CVE-2022-36109: without it a process could leave a
group that files refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pullonce.bundle.errors import UserUnknown

_HIGHEST = (1 << 32) - 2
"""Of ids: the last one means none. Source: chown(2)."""


@dataclass(frozen=True, slots=True)
class User:
    """Who a process runs as, in the container's own numbers."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    """All groups, the first one included."""
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(wanted: str, passwd: str, group: str) -> User:
    """Find a user.

    Args:
        wanted: `user[:group]`, each a name or a number; empty: root.
        passwd: the image's /etc/passwd; empty where it has none.
        group: its /etc/group.

    Raises:
        UserUnknown: there is no such user or group.
    """
    who, _, of = wanted.partition(":")
    account = _account(who or "0", passwd)
    groups = list(_groups(group))
    if of:
        gid = _group(of, groups)
        return User(account.uid, gid, (gid,), account.home)
    further = [each.gid for each in groups if account.name and account.name in each.members]
    return User(account.uid, account.gid, tuple(dict.fromkeys([account.gid, *further])), account.home)


def _account(who: str, passwd: str) -> _Account:
    number = _number(who)
    for each in _accounts(passwd):
        if each.uid == number if number is not None else each.name == who:
            return each
    if number is None:
        raise UserUnknown(
            f"the image is to run as user {who!r}, whom its /etc/passwd does not have; say who it is with --user UID[:GID]"
        )
    return _Account("", number, 0, "/")


def _group(which: str, groups: list[_Group]) -> int:
    number = _number(which)
    if number is not None:
        return number
    for each in groups:
        if each.name == which:
            return each.gid
    raise UserUnknown(
        f"the image is to run in group {which!r}, which its /etc/group does not have; say which it is with --user UID:GID"
    )


def _accounts(text: str) -> Iterator[_Account]:
    for line in text.split("\n"):
        parts = line.strip().split(":")
        if len(parts) < 6 or not parts[0]:
            continue
        uid, gid = _number(parts[2], files=True), _number(parts[3], files=True)
        if uid is not None and gid is not None:
            yield _Account(parts[0], uid, gid, parts[5] if _is_path(parts[5]) else "/")


def _is_path(text: str) -> bool:
    return text.startswith("/") and "\0" not in text


def _groups(text: str) -> Iterator[_Group]:
    for line in text.split("\n"):
        parts = line.strip().split(":")
        if len(parts) >= 3 and parts[0] and (gid := _number(parts[2], files=True)) is not None:
            members = parts[3].split(",") if len(parts) > 3 else []
            yield _Group(parts[0], gid, tuple(each.strip() for each in members if each.strip()))


def _number(text: str, *, files: bool = False) -> int | None:
    """An id; None for a name, and for what a file may have in the place of one.

    Raises:
        UserUnknown: it is a number that no id can have, and nobody's file says so.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text) if len(text) <= 10 else _HIGHEST + 1
    if value <= _HIGHEST:
        return value
    if files:
        return None
    raise UserUnknown(f"{text[:40]} is the id of nobody; expected 0 to {_HIGHEST}")
