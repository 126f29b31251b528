"""What a command line asks for, read; and what it may not ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pullonce.bundle import options
from pullonce.bundle.errors import OptionInvalid
from pullonce.bundle.options import Isolation, Mount, Options, Process
from pullonce.oci.mappings import IdRange, MappingInvalid, Mappings, mappings


def command(text: str) -> tuple[str, ...]:
    return options.command_of([text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ls -l", ("ls", "-l")),
        ("sh -c 'echo $A; exit 3'", ("sh", "-c", "echo $A; exit 3")),
        ('["sh", "-c", "a  b"]', ("sh", "-c", "a  b")),
        ('["one"]', ("one",)),
    ],
)
def test_a_command(text: str, expected: tuple[str, ...]) -> None:
    assert options.command_of([text]) == expected


def test_a_command_word_by_word() -> None:
    assert options.command_of(["sh", "-c", "echo a b"]) == ("sh", "-c", "echo a b")
    assert options.command_of([]) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,src=/data,dst=/srv", Mount("/srv", "bind", "/data", ("rbind", "rprivate"))),
        ("type=bind,source=/data,target=/srv,readonly", Mount("/srv", "bind", "/data", ("rbind", "ro", "rprivate"))),
        ("src=data,destination=/srv/../x,ro=true", Mount("/x", "bind", "/here/data", ("rbind", "ro", "rprivate"))),
        ("type=bind,src=/a,dst=/b,options=bind:rslave:ro", Mount("/b", "bind", "/a", ("bind", "rslave", "ro"))),
        ("type=none,options=rbind,src=/a,dst=/b", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
        ("type=tmpfs,dst=/scratch", Mount("/scratch", "tmpfs", "tmpfs", ("nosuid", "nodev"))),
        ("type=tmpfs,dst=/scratch,size=1m,noexec", Mount("/scratch", "tmpfs", "tmpfs", ("size=1m", "noexec"))),
        ("type=bind,src=/a,dst=//b", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ],
)
def test_a_mount(text: str, expected: Mount) -> None:
    assert options.mount_of(text, "/here") == expected


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (options.capability_of, "net_admin", "CAP_NET_ADMIN"),
        (options.capability_of, "CAP_SYS_TIME", "CAP_SYS_TIME"),
        (options.capability_of, "all", "ALL"),
        (options.namespace_of, "private", ""),
        (options.namespace_of, "none", ""),
        (options.namespace_of, "host", "host"),
        (options.namespace_of, "/run/netns/blue", "/run/netns/blue"),
        (options.hostname_of, "a.b-c_1", "a.b-c_1"),
        (lambda text: options.variable_of(text, {"OURS": "x"}), "A=b=c", "A=b=c"),
        (lambda text: options.variable_of(text, {"OURS": "x"}), "OURS", "OURS=x"),
        (lambda text: options.variable_of(text, {"OURS": "x"}), "NOBODYS", ""),
    ],
)
def test_a_word(read: Callable[[str], str], text: str, expected: str) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (command, "  "),
        (command, "sh -c 'x"),
        (command, "[1]"),
        (command, '["a"'),
        (command, "[]"),
        (command, '[""]'),
        (command, "a\0b"),
        (options.capability_of, "FLY"),
        (options.capability_of, ""),
        (options.namespace_of, "blue"),
        (options.namespace_of, ""),
        (options.namespace_of, "/a\0"),
        (options.hostname_of, "-a"),
        (options.hostname_of, "a" * 65),
        (options.hostname_of, "a b"),
        (lambda text: options.variable_of(text, {}), "=x"),
        (lambda text: options.variable_of(text, {}), "A=\0"),
        (lambda text: options.variable_of(text, {}), "A=\udcff"),
        (lambda text: options.absolute("--cwd", text), "here"),
        (lambda text: options.mount_of(text, "/"), "type=bind,src=/a"),
        (lambda text: options.mount_of(text, "/"), "type=bind,dst=/a"),
        (lambda text: options.mount_of(text, "/"), "type=bind,src=/a,dst=a"),
        (lambda text: options.mount_of(text, "/"), "type=bind,src=/a,dst=/"),
        (lambda text: options.mount_of(text, "/"), "type=bind,src=/a,dst=/x/.."),
        (lambda text: options.mount_of(text, "/"), "type=b nd,src=/a,dst=/x"),
        (lambda text: options.mount_of(text, "/"), "src=/a\0,dst=/x"),
    ],
)
def test_a_word_that_is_none(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(OptionInvalid):
        read(text)


@pytest.mark.parametrize(
    "given",
    [
        Options(Process(command=("a",), arguments=("b",))),
        Options(isolation=Isolation(namespaces={"uts": "host"}, hostname="box")),
        Options(mounts=(Mount("/a"), Mount("/a", "tmpfs"))),
    ],
)
def test_options_that_contradict_each_other(given: Options) -> None:
    with pytest.raises(OptionInvalid):
        options.consistent(given)


def test_mappings_of_one_kind_count_for_both() -> None:
    one = (IdRange(0, 100_000, 65_536),)
    assert mappings(["0:100000:65536"], []) == Mappings(one, one) == mappings([], ["0:100000:65536"])
    assert mappings([], []) is None


def test_owners_go_in_and_out() -> None:
    found = mappings(["0:100000:10", "10:5:1"], ["0:200000:1000"])
    assert found is not None
    assert found.owner(3, 999) == (100_003, 200_999)
    assert found.owner(10, 0) == (5, 200_000)
    assert found.inside(5, 200_001) == (10, 1)
    assert found.inside(0, 0) == (65_534, 65_534)
    with pytest.raises(MappingInvalid, match="user 11"):
        found.owner(11, 0)


@pytest.mark.parametrize(
    "texts",
    [
        ["0:1"], ["a:1:2"], ["0:1:0"], ["0:-1:5"], ["0:4294967290:10"], ["0:99999999999:1"], ["1:100:5"], ["0:1:5:rw"],
        ["0:100:10", "5:300:10"], ["0:100:10", "20:105:10"], [""], [f"{2 * n}:{2 * n}:1" for n in range(341)],
    ],
)  # fmt: skip
def test_a_mapping_that_is_none(texts: list[str]) -> None:
    with pytest.raises(MappingInvalid):
        mappings(texts, [])
