"""Bundles that real runc starts: what a container sees, who it is, what it may write, and that it is alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.bundle.conftest import APP, BARE, PREFILLED
from tests.support.bundles import Shelf, busybox
from tests.support.layers import entry
from tests.support.programs import find
from tests.support.trees import differences, read_tree

HOST = 200_000


def test_a_container_is_what_the_image_says(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shelf.bundle(APP, place)
    done = shelf.run(place, root=tmp_path / "runc")
    assert (done.returncode, done.stderr) == (1, "cat: can't open '/etc/app': Permission denied\n")
    assert done.stdout == "uid=1000(app) gid=1003(other) groups=1003(other)\n/home/app\n"
    assert shelf.say("unbundle", place)[0] == 0
    assert (shelf.held(), place.exists()) == ([], False)


def test_options_come_before_the_image(shelf: Shelf, tmp_path: Path) -> None:
    place, shared = tmp_path / "bundle", tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("shared")
    script = "id -G; pwd; echo $A-$B-$C; hostname; cat /mnt/file; echo x > /mnt/file; echo $HOME; cat /etc/app; exit 7"
    config = shelf.bundle(
        "--user", "root", APP, "--env", "A=9", "-e", "C=3", place, "--cwd", "/tmp", "--hostname", "box",
        "--mount", f"type=bind,src={shared},dst=/mnt,ro", "--", "sh", "-c", script,
    )  # fmt: skip
    done = shelf.run(place, root=tmp_path / "runc")
    assert done.returncode == 7
    assert done.stdout == "0\n/tmp\n9-2-3\nbox\nshared/root\nfresh"
    assert "Read-only file system" in done.stderr
    assert config["annotations"]["org.opencontainers.image.architecture"] == "amd64"
    shelf.say("unbundle", place)


def test_what_is_written_stays_until_it_is_unbundled(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shelf.bundle(APP, place, "-u", "0", "--", "sh", "-c", "cat /etc/app; echo mine > /etc/app; echo new > /new; rm -r /opaque")
    said = [shelf.run(place, root=tmp_path / "runc") for _ in range(2)]
    assert [each.stdout for each in said] == ["fresh", "mine\n"]
    assert (place / "overlay" / "upper" / "new").read_text() == "new\n"
    shelf.say("unbundle", place)
    shelf.bundle(APP, place)
    assert (place / "rootfs" / "etc" / "app").read_text() == "fresh"
    shelf.say("unbundle", place)


def test_a_read_only_root(shelf: Shelf, tmp_path: Path) -> None:
    place, scratch = tmp_path / "bundle", "type=tmpfs,dst=/scratch/deep"
    script = "touch /x; touch /etc/app; touch /scratch/deep/x && ls /scratch/deep /mnt"
    file = tmp_path / "file"
    file.touch()
    bound = f"src={file},dst=/mnt/file"
    shelf.bundle(APP, place, "--read-only", "-u", "0", "--mount", scratch, "--mount", bound, "--", "sh", "-c", script)
    done = shelf.run(place, root=tmp_path / "runc")
    assert done.stdout == "/mnt:\nfile\n\n/scratch/deep:\nx\n"
    assert done.stderr.count("Read-only file system") == 2
    with pytest.raises(OSError, match="Read-only"):
        (place / "rootfs" / "x").touch()
    shelf.say("unbundle", place)


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_an_image_of_a_single_file(shelf: Shelf, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Without /proc, /dev, /etc or anything else to mount on."""
    shelf.bundle(BARE, tmp_path / "bundle", *options)
    done = shelf.run(tmp_path / "bundle", root=tmp_path / "runc")
    assert (done.stdout, done.stderr) == ("bare\n", "")
    shelf.say("unbundle", tmp_path / "bundle")


@pytest.mark.parametrize("options", [(), ("--read-only",), ("--read-only", "--uidmap", f"0:{HOST}:65536")])
def test_volumes_can_be_written_to_by_whom_they_belong_to(shelf: Shelf, reachable: Path, options: tuple[str, ...]) -> None:
    script = "cat data/seed && echo x > data/new && echo y > empty/new && stat -c %u:%g:%a data empty"
    shelf.bundle(PREFILLED, reachable / "bundle", *options, "--", "sh", "-c", script)
    done = shelf.run(reachable / "bundle", root=reachable / "runc")
    assert (done.stdout, done.stderr) == ("seed1000:1001:2750\n1000:1001:755\n", "")
    shelf.say("unbundle", reachable / "bundle")


