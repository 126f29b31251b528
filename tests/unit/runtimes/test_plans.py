"""What each runtime lacks: added once, nothing of what stands is changed, and what stands otherwise is told of."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pullonce.config import SettingInvalid
from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.plan import Plan
from pullonce.runtimes.plans import DOORS, RUNTIMES, DoorOff, plan_for
from pullonce.runtimes.settings import offer_of, settings_of
from pullonce.runtimes.trouble import ConfigInvalid
from tests.support.runtime_files import OFFER, MemoryFiles

CONTAINERD = "/etc/containerd/config.toml"
BESIDE = "/etc/containerd/conf.d/pullonce.toml"
HOSTS = "/etc/containerd/certs.d/_default/hosts.toml"
DEBIAN = 'version = 2\n\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "pause:3"\n'
NEW = "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  max_concurrent_downloads = 3\n"

MIRROR = {"capabilities": ["pull", "resolve"]}


def plan(runtime: str, texts: dict[str, str], wanted: Wanted | None = None) -> tuple[Plan, MemoryFiles]:
    files = MemoryFiles(texts)
    made = plan_for(runtime, files, OFFER, wanted or Wanted())
    after = files.with_plan(made) if not made.conflicts else files
    if not made.conflicts:
        again = plan_for(runtime, after, OFFER, wanted or Wanted())
        assert not again.changes and not again.conflicts, "a second time there is nothing to do"
    return made, after


def toml(files: MemoryFiles, path: str) -> dict[str, object]:
    return tomllib.loads(files.texts[path])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_machine_without_any_configuration_gets_files(runtime: str) -> None:
    made, after = plan(runtime, {})
    assert made.changes and all(change.before is None for change in made.changes)
    for path, text in after.texts.items():
        if path.endswith((".toml", ".conf")) and not path.endswith(".conf.d/50-pullonce.conf"):
            tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "major", "cri"),
    [
        (DEBIAN, 0, 'plugins."io.containerd.grpc.v1.cri".containerd'),
        (DEBIAN, 1, 'plugins."io.containerd.grpc.v1.cri".containerd'),
        ('disabled_plugins = ["cri"]\n', 1, "plugins.cri.containerd"),
    ],
)
def test_containerd_1_gets_lines_in_its_file(text: str, major: int, cri: str) -> None:
    made, after = plan("containerd", {CONTAINERD: text}, Wanted(major=major))
    said = after.texts[CONTAINERD]
    assert said.startswith(text) and f"[{cri}]\n  snapshotter" in said
    assert "disable_snapshot_annotations = false" in said and "unpack_config" not in said
    assert [change.path for change in made.changes] == [CONTAINERD, HOSTS]
    assert toml(after, HOSTS)["host"] == {"http://127.0.0.1:577": MIRROR}


def test_containerd_2_gets_the_names_of_version_3_and_keeps_what_ctr_does_by_default() -> None:
    _, after = plan("containerd", {CONTAINERD: NEW})
    said = toml(after, CONTAINERD)
    assert said["proxy_plugins"] == {
        "pullonce": {
            "type": "snapshot", "address": OFFER.snapshotter, "capabilities": ["remap-ids"],
            "exports": {"root": OFFER.home, "enable_remote_snapshot_annotations": "true"},
        }
    }  # fmt: skip
    plugins = said["plugins"]
    assert isinstance(plugins, dict)
    assert plugins["io.containerd.cri.v1.images"]["snapshotter"] == "pullonce"
    assert [each["snapshotter"] for each in plugins["io.containerd.transfer.v1.local"]["unpack_config"]] == [
        "overlayfs", "pullonce"
    ]  # fmt: skip
    assert "disable_snapshot_annotations" not in after.texts[CONTAINERD]


def test_containerd_2_with_a_file_of_version_2_gets_one_of_version_3_beside_it() -> None:
    _, after = plan("containerd", {CONTAINERD: DEBIAN}, Wanted(major=2))
    assert toml(after, CONTAINERD)["imports"] == [BESIDE]
    beside = toml(after, "/etc/containerd/conf.d/pullonce.toml")
    assert beside["version"] == 3 and "io.containerd.cri.v1.images" in beside["plugins"]  # type: ignore[operator]


STRAY = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n  endpoint = ["https://m"]\n'
IMPORTS = 'imports = ["/etc/containerd/conf.d/*.toml"]\n'


def test_a_file_beside_it_that_nobody_has_switched_on_stays_so() -> None:
    _, after = plan("containerd", {CONTAINERD: DEBIAN, "/etc/containerd/conf.d/10.toml": STRAY}, Wanted(major=2))
    assert toml(after, CONTAINERD)["imports"] == [BESIDE]
    _, after = plan("containerd", {CONTAINERD: IMPORTS + DEBIAN}, Wanted(major=2))
    assert after.texts[CONTAINERD] == IMPORTS + DEBIAN and BESIDE in after.texts, "a pattern is there that covers it"


@pytest.mark.parametrize(
    ("main", "major", "text", "line"),
    [
        (NEW, 2, STRAY, 2),
        (NEW, 2, 'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n  mirrors.q.endpoint = ["x"]\n', 3),
        (NEW, 2, 'version = 3\n[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "nydus"\n', 3),
        (NEW, 2, '[proxy_plugins.pullonce]\n  address = "/elsewhere"\n', 2),
        (NEW, 2, '[proxy_plugins.pullonce.exports]\n  root = "/elsewhere"\n', 2),
        (NEW, 2, '[[plugins."io.containerd.transfer.v1.local".unpack_config]]\n  snapshotter = "nydus"\n', 1),
        (DEBIAN, 2, 'version = 3\n[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "nydus"\n', 3),
        (DEBIAN, 2, STRAY, 2),
        (DEBIAN, 1, STRAY, 2),
        (DEBIAN, 1, 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "p"\n', 2),
        (DEBIAN, 1, 'version = 2\n[proxy_plugins.pullonce]\n  address = "/elsewhere"\n', 3),
    ],
)  # fmt: skip
def test_what_an_imported_file_says_otherwise_is_told_of(main: str, major: int, text: str, line: int) -> None:
    path = "/etc/containerd/conf.d/10.toml"
    made, _ = plan("containerd", {CONTAINERD: IMPORTS + main, path: text}, Wanted(major=major))
    assert path in [each.path for each in made.conflicts]
    assert line in [each.line for each in made.conflicts if each.path == path], [str(each) for each in made.conflicts]


@pytest.mark.parametrize("major", [1, 2])
def test_what_an_imported_file_says_already_is_not_said_again(major: int) -> None:
    path = "/etc/containerd/conf.d/10.toml"
    _, done = plan("containerd", {CONTAINERD: DEBIAN if major == 1 else NEW}, Wanted(major=major))
    main = f"version = {major + 1}\nimports = ['{path}']\n"
    made, _ = plan("containerd", {**done.texts, CONTAINERD: main, path: done.texts[CONTAINERD]}, Wanted(major=major))
    assert not made.conflicts and not made.changes


def test_the_directory_of_hosts_of_an_imported_file_is_used() -> None:
    more = 'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "/srv/certs"\n'
    _, after = plan("containerd", {CONTAINERD: IMPORTS + NEW, "/etc/containerd/conf.d/10.toml": more}, Wanted(major=2))
    assert "/srv/certs/_default/hosts.toml" in after.texts and "config_path" not in after.texts[CONTAINERD]


def test_what_would_not_help_is_not_written() -> None:
    text = NEW.replace("downloads = 3", "downloads = 10")
    made, _ = plan("containerd", {CONTAINERD: text}, Wanted(doors=("snapshotter",)))
    assert [(each.path, each.line) for each in made.conflicts] == [(CONTAINERD, 3)]


def test_the_directory_of_hosts_that_is_there_is_used() -> None:
    text = DEBIAN + '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/srv/certs:/etc/other"\n'
    _, after = plan("containerd", {CONTAINERD: text})
    assert "/srv/certs/_default/hosts.toml" in after.texts


def test_the_mirror_comes_before_other_hosts_of_a_registry() -> None:
    theirs = 'server = "https://reg.example"\n\n[host."https://other"]\n  capabilities = ["pull"]\n'
    path = "/etc/containerd/certs.d/reg.example/hosts.toml"
    made, _ = plan("containerd", {CONTAINERD: NEW, path: theirs})
    assert any("--registry reg.example" in note for note in made.notes), "_default does not count for that registry"
    _, after = plan("containerd", {CONTAINERD: NEW, path: theirs}, Wanted(registries=("reg.example",)))
    assert list(toml(after, path)["host"]) == ["http://127.0.0.1:577", "https://other"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ('[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "stargz"\n', 7),
        ('[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n  endpoint = ["https://m"]\n', 6),
        ('[plugins."io.containerd.grpc.v1.cri".registry.configs."r".tls]\n  insecure_skip_verify = true\n', 6),
        ('[proxy_plugins.pullonce]\n  address = "/elsewhere"\n', 7),
    ],
)
def test_what_containerd_has_otherwise_is_told_of_with_its_line(more: str, line: int) -> None:
    made, _ = plan("containerd", {CONTAINERD: DEBIAN + more})
    assert [(each.path, each.line) for each in made.conflicts] == [(CONTAINERD, line)]


def test_docker_gets_a_mirror_among_its_settings() -> None:
    path, theirs = "/etc/docker/daemon.json", '{\n    "log-driver": "journald"\n}\n'
    _, after = plan("docker", {path: theirs})
    assert json.loads(after.texts[path]) == {"log-driver": "journald", "registry-mirrors": ["http://127.0.0.1:577"]}
    made, _ = plan("docker", {path: '{"registry-mirrors": "http://one"}'})
    assert [each.line for each in made.conflicts] == [1]


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("/etc/systemd/system/docker.service.d/m.conf", "[Service]\nExecStart=/usr/bin/dockerd --registry-mirror={}\n", 2),
        ("/lib/systemd/system/docker.service", "[Service]\n# mirrors\nExecStart=dockerd --registry-mirror {}\n", 3),
        ("/etc/default/docker", 'DOCKER_OPTS="--registry-mirror={}"\n', 1),
    ],
)  # fmt: skip
def test_a_mirror_on_dockers_command_line_is_not_said_a_second_time(path: str, text: str, line: int) -> None:
    made, _ = plan("docker", {path: text.format("https://m")})
    assert [(each.path, each.line) for each in made.conflicts] == [(path, line)]
    made, _ = plan("docker", {path: text.format("http://127.0.0.1:577/")})
    assert not made.conflicts and not made.changes
    both = {
        path: text.format("http://127.0.0.1:577"),
        "/etc/docker/daemon.json": '{"registry-mirrors": ["http://127.0.0.1:577"]}',
    }
    assert [(each.path, each.line) for each in plan("docker", both)[0].conflicts] == [(path, line)]
    made, _ = plan("docker", {path: "# --registry-mirror=https://m\n"})
    assert made.changes and not made.conflicts


def test_podman_gets_a_mirror_for_each_registry_that_has_none_yet() -> None:
    theirs = {"/etc/containers/registries.conf": '[[registry]]\nlocation = "quay.io"\n'}
    made, after = plan("podman", theirs)
    found = toml(after, "/etc/containers/registries.conf.d/50-pullonce.conf")["registry"]
    assert isinstance(found, list)
    assert {"prefix": "docker.io", "location": "docker.io",
            "mirror": [{"location": "127.0.0.1:577/docker.io", "insecure": True}]} in found  # fmt: skip
    assert "quay.io" not in [each["prefix"] for each in found] and any("quay.io" in note for note in made.notes)
    made, _ = plan("podman", theirs, Wanted(registries=("quay.io",)))
    assert [(each.path, each.line) for each in made.conflicts] == [("/etc/containers/registries.conf", 1)]
    _, after = plan("podman", {}, Wanted(registries=("reg.lan:5000",)))
    assert 'location = "127.0.0.1:577/reg.lan_5000"' in after.texts["/etc/containers/registries.conf.d/50-pullonce.conf"]


@pytest.mark.parametrize("runtime", ["podman", "crio"])
def test_a_mirror_of_before_is_not_followed_by_a_second_one(runtime: str) -> None:
    path = "/etc/containers/registries.conf.d/50-pullonce.conf"
    _, after = plan(runtime, {}, Wanted(registries=("quay.io", "docker.io")))
    old = after.texts[path].replace("127.0.0.1:577", "127.0.0.1:9")
    made, _ = plan(runtime, {path: old})
    assert [each.path for each in made.conflicts] == [path, path]
    assert all(old.splitlines()[each.line - 1] == "[[registry]]" for each in made.conflicts)
    made, _ = plan(runtime, {path: old + after.texts[path]}, Wanted(registries=("quay.io",)))
    assert len(made.conflicts) == 1, "the first of two counts"


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        ({}, {"driver": "overlay", "graphroot": "/var/lib/containers/storage"}),
        ({"/usr/share/containers/storage.conf": '[storage]\ndriver = "overlay"\ngraphroot = "/g"\n'}, {"graphroot": "/g"}),
        ({"/etc/containers/storage.conf": '[storage]\ngraphroot = "/h"\n[storage.options]\nadditionalimagestores = [\n]\n'},
         {"graphroot": "/h"}),
    ],
)  # fmt: skip
def test_podman_sees_what_is_exposed_and_keeps_its_storage(texts: dict[str, str], kept: dict[str, str]) -> None:
    _, after = plan("podman", texts)
    storage = toml(after, "/etc/containers/storage.conf")["storage"]
    assert isinstance(storage, dict)
    assert storage["options"]["additionalimagestores"] == [OFFER.view] and kept.items() <= storage.items()


def test_crio_whose_own_option_counts_is_told_of() -> None:
    made, _ = plan("crio", {"/etc/crio/crio.conf.d/9.conf": '[crio]\nstorage_option = ["overlay.mountopt=nodev"]\n'})
    assert [(each.path, each.line) for each in made.conflicts] == [("/etc/crio/crio.conf.d/9.conf", 2)]


KUBELET = "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n"


@pytest.mark.parametrize(
    ("texts", "path"),
    [
        ({"/var/lib/kubelet/config.yaml": KUBELET}, "/var/lib/kubelet/config.yaml"),
        ({"/etc/default/kubelet": 'KUBELET_EXTRA_ARGS="--config=/srv/k.yaml -v 2"\n', "/srv/k.yaml": KUBELET}, "/srv/k.yaml"),
        ({"/etc/systemd/system/kubelet.service.d/10.conf": "[Service]\nExecStart=/usr/bin/kubelet --config-dir /etc/k.d\n"},
         "/etc/k.d/50-pullonce.conf"),
    ],
)  # fmt: skip
def test_kubelet_asks_us_for_images(texts: dict[str, str], path: str) -> None:
    _, after = plan("kubelet", texts)
    assert yaml.safe_load(after.texts[path])["imageServiceEndpoint"] == "unix:///run/pullonce/cri.sock"
    assert after.texts[path].startswith(texts.get(path, ""))


@pytest.mark.parametrize("name", ["config.yaml", "config.yaml.d/10-x.yaml", "config.yaml.d/90-x.yaml"])
@pytest.mark.parametrize("runtime", ["k3s", "rke2"])
def test_all_settings_of_k3s_count(runtime: str, name: str) -> None:
    path = f"/etc/rancher/{runtime}/{name}"
    made, _ = plan(runtime, {path: "a: 1\nsnapshotter: native\n"})
    assert [(each.path, each.line) for each in made.conflicts] == [(path, 2)]
    made, _ = plan(runtime, {path: "snapshotter: pullonce\n"})
    assert not made.conflicts and not any("50-pullonce" in each.path for each in made.changes)


UNIT = {"/etc/systemd/system/kubelet.service.d/10.conf": "[Service]\nExecStart=/usr/bin/kubelet --config-dir /etc/k.d\n"}


@pytest.mark.parametrize(
    "path", ["/var/lib/kubelet/config.yaml", "/etc/k.d/10-x.conf", "/etc/k.d/50-pullonce.conf", "/etc/k.d/90-x.conf"]
)
def test_all_files_of_kubelet_count(path: str) -> None:
    other = {**UNIT, path: "kind: KubeletConfiguration\nimageServiceEndpoint: unix:///run/other.sock\n"}
    for wanted in (Wanted(), Wanted(config="/var/lib/kubelet/config.yaml")):
        made, _ = plan("kubelet", other, wanted)
        assert [(each.path, each.line) for each in made.conflicts] == [(path, 2)] and not made.changes
    made, _ = plan("kubelet", {**UNIT, path: "imageServiceEndpoint: /run/pullonce/cri.sock\n"})
    assert not made.conflicts and not made.changes, "it is said already"
    made, _ = plan("kubelet", {**UNIT, "/etc/k.d/README": "imageServiceEndpoint: unix:///run/other.sock\n"})
    assert [each.path for each in made.changes] == ["/etc/k.d/50-pullonce.conf"], "kubelet reads *.conf there"
    with pytest.raises(ConfigInvalid, match=r"90-y\.conf, line 1"):
        plan("kubelet", {**UNIT, "/etc/k.d/90-y.conf": "- a\n"})


@pytest.mark.parametrize("value", ["unix:///run/other.sock", "unix:///run/pullonce/cri.sock"])
def test_an_option_of_kubelet_goes_before_its_configuration(value: str) -> None:
    texts = {"/var/lib/kubelet/kubeadm-flags.env": f'# one\nKUBELET_KUBEADM_ARGS="--x=1 --image-service-endpoint={value}"\n'}
    made, _ = plan("kubelet", texts)
    assert not made.changes and [each.line for each in made.conflicts] == ([2] if "other" in value else [])


def test_kubelet_is_told_of_an_image_service_that_stands_in_front_of_nothing() -> None:
    notes = plan_for("kubelet", MemoryFiles(), replace(OFFER, behind=""), Wanted()).notes
    assert any("PULLONCE_GATEWAY_CRI_BEHIND" in note for note in notes)
    assert not any("PULLONCE_GATEWAY_CRI_BEHIND" in note for note in plan_for("kubelet", MemoryFiles(), OFFER, Wanted()).notes)


def test_k3s_gets_a_template_a_setting_and_a_mirror() -> None:
    theirs = {"/etc/rancher/k3s/registries.yaml": 'mirrors:\n  docker.io:\n    endpoint: ["https://m"]\n'}
    _, after = plan("k3s", theirs)
    template = after.texts["/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl"]
    assert '{{ template "base" . }}' in template and "remap-ids" in template
    assert yaml.safe_load(after.texts["/etc/rancher/k3s/config.yaml.d/50-pullonce.yaml"]) == {"snapshotter": "pullonce"}
    assert set(yaml.safe_load(after.texts["/etc/rancher/k3s/registries.yaml"])["mirrors"]) == {"*", "docker.io"}
    made, _ = plan("rke2", {"/etc/rancher/rke2/config.yaml": "a: 1\nsnapshotter: native\n"})
    assert [(each.path, each.line) for each in made.conflicts] == [("/etc/rancher/rke2/config.yaml", 2)]
    _, after = plan("k3s", {"/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl": "# mine\n"})
    template = after.texts["/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl"]
    assert template.startswith("# mine\n\n[proxy_plugins.pullonce]") and "remap-ids" not in template


@pytest.mark.parametrize(
    ("runtime", "path", "text", "line"),
    [
        ("containerd", CONTAINERD, "version = 2\n[plugins\n", 2),
        ("containerd", HOSTS, "server = \n", 1),
        ("docker", "/etc/docker/daemon.json", '{\n  "a": 1,\n}\n', 3),
        ("podman", "/etc/containers/registries.conf", "[[registry]]\nlocation = quay.io\n", 2),
        ("podman", "/usr/share/containers/storage.conf", "x\n", 1),
        ("crio", "/etc/crio/crio.conf", "[crio\n", 1),
        ("kubelet", "/var/lib/kubelet/config.yaml", "kind: a\n  b: c\n", 2),
        ("k3s", "/etc/rancher/k3s/registries.yaml", "- a\n", 1),
        ("rke2", "/etc/rancher/rke2/config.yaml", "a: [\n", 2),
    ],
)
def test_a_file_that_cannot_be_read_is_said_with_its_line(runtime: str, path: str, text: str, line: int) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        plan_for(runtime, MemoryFiles({path: text}), OFFER, Wanted())
    assert (caught.value.path, caught.value.line) == (path, line)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_door_that_is_off_is_not_written_down(runtime: str) -> None:
    off = replace(OFFER, snapshotter="", mirror="", cri="", view="")
    with pytest.raises(DoorOff, match="is off"):
        plan_for(runtime, MemoryFiles(), off, Wanted())
    with pytest.raises(DoorOff, match="does not use"):
        plan_for(runtime, MemoryFiles(), OFFER, Wanted(doors=("cri" if "cri" not in DOORS[runtime] else "view",)))


@pytest.mark.parametrize("runtime", ["containerd", "podman"])
def test_one_door_alone(runtime: str) -> None:
    made, after = plan(runtime, {}, Wanted(doors=("mirror",)))
    assert made.changes and "snapshotter" not in "".join(after.texts.values())


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"PULLONCE_HOME": "/srv/p"}, ("http://127.0.0.1:577", "/srv/p/run/cri.sock", "/srv/p/run/snapshots.sock")),
        ({"PULLONCE_GATEWAY_MIRROR": "127.0.0.1:99", "PULLONCE_GATEWAY_CRI": "off", "PULLONCE_STORE": "s"},
         ("http://127.0.0.1:99", "", "/run/pullonce/s-snapshots.sock")),
        ({"PULLONCE_GATEWAY_MIRROR": "unix:///run/m", "PULLONCE_GATEWAY_CRI": "unix:///run/c"},
         ("", "/run/c", "/run/pullonce/snapshots.sock")),
        ({"PULLONCE_GATEWAY_MIRROR": "off"}, ("", "/run/pullonce/cri.sock", "/run/pullonce/snapshots.sock")),
        ({"PULLONCE_GATEWAY_MIRROR": "10.0.0.1:577", "PULLONCE_GATEWAY_MIRROR_CERT": "/c"},
         ("https://10.0.0.1:577", "/run/pullonce/cri.sock", "/run/pullonce/snapshots.sock")),
    ],
)  # fmt: skip
def test_the_settings_say_what_is_offered(environ: dict[str, str], wanted: tuple[str, str, str]) -> None:
    offer = offer_of({"PULLONCE_HOME": "/var/lib/pullonce", "PULLONCE_GATEWAY_MIRROR": "127.0.0.1:577", **environ})
    assert (offer.mirror, offer.cri, offer.snapshotter) == wanted


@pytest.mark.parametrize(
    ("environ", "store"),
    [({}, "default"), ({"PULLONCE_STORE": "s"}, "s"), ({"PULLONCE_NODE": "n1.lan"}, "n1_lan"),
     ({"PULLONCE_NODE": "n1.lan", "PULLONCE_STORE": "s"}, "s")],
)  # fmt: skip
def test_the_store_is_the_one_that_the_gateway_serves(environ: dict[str, str], store: str) -> None:
    offer = offer_of({"PULLONCE_HOME": "/var/lib/pullonce", **environ})
    assert offer.store == store and (store == "default") == (offer.snapshotter == "/run/pullonce/snapshots.sock")
    with pytest.raises(SettingInvalid, match="PULLONCE_STORE"):
        offer_of({"PULLONCE_STORE": "../x"})


@pytest.mark.parametrize("name", ["SNAPSHOTTER", "CRI", "MIRROR"])
def test_a_setting_that_cannot_be_used_is_said(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"PULLONCE_GATEWAY_{name}"):
        offer_of({f"PULLONCE_GATEWAY_{name}": "nowhere"})


def test_settings_of_a_unit_are_read() -> None:
    assert settings_of('# a\nA=1\nB="two three"\nC=\n bad line\n') == {"A": "1", "B": "two three", "C": ""}


def test_the_runtimes_of_the_command_are_those_that_there_are() -> None:
    from pullonce.cli.commands import gateway

    assert gateway.RUNTIMES == RUNTIMES and set(DOORS) == set(RUNTIMES) and Path(CONTAINERD).is_absolute()
