"""An image's config turned into a runtime's, as a table; compared with what `runc spec` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pullonce.bundle.errors import ConfigInvalid
from pullonce.bundle.image import read
from pullonce.bundle.options import HOST, Isolation, Mount, Options, Process
from pullonce.bundle.spec import Directory, Found, Host, runtime_config
from pullonce.bundle.users import User
from pullonce.oci.mappings import MappingInvalid, mappings

APP = User(1000, 1001, (1001, 1002), "/home/app")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALL = Host(unified=True, shared=frozenset(("/etc/hosts", "/etc/resolv.conf", "/dev/shm", "/dev/mqueue")))


NOTHING: Mapping[str, Any] = {}
PLAIN = Options()
AS_APP = Found(APP)


def made(
    options: Options = PLAIN, host: Host = ALL, found: Found = AS_APP, about: Mapping[str, Any] = NOTHING, **config: Any
) -> dict[str, Any]:
    document = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["run"], **config}, **about}
    return runtime_config(read(json.dumps(document).encode()), found, options, host)


def process(options: Options = PLAIN, **config: Any) -> dict[str, Any]:
    return made(options, **config)["process"]  # type: ignore[no-any-return]


def mounts(config: dict[str, Any]) -> dict[str, Any]:
    return {each["destination"]: each for each in config["mounts"]}


@pytest.mark.parametrize(
    ("config", "wanted", "args"),
    [
        ({"Cmd": ["a", "b"]}, Process(), ["a", "b"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, Process(), ["e", "a"]),
        ({"Entrypoint": ["e"], "Cmd": None}, Process(), ["e"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, Process(arguments=("x", "y")), ["e", "x", "y"]),
        ({"Cmd": ["a"]}, Process(arguments=("x",)), ["x"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, Process(command=("x", "y")), ["x", "y"]),
        ({"Cmd": ["a", ""]}, Process(), ["a", ""]),
    ],
)
def test_what_is_started(config: dict[str, Any], wanted: Process, args: list[str]) -> None:
    assert process(Options(wanted), **config)["args"] == args


@pytest.mark.parametrize("config", [{"Cmd": None}, {"Cmd": [""]}, {"Entrypoint": [""], "Cmd": ["x"]}])
def test_nothing_to_start_is_told(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid, match="names no program"):
        process(**config)


@pytest.mark.parametrize(
    ("image", "wanted", "env"),
    [
        ([], Process(), [PATH, "HOME=/home/app"]),
        (["A=1", "PATH=/x", "A=2"], Process(), ["A=2", "PATH=/x", "HOME=/home/app"]),
        (["A=1", "HOME="], Process(env=("A=3", "B=", "")), ["A=3", "HOME=", "B=", PATH]),
        ([], Process(tty=True), [PATH, "HOME=/home/app", "TERM=xterm"]),
        (["TERM=vt100"], Process(tty=True), ["TERM=vt100", PATH, "HOME=/home/app"]),
    ],
)
def test_each_variable_is_there_once(image: list[str], wanted: Process, env: list[str]) -> None:
    assert process(Options(wanted), Env=image)["env"] == env


def test_image_and_options_together_fit_into_a_process() -> None:
    with pytest.raises(ConfigInvalid, match="at most"):
        process(Options(Process(env=("B=" + "x" * 100_000,))), Env=[f"A{n}=" + "x" * 100_000 for n in range(20)])


def test_who_and_where() -> None:
    found = process(WorkingDir="/srv")
    assert found["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [1001, 1002]}
    assert (found["cwd"], found["terminal"], found["noNewPrivileges"]) == ("/srv", False, True)
    assert process()["cwd"] == "/"
    assert process(Options(Process(cwd="/tmp")), WorkingDir="/srv")["cwd"] == "/tmp"
    assert process(Options(isolation=Isolation(new_privileges=True)))["noNewPrivileges"] is False


def test_where_groups_cannot_be_set_there_are_none() -> None:
    assert "additionalGids" not in made(host=replace(ALL, may_set_groups=False))["process"]["user"]


@pytest.mark.parametrize(
    ("user", "added", "dropped", "expected"),
    [
        (User(), (), (), {"bounding": 14, "effective": 14, "permitted": 14, "inheritable": 0, "ambient": 0}),
        (User(), ("CAP_SYS_TIME",), ("CAP_MKNOD", "CAP_KILL"), {"bounding": 13, "effective": 13, "permitted": 13}),
        (User(), (), ("ALL",), {"bounding": 0, "effective": 0}),
        (User(), ("CAP_CHOWN",), ("ALL",), {"bounding": 1, "effective": 1}),
        (User(), ("ALL",), (), {"bounding": 41, "effective": 41, "inheritable": 0, "ambient": 0}),
        (User(), ("ALL",), ("CAP_SYS_ADMIN",), {"bounding": 40}),
        (APP, (), (), {"bounding": 14, "effective": 0, "permitted": 0, "inheritable": 0, "ambient": 0}),
        (APP, ("CAP_NET_BIND_SERVICE",), (), {"bounding": 14, "effective": 1, "permitted": 1, "inheritable": 1, "ambient": 1}),
    ],
)
def test_capabilities(user: User, added: tuple[str, ...], dropped: tuple[str, ...], expected: dict[str, int]) -> None:
    sets = made(Options(isolation=Isolation(added=added, dropped=dropped)), found=Found(user))["process"]["capabilities"]
    assert {name: len(sets[name]) for name in expected} == expected


def test_what_the_image_says_of_itself() -> None:
    about = {"author": "we", "created": "2026-01-02T03:04:05Z", "variant": "v2", "os.version": "1", "os.features": ["a", "b"]}
    labels = {"team": "blue", "org.opencontainers.image.author": "they", "": "nothing", "run.oci.handler": "krun",
              "org.systemd.property.DelegateControllers": "cpu"}  # fmt: skip
    found = made(about=about, Labels=labels, StopSignal="SIGQUIT", ExposedPorts={"80/tcp": {}, "53/udp": None})["annotations"]
    prefix = "org.opencontainers.image."
    assert found == {
        f"{prefix}os": "linux", f"{prefix}architecture": "amd64", f"{prefix}variant": "v2", f"{prefix}os.version": "1",
        f"{prefix}os.features": "a,b", f"{prefix}author": "they", f"{prefix}created": "2026-01-02T03:04:05Z",
        f"{prefix}stopSignal": "SIGQUIT", f"{prefix}exposedPorts": "53/udp,80/tcp", "team": "blue",
    }  # fmt: skip


def test_namespaces() -> None:
    assert [each["type"] for each in made()["linux"]["namespaces"]] == ["mount", "network", "pid", "ipc", "uts", "cgroup"]
    chosen = Isolation(namespaces={"network": "/run/netns/x", "pid": "host", "uts": ""}, mapping=mappings(["0:1:65536"], []))
    linux = made(Options(isolation=chosen), replace(ALL, unified=False))["linux"]
    assert linux["namespaces"] == [
        {"type": "user"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/x"}, {"type": "ipc"}, {"type": "uts"},
    ]  # fmt: skip
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 1, "size": 65536}]


def test_whoever_is_nobody_on_the_machine_is_told() -> None:
    for ids in (["0:100000:1000"], ["0:100000:1001", "1002:200000:5"]):  # the user; the second group
        with pytest.raises(MappingInvalid, match="is nobody"):
            made(Options(isolation=Isolation(mapping=mappings(ids, []))))


def test_a_shared_network_brings_its_names() -> None:
    found = mounts(made(Options(isolation=Isolation(namespaces={"network": "host"}))))
    assert found["/etc/hosts"] == {
        "destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "rprivate", "ro"],
    }  # fmt: skip
    assert found["/sys"]["type"] == "sysfs"
    assert "/etc/hosts" not in mounts(made())


def test_who_does_not_own_the_network_gets_the_machines_view_of_it() -> None:
    ours = Isolation(namespaces={"network": "host"}, mapping=mappings(["0:1:65536"], []))
    found = mounts(made(Options(isolation=ours)))
    assert found["/sys"]["type"] == "bind" and "ro" in found["/sys"]["options"] and "/sys/fs/cgroup" not in found
    assert mounts(made(Options(isolation=Isolation(mapping=mappings(["0:1:65536"], [])))))["/sys"]["type"] == "sysfs"


@pytest.mark.parametrize(
    ("host", "mapped", "expected"),
    [
        (ALL, [], {"/dev/shm": "bind", "/dev/mqueue": "bind"}),
        (Host(shared=frozenset(("/dev/shm",))), [], {"/dev/shm": "bind", "/dev/mqueue": "mqueue"}),
        (Host(shared=frozenset(("/dev/shm",))), ["0:1:65536"], {"/dev/shm": "bind"}),
    ],
)
def test_shared_queues(host: Host, mapped: list[str], expected: dict[str, str]) -> None:
    isolation = Isolation(namespaces={"ipc": "host"}, mapping=mappings(mapped, []))
    found = mounts(made(Options(isolation=isolation), host))
    assert {path: found[path]["type"] for path in ("/dev/shm", "/dev/mqueue") if path in found} == expected


def test_a_group_of_terminals_that_is_not_mapped_is_left_out() -> None:
    assert "gid=5" in mounts(made())["/dev/pts"]["options"]
    few = mappings(["0:1:5", "1000:1000:100"], [])
    assert "gid=5" not in mounts(made(Options(isolation=Isolation(mapping=few))))["/dev/pts"]["options"]
    assert "gid=5" not in mounts(made(host=replace(ALL, mapping=mappings(["0:1000:1"], []))))["/dev/pts"]["options"]


def test_volumes_lie_in_the_root_and_in_memory_where_that_is_read_only() -> None:
    volumes = {"/data": {}, "/data/logs/": {}, "/full/../there": None}
    assert "/data" not in mounts(made(Volumes=volumes))
    found = mounts(
        made(
            Options(read_only=True), Volumes=volumes,
            found=Found(APP, {"/data": Directory(999, 998, 0o2750), "/there": Directory(empty=False)}),
        )
    )  # fmt: skip
    assert found["/data"]["options"] == ["nosuid", "nodev", "mode=2750", "uid=999", "gid=998"]
    assert found["/there"]["options"] == ["nosuid", "nodev", "mode=755", "uid=0", "gid=0", "tmpcopyup"]
    assert list(found)[-3:] == ["/data", "/data/logs", "/there"]


@pytest.mark.parametrize("volume", ["/proc", "/sys/fs", "/sys/fs/cgroup", "/dev/x", "/dev/shm", "/x/../proc/1"])
def test_a_volume_where_the_kernel_shows_something_is_left_out(volume: str) -> None:
    """As images have them in which systemd runs."""
    plain = made(Options(read_only=True))
    assert made(Options(read_only=True), Volumes={volume: {}}) == plain


def test_a_volume_that_is_shared_with_the_machine_is_left_out() -> None:
    wanted = Options(isolation=Isolation(namespaces={"network": HOST}), read_only=True)
    found = made(wanted, Volumes={"/etc/hosts": {}})["mounts"]
    assert [each["type"] for each in found if each["destination"] == "/etc/hosts"] == ["bind"]


@pytest.mark.parametrize(
    ("volume", "told"),
    [("/", "where none can be"), ("//", "where none can be"), ("/x/..", "where none can be"), ("data", "an absolute path"),
     ("", "an absolute path"), ("/a\0", "NUL byte")],
)  # fmt: skip
def test_a_volume_that_cannot_be_is_told_where_volumes_are_mounted(volume: str, told: str) -> None:
    made(Volumes={volume: {}})
    with pytest.raises(ConfigInvalid, match=told):
        made(Options(read_only=True), Volumes={volume: {}})


def test_a_mount_that_was_asked_for_comes_last_and_in_place_of_others() -> None:
    wanted = Options(mounts=(Mount("/dev/shm", "tmpfs", "tmpfs", ("size=1g",)),), read_only=True)
    found = made(wanted, Volumes={"/data": {}})["mounts"]
    assert [each["destination"] for each in found].count("/dev/shm") == 1
    assert found[-1]["options"] == ["size=1g"]


def test_a_root_and_a_name() -> None:
    found = made(Options(isolation=Isolation(hostname="box"), read_only=True))
    assert (found["root"], found["hostname"]) == ({"path": "rootfs", "readonly": True}, "box")
    assert "hostname" not in made()