@pytest.mark.parametrize("options", [(), ("--read-only",), ("--read-only", "--uidmap", f"0:{HOST}:65536")])
def test_an_image_that_lacks_where_it_begins_and_where_links_lead(
    shelf: Shelf, reachable: Path, options: tuple[str, ...]
) -> None:
    """No directory to begin in, a resolv.conf that leads to what a service makes, and a volume of systemd's."""
    more = [
        entry("etc/resolv.conf", "symlink", linkname="../run/systemd/resolve/stub-resolv.conf"),
        entry("etc/hosts", "symlink", linkname="/deep/down/hosts"),
    ]
    config = {"Cmd": ["pwd"], "WorkingDir": "/srv/app/data", "Volumes": {"/sys/fs/cgroup": {}}}
    shelf.put("registry.example/lacking:1", busybox(*more), config=config)
    network = () if "--uidmap" in options else ("--net", "host")
    shelf.bundle("registry.example/lacking:1", reachable / "bundle", *options, *network)
    done = shelf.run(reachable / "bundle", root=reachable / "runc")
    assert (done.stdout, done.stderr) == ("/srv/app/data\n", "")
    assert shelf.say("unbundle", reachable / "bundle")[0] == 0


def test_two_at_once_of_one_image_are_apart(shelf: Shelf, tmp_path: Path) -> None:
    """Each writes, waits until both have written, and then looks."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    places = [tmp_path / name for name in ("one", "other")]
    script = (
        "echo $ME > /etc/app; echo $ME > /mark; rm /owned; touch /meeting/$ME; "
        "until test -e /meeting/one -a -e /meeting/other; do sleep 0.02; done; cat /etc/app /mark; ls /proc | grep -c '^[0-9]'"
    )
    for place in places:
        bound = f"src={meeting},dst=/meeting"
        shelf.bundle(APP, place, "-u", "0", "-e", f"ME={place.name}", "--mount", bound, "--", "sh", "-c", script)
    begun = [
        subprocess.Popen(
            [shelf.runc, "--root", str(tmp_path / "runc"), "run", "--bundle", str(place), place.name],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )
        for place in places
    ]  # fmt: skip
    said = [each.communicate(timeout=60)[0].splitlines() for each in begun]
    assert [lines[:2] for lines in said] == [["one", "one"], ["other", "other"]]
    assert all(int(lines[2]) <= 4 for lines in said), "each sees its own processes only"
    assert shelf.held() == sorted(map(str, places))
    assert shelf.say("unbundle", *places)[0] == 0


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_files_are_those_that_umoci_unpacks(shelf: Shelf, tmp_path: Path, options: tuple[str, ...]) -> None:
    umoci, theirs = find("umoci", "umoci is not on PATH (Debian: apt install umoci)"), tmp_path / "umoci"
    shelf.bundle(APP, tmp_path / "bundle", *options)
    command = [umoci, "unpack", "--image", f"{shelf.store}:{APP}", str(theirs)]
    subprocess.run(command, check=True, capture_output=True)
    ours = read_tree(tmp_path / "bundle" / "rootfs")
    found = [line for line in differences(ours, read_tree(theirs / "rootfs")) if not line.startswith(MADE)]
    assert found == []
    config, other = (json.loads((path / "config.json").read_bytes()) for path in (tmp_path / "bundle", theirs))
    for field in ("args", "cwd"):
        assert config["process"][field] == other["process"][field]
    assert config["process"]["user"]["uid"] == other["process"]["user"]["uid"] == 1000
    assert set(config["process"]["env"]) >= {each for each in other["process"]["env"] if not each.startswith("TERM=")}
    said = {name: text for name, text in other["annotations"].items() if text and not text.startswith("0001-")}
    assert config["annotations"] == said
    shelf.say("unbundle", tmp_path / "bundle")


MADE = tuple(f"{name!r}: only ours" for name in (b"proc", b"sys", b"dev"))
"""What a read-only root has to be able to be a container's, and this image has not."""


