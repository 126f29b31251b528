"""Who a process runs as: the forms of a user, and files that anybody may have written."""

from __future__ import annotations

import re

import pytest

from pullonce.bundle.errors import UserUnknown
from pullonce.bundle.users import User, resolve

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a remark
broken:x:none:0::/:
short:x:5
huge:x:4294967295:4294967295::/:
app:x:1000:1001:App:/home/app:/bin/sh
app:x:2000:2000:a second one::
relative:x:1003:1003::home:
1234:x:77:77::/named:
"""
GROUP = """\
root:x:0:
wheel:x:10:root, app
app:x:1001:
extra:x:1002:other,app
lost:x:x:app
alone:x:1009
"""


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", User(0, 0, (0, 10), "/root")),
        ("root", User(0, 0, (0, 10), "/root")),
        ("0", User(0, 0, (0, 10), "/root")),
        ("app", User(1000, 1001, (1001, 10, 1002), "/home/app")),
        ("1000", User(1000, 1001, (1001, 10, 1002), "/home/app")),
        ("app:", User(1000, 1001, (1001, 10, 1002), "/home/app")),
        ("app:wheel", User(1000, 10, (10,), "/home/app")),
        ("app:5000", User(1000, 5000, (5000,), "/home/app")),
        ("1000:alone", User(1000, 1009, (1009,), "/home/app")),
        (":extra", User(0, 1002, (1002,), "/root")),
        ("4242", User(4242, 0, (0,), "/")),
        ("4242:4343", User(4242, 4343, (4343,), "/")),
        ("1234", User(1234, 0, (0,), "/")),  # a number is a number, though somebody is called so
        ("relative", User(1003, 1003, (1003,), "/")),
        ("4294967294", User(4294967294, 0, (0,), "/")),
    ],
)
def test_a_user_is_found(wanted: str, expected: User) -> None:
    assert resolve(wanted, PASSWD, GROUP) == expected


@pytest.mark.parametrize("wanted", ["", "0", "12:13"])
def test_numbers_need_no_files(wanted: str) -> None:
    assert resolve(wanted, "", "").uid == int(wanted.partition(":")[0] or 0)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("nobody", "'nobody'"),
        ("broken", "'broken'"),
        ("huge", "'huge'"),
        ("app:nogroup", "'nogroup'"),
        ("app:lost", "'lost'"),
        ("4294967295", "the id of nobody"),
        ("0:99999999999999999999", "the id of nobody"),
        ("-1", "'-1'"),
        ("app:wheel:more", "'wheel:more'"),
        ("\u0661", "'\u0661'"),
    ],
)
def test_nobody_is_told(wanted: str, told: str) -> None:
    with pytest.raises(UserUnknown, match=re.escape(told)):
        resolve(wanted, PASSWD, GROUP)


def test_a_line_is_a_line() -> None:
    """What other programs take for the end of one is part of a name here."""
    with pytest.raises(UserUnknown):
        resolve("evil", "app:x:1:1::/:\x0bevil:x:0:0::/:\n", "")


def test_no_home_has_a_nul_byte() -> None:
    assert resolve("app", "app:x:1:1::/a\0b:\n", "").home == "/"