def test_the_config_has_what_runc_itself_writes(shelf: Shelf, tmp_path: Path) -> None:
    config = shelf.bundle(APP, tmp_path / "bundle")
    (tmp_path / "theirs").mkdir()
    subprocess.run([shelf.runc, "spec"], cwd=tmp_path / "theirs", check=True)
    theirs = json.loads((tmp_path / "theirs" / "config.json").read_bytes())
    assert {(each["destination"], each["type"]) for each in config["mounts"]} == {
        (each["destination"], each["type"]) for each in theirs["mounts"]
    }
    assert set(config["linux"]["maskedPaths"]) >= set(theirs["linux"]["maskedPaths"])
    assert config["linux"]["readonlyPaths"] == theirs["linux"]["readonlyPaths"]
    kinds = [{each["type"] for each in found["linux"]["namespaces"]} for found in (config, theirs)]
    assert kinds[0] - {"cgroup"} == kinds[1] - {"cgroup"}
    for name, value in theirs["process"].items():
        assert type(config["process"][name]) is type(value)
    shelf.say("unbundle", tmp_path / "bundle")


def test_a_user_namespace(shelf: Shelf, reachable: Path) -> None:
    """The image's owners inside, other users of this machine outside, and nothing in the layers is touched."""
    place = reachable / "bundle"
    before = read_tree(shelf.store / "l")
    script = "stat -c %u:%g:%a /owned /set /etc/app /home/app /; echo x > /new; echo y >> /etc/app; cat /proc/self/uid_map"
    shelf.bundle(
        APP, place, "--uidmap", f"0:{HOST}:65536", "--gidmap", f"0:{HOST + 1}:65536", "-u", "0", "--", "sh", "-c", script
    )
    done = shelf.run(place, root=reachable / "runc")
    assert done.stdout.splitlines()[:5] == ["1000:1003:640", "1000:0:4755", "0:0:600", "1000:1001:750", "0:0:751"]
    assert done.stdout.splitlines()[5].split() == ["0", str(HOST), "65536"]
    upper = place / "overlay" / "upper"
    for path in (upper, upper / "new", upper / "etc" / "app"):
        assert (path.stat().st_uid, path.stat().st_gid) == (HOST, HOST + 1)
    assert read_tree(shelf.store / "l") == before
    assert shelf.say("unbundle", place)[0] == 0


def test_a_network_and_queues_that_are_the_machines(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    names = ("net", "ipc", "uts", "pid")
    options = [word for name in names for word in (f"--{name}", "host")]
    shelf.bundle(APP, place, *options, "-u", "0", "--", "sh", "-c", "ls -l /proc/self/ns; ls /dev")
    said = shelf.run(place, root=tmp_path / "runc").stdout
    for name in names:
        assert str(Path(f"/proc/self/ns/{name}").readlink()) in said, said
    assert str(Path("/proc/self/ns/mnt").readlink()) not in said
    shelf.say("unbundle", place)


def test_capabilities_and_privileges(shelf: Shelf, tmp_path: Path) -> None:
    def capabilities(*options: str) -> dict[str, str]:
        shelf.bundle(APP, tmp_path / "bundle", *options, "--", "sh", "-c", "grep -E 'Cap|NoNew' /proc/self/status")
        said = shelf.run(tmp_path / "bundle", root=tmp_path / "runc").stdout
        shelf.say("unbundle", tmp_path / "bundle")
        return dict(line.split() for line in said.splitlines())

    root = capabilities("-u", "0")
    assert (root["CapEff:"], root["CapBnd:"], root["NoNewPrivs:"]) == ("00000000a80425fb", "00000000a80425fb", "1")
    assert int(capabilities("-u", "0", "--cap-drop", "all", "--cap-add", "chown")["CapEff:"], 16) == 1
    app = capabilities("--cap-add", "net_bind_service", "--new-privileges")
    assert (int(app["CapEff:"], 16), app["NoNewPrivs:"]) == (1 << 10, "0")
    assert int(capabilities()["CapEff:"], 16) == 0
