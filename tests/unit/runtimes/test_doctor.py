"""What is found in configurations: nothing in one that `pullonce gateway config` made, and each thing that keeps from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.doctor import config_of, doctor, examine, present
from pullonce.runtimes.facts import DoorState, Facts, Process
from pullonce.runtimes.files import FilesRefused
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plans import RUNTIMES, plan_for
from pullonce.runtimes.settings import bus_of
from tests.support.runtime_files import OFFER, MemoryFiles

CONTAINERD = "/etc/containerd/config.toml"
HOSTS = "/etc/containerd/certs.d/_default/hosts.toml"

V3 = """\
version = 3
[proxy_plugins.pullonce]
  type = "snapshot"
  address = "/run/pullonce/snapshots.sock"
  capabilities = ["remap-ids"]
  [proxy_plugins.pullonce.exports]
    root = "/var/lib/pullonce"
    enable_remote_snapshot_annotations = "true"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "pullonce"
  # more of images
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "overlayfs"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "pullonce"
"""
ELEMENT = '[[plugins."io.containerd.transfer.v1.local".unpack_config]]\n  platform = "linux/amd64"\n  snapshotter = "'
V2 = """\
version = 2
[proxy_plugins.pullonce]
  type = "snapshot"
  address = "/run/pullonce/snapshots.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "pause:3"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "pullonce"
    disable_snapshot_annotations = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"""
MIRROR = '[host."http://127.0.0.1:577"]\n  capabilities = ["pull", "resolve"]\n'
NO_MIRROR = replace(OFFER, mirror="")


def found(
    runtime: str, texts: dict[str, str], offer: Offer = OFFER, wanted: Wanted | None = None, **facts: object
) -> list[Finding]:
    return examine(runtime, MemoryFiles(texts), offer, wanted or Wanted(), Facts(**facts))  # type: ignore[arg-type]


def said(findings: list[Finding]) -> list[tuple[str, str, int]]:
    return [(each.severity, each.what, each.line) for each in findings]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_was_added_is_enough(runtime: str) -> None:
    files = MemoryFiles({"/etc/containerd/config.toml": "version = 2\n"} if runtime == "containerd" else {})
    for major in (1, 2):
        made = files.with_plan(plan_for(runtime, files, OFFER, Wanted(major=major)))
        findings = examine(runtime, made, OFFER, Wanted(major=major), Facts())
        if runtime == "kubelet":  # whether its runtime uses pullonce is another question
            findings = [each for each in findings if each.runtime == runtime]
        assert [each for each in findings if each.severity != "note"] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_machine_without_any_configuration_does_not_use_pullonce(runtime: str) -> None:
    findings = found(runtime, {})
    assert any(each.severity == "blocks" for each in findings)
    assert all(each.what and each.why and each.mend and each.runtime == runtime for each in findings)


@pytest.mark.parametrize("text", [V2, V3])
def test_a_good_containerd_has_nothing(text: str) -> None:
    assert found("containerd", {CONTAINERD: text, HOSTS: MIRROR}) == []


@pytest.mark.parametrize(
    ("old", "new", "severity", "what", "line"),
    [
        ('snapshotter = "pullonce"\n  #', 'snapshotter = "stargz"\n  #', "blocks", 'snapshotter is "stargz"', 10),
        ('  snapshotter = "pullonce"\n  #', "  #", "blocks", "snapshotter is not set", 0),
        ("proxy_plugins.pullonce", "proxy_plugins.other", "blocks", "no [proxy_plugins.pullonce]", 0),
        ('type = "snapshot"', 'type = "content"', "blocks", 'type of [proxy_plugins.pullonce] is "content"', 3),
        ("/run/pullonce/snap", "/run/p/snap", "blocks", "address of", 4),
        ('["remap-ids"]', '["remap-ids", "rebase"]', "limits", '"rebase"', 5),
        ('["remap-ids"]', "[]", "limits", '"remap-ids" is not', 5),
        ('root = "/var/lib/pullonce"', 'root = "/elsewhere"', "limits", 'exports] is "/elsewhere"', 7),
        ('annotations = "true"', 'annotations = "false"', "blocks", "enable_remote_snapshot", 8),
        (ELEMENT + 'pullonce"', ELEMENT + 'native"', "blocks", "no unpack_config", 14),
        (ELEMENT + 'overlayfs"\n', "", "limits", "names pullonce alone", 14),
        ("# more of", "discard_unpacked_layers = true #", "blocks", "discard_unpacked_layers is true", 11),
        ("# more of", "max_concurrent_downloads = 10 #", "blocks", "max_concurrent_downloads is 10", 11),
        ("# more of", "image_pull_with_sync_fs = true #", "blocks", "image_pull_with_sync_fs is true", 11),
        ("# more of", "use_local_image_pull = true #", "blocks", "use_local_image_pull is true", 11),
        ("# more of", "max_concurrent_downloads = 3 #", "", "", 0),
        ("# more of", "disable_snapshot_annotations = false #", "note", "disable_snapshot_annotations is false", 11),
        ("# more of", "disable_snapshot_annotations = true #", "", "", 0),
        ("    config_path", '    auths = { "r" = { username = "u" } }\n    config_path', "blocks", "registry.auths is set", 13),
        ("    config_path", '    configs = { "r" = { auth = { } } }\n    config_path', "blocks", "registry.configs is set", 13),
        ("version = 3", 'version = 3\ndisabled_plugins = ["io.containerd.cri.v1.images"]', "note", "is disabled", 2),
    ],
)  # fmt: skip
def test_what_keeps_containerd_2_from_it(old: str, new: str, severity: str, what: str, line: int) -> None:
    """Without the mirror, which makes up for missing labels."""
    assert old in V3
    text = V3.replace(old, new, -1 if old.startswith("proxy") else 1)
    findings = found("containerd", {CONTAINERD: text}, NO_MIRROR)
    if severity:
        assert any(each[0] == severity and what in each[1] and each[2] == line for each in said(findings)), said(findings)
    else:
        assert findings == []


@pytest.mark.parametrize(
    ("old", "new", "severity", "what", "line"),
    [
        ("disable_snapshot_annotations = false", "disable_snapshot_annotations = true", "blocks", "is not false", 9),
        ("    disable_snapshot_annotations = false\n", "", "blocks", "is not false", 8),
        ("version = 2\n", "", "blocks", 'does not say "version = 2"', 4),
        ('snapshotter = "pullonce"', 'snapshotter = "overlayfs"', "blocks", 'snapshotter is "overlayfs"', 8),
        ("version = 2", 'version = 2\ndisabled_plugins = ["cri"]', "note", "cri is disabled", 2),
        ("    disable_", '    runtimes.kata.snapshotter = "devmapper"\n    disable_', "note", "runtime kata", 9),
    ],
)  # fmt: skip
def test_what_keeps_containerd_1_from_it(old: str, new: str, severity: str, what: str, line: int) -> None:
    assert old in V2
    findings = found("containerd", {CONTAINERD: V2.replace(old, new, 1)}, NO_MIRROR, Wanted(major=1))
    assert any(each[0] == severity and what in each[1] and each[2] == line for each in said(findings)), said(findings)


@pytest.mark.parametrize("setting", ["discard_unpacked_layers = true", "max_concurrent_downloads = 10"])
def test_the_mirror_in_front_makes_up_for_labels(setting: str) -> None:
    findings = found("containerd", {CONTAINERD: V3.replace("# more of", setting + " #"), HOSTS: MIRROR})
    assert [each.severity for each in findings] == ["note"]


def test_a_file_of_version_2_says_its_snapshotter_to_containerd_2_in_vain() -> None:
    findings = found("containerd", {CONTAINERD: V2, HOSTS: MIRROR}, OFFER, Wanted(major=2))
    assert any("does not count" in each.what and each.line == 8 for each in findings)


def test_containerd_1_takes_one_of_two_sections_on_the_cri() -> None:
    more = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "/b"\n'
    texts = {CONTAINERD: 'imports = ["conf.d/*.toml"]\n' + V2, "/etc/containerd/conf.d/a.toml": more, HOSTS: MIRROR}
    findings = found("containerd", texts, OFFER, Wanted(major=1))
    assert any("does not count" in each.what and each.path == CONTAINERD for each in findings)
    assert any(each.severity == "blocks" or "snapshotter is not set" in each.what for each in findings)


def test_containerd_2_takes_all_files_together() -> None:
    main = 'version = 3\nimports = ["/etc/containerd/conf.d/*.toml"]\n'
    assert found("containerd", {CONTAINERD: main, "/etc/containerd/conf.d/p.toml": V3, HOSTS: MIRROR}) == []
    assert found("containerd", {CONTAINERD: "version = 4\n", "/etc/containerd/conf.d/p.toml": V3, HOSTS: MIRROR}) == []
    assert found(
        "containerd", {CONTAINERD: main.replace("/etc/containerd/conf.d", "/none"), "/etc/containerd/conf.d/p.toml": V3}
    )


@pytest.mark.parametrize(
    ("texts", "severity", "what"),
    [
        ({CONTAINERD: V3.replace("config_path", "other")}, "note", "config_path is not set"),
        ({CONTAINERD: V3.replace("config_path", "other"), HOSTS: MIRROR}, "note", f"{HOSTS} names the mirror, but"),
        ({CONTAINERD: V3}, "note", "no hosts.toml below /etc/containerd/certs.d names the mirror"),
        ({CONTAINERD: V3, HOSTS: MIRROR, HOSTS.replace("_default", "quay.io"): 'server = "https://q"\n'},
         "limits", "is not there for quay.io"),
        ({CONTAINERD: V3, HOSTS: '[host."https://o"]\n' + MIRROR}, "limits", 'comes behind "https://o"'),
        ({CONTAINERD: V3, HOSTS: MIRROR.replace('"resolve"', '"push"')}, "limits", 'lacks the capability "resolve"'),
        ({CONTAINERD: V3.replace("    config_path", '    mirrors.a.endpoint = ["x"]\n    config_path'), HOSTS: MIRROR},
         "blocks", "does not start"),
        ({CONTAINERD: V2.replace("config_path = ", 'mirrors."*".endpoint = ["http://127.0.0.1:577"] #')}, "", ""),
    ],
)  # fmt: skip
def test_what_keeps_containerd_from_the_mirror(texts: dict[str, str], severity: str, what: str) -> None:
    findings = [each for each in found("containerd", texts) if "registry.mirrors is set" not in each.what]
    if severity:
        assert any(each.severity == severity and what in each.what for each in findings), said(findings)
    else:
        assert findings == []


def test_the_mirror_alone_is_a_way() -> None:
    text = 'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "/etc/containerd/certs.d"\n'
    findings = found("containerd", {CONTAINERD: text, HOSTS: MIRROR})
    assert findings and not any(each.severity == "blocks" for each in findings)


KUBELET = "/var/lib/kubelet/config.yaml"
GOOD = {CONTAINERD: V3, HOSTS: MIRROR}


@pytest.mark.parametrize(
    ("texts", "offer", "severity", "what", "line"),
    [
        ({KUBELET: "a: 1\n"}, OFFER, "blocks", "is not set", 0),
        ({KUBELET: "a: 1\n", **GOOD}, OFFER, "limits", "is not set", 0),
        ({KUBELET: "a: 1\nimageServiceEndpoint: unix:///other\n"}, OFFER, "blocks", "imageServiceEndpoint is unix:///other", 2),
        ({KUBELET: "imageServiceEndpoint: unix:///run/pullonce/cri.sock\n"},
         replace(OFFER, behind=""), "blocks", "in front of no runtime", 1),
        ({KUBELET: "imageServiceEndpoint: /run/pullonce/cri.sock\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n"},
         OFFER, "blocks", "containers are run by unix:///run/crio/crio.sock", 2),
        ({KUBELET: "imageServiceEndpoint: unix:///run/pullonce/cri.sock\n",
          "/etc/default/kubelet": "KUBELET_EXTRA_ARGS=--image-service-endpoint=unix:///else\n"},
         OFFER, "blocks", "unix:///else", 1),
        ({KUBELET: "imageServiceEndpoint: unix:///run/pullonce/cri.sock\n"}, OFFER, "note", "one after another", 0),
        ({KUBELET: "imageServiceEndpoint: unix:///run/pullonce/cri.sock\nserializeImagePulls: false\n"}, OFFER, "", "", 0),
    ],
)  # fmt: skip
def test_what_keeps_kubelet_from_it(texts: dict[str, str], offer: Offer, severity: str, what: str, line: int) -> None:
    findings = found("kubelet", texts, offer)
    if severity:
        assert any(each[0] == severity and what in each[1] and each[2] == line for each in said(findings)), said(findings)
    else:
        assert findings == []


def test_the_options_of_the_running_kubelet_count() -> None:
    words = ("/usr/bin/kubelet", "--config", "/k.yaml", "--image-service-endpoint=unix:///else")
    findings = found("kubelet", {}, processes={"kubelet": [Process(words, 1.0)]})
    assert any("unix:///else" in each.what for each in findings)


DAEMON = "/etc/docker/daemon.json"


@pytest.mark.parametrize(
    ("texts", "severity", "what", "line"),
    [
        ({DAEMON: '{\n"a": 1}'}, "blocks", "is not set", 0),
        ({DAEMON: '{\n"registry-mirrors": ["https://other"]}'}, "blocks", "does not name", 2),
        ({DAEMON: '{\n"registry-mirrors": ["https://other", "http://127.0.0.1:577/"]}'},
         "limits", "comes behind https://other", 2),
        ({DAEMON: '{\n"registry-mirrors": "http://127.0.0.1:577"}'}, "blocks", "does not start", 2),
        ({DAEMON: '{\n"registry-mirrors": ["http://127.0.0.1:577"]}',
          "/etc/default/docker": '\nDOCKER_OPTS="--registry-mirror=http://x"'},
         "blocks", "dockerd does not start", 2),
        ({DAEMON: '{"registry-mirrors": ["http://127.0.0.1:577"],\n"features": {"containerd-snapshotter": true}}'},
         "note", "containerd store", 2),
        ({"/etc/systemd/system/docker.service.d/a.conf": "[Service]\nExecStart=/usr/bin/dockerd --registry-mirror http://127.0.0.1:577\n"},
         "note", "docker.io", 0),
    ],
)  # fmt: skip
def test_what_keeps_docker_from_it(texts: dict[str, str], severity: str, what: str, line: int) -> None:
    findings = found("docker", texts)
    assert any(each[0] == severity and what in each[1] and each[2] == line for each in said(findings)), said(findings)
    if severity == "note":
        assert {each.severity for each in findings} == {"note"}


def test_docker_speaks_plain_http_to_loopback_alone() -> None:
    offer = replace(OFFER, mirror="http://10.1.2.3:577")
    text = json.dumps({"registry-mirrors": [offer.mirror]})
    assert any("no TLS" in each.what for each in found("docker", {DAEMON: text}, offer))
    text = json.dumps({"registry-mirrors": [offer.mirror], "insecure-registries": [offer.mirror_host]})
    assert not any("no TLS" in each.what for each in found("docker", {DAEMON: text}, offer))


CONF, DROP_IN, STORAGE = (
    "/etc/containers/registries.conf",
    "/etc/containers/registries.conf.d/9.conf",
    "/etc/containers/storage.conf",
)
ENTRY = """\
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:577/docker.io"
insecure = true
"""
SEEN = (
    '[storage]\ndriver = "overlay"\n[storage.options]\nadditionalimagestores = ["/var/lib/pullonce/stores/default/exposed"]\n'
)
NO_VIEW = replace(OFFER, view="")


@pytest.mark.parametrize(
    ("texts", "severity", "what", "line"),
    [
        ({}, "blocks", "no [[registry]] has the mirror", 0),
        ({CONF: ENTRY.replace("577/docker.io", "577")}, "blocks", "is at 127.0.0.1:577", 1),
        ({CONF: ENTRY.replace("577/docker.io", "577/quay.io")}, "blocks", "is at 127.0.0.1:577/quay.io", 1),
        ({CONF: ENTRY.replace("insecure = true\n", "")}, "blocks", "lacks insecure", 1),
        ({CONF: ENTRY.replace("[[registry.mirror]]", '[[registry.mirror]]\nlocation = "m.lan"\n[[registry.mirror]]')},
         "limits", "behind m.lan", 1),
        ({CONF: ENTRY.replace("insecure", 'pull-from-mirror = "digest-only"\ninsecure')}, "limits", "digests only", 1),
        ({CONF: ENTRY.replace("[[registry.mirror]]", "mirror-by-digest-only = true\n[[registry.mirror]]")},
         "limits", "digests only", 1),
        ({CONF: ENTRY.replace("[[registry.mirror]]", "blocked = true\n[[registry.mirror]]")}, "limits", "is blocked", 1),
        ({CONF: ENTRY, DROP_IN: '[[registry]]\nlocation = "docker.io"\n'}, "limits", "takes the place", 1),
        ({CONF: ENTRY.replace("577", "9") + ENTRY}, "limits", "a second [[registry]] for docker.io stands in this file", 7),
        ({CONF: ENTRY.replace("577", "9") + ENTRY}, "blocks", "no [[registry]] has the mirror", 0),
        ({CONF: ENTRY + ENTRY.replace("577", "9")}, "limits", "a second [[registry]] for docker.io stands in this file", 7),
        ({CONF: '[registries.search]\nregistries = ["docker.io"]\n' + ENTRY}, "blocks", "first version", 1),
        ({CONF: '[registries.insecure]\nregistries = []\n' + ENTRY}, "blocks", "first version", 1),
        ({CONF: '[registries.search]\nregistries = ["docker.io"]\n', DROP_IN: ENTRY}, "note", "first version", 1),
        ({CONF: ENTRY}, "", "", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("runtime", ["podman", "crio"])
def test_what_keeps_podman_from_the_mirror(runtime: str, texts: dict[str, str], severity: str, what: str, line: int) -> None:
    findings = found(runtime, texts, NO_VIEW)
    assert severity != "note" or not any(each.severity == "blocks" for each in findings)
    if severity:
        assert any(each[0] == severity and what in each[1] and each[2] == line for each in said(findings)), said(findings)
    else:
        assert findings == []


@pytest.mark.parametrize(
    ("runtime", "texts", "severity", "what"),
    [
        ("podman", {CONF: ENTRY}, "limits", "is not among the additional image stores"),
        ("podman", {CONF: ENTRY, STORAGE: SEEN}, "", ""),
        ("podman", {CONF: ENTRY, STORAGE: SEEN.replace('"overlay"', '"vfs"')}, "blocks", 'driver is "vfs"'),
        ("podman", {CONF: ENTRY, STORAGE: SEEN.replace('["', '["/old/stores/x/exposed", "')},
         "blocks", "/old/stores/x/exposed is named"),
        ("crio", {CONF: ENTRY, STORAGE: SEEN}, "", ""),
        ("crio", {CONF: ENTRY, STORAGE: SEEN, "/etc/crio/crio.conf": '[crio]\nstorage_option = ["a=b"]\n'},
         "limits", "is not among"),
        ("crio", {CONF: ENTRY, "/etc/crio/crio.conf":
                  '[crio]\nstorage_option = ["overlay.imagestore=/var/lib/pullonce/stores/default/exposed"]\n'}, "", ""),
        ("podman", {STORAGE: SEEN}, "limits", "no [[registry]] has the mirror"),
    ],
)  # fmt: skip
def test_what_keeps_podman_from_what_is_exposed(runtime: str, texts: dict[str, str], severity: str, what: str) -> None:
    findings = found(runtime, texts)
    if severity:
        assert any(each.severity == severity and what in each.what for each in findings), said(findings)
    else:
        assert findings == []


K3S_MADE = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"


def test_k3s_is_judged_by_what_it_runs_with() -> None:
    findings = found("k3s", {K3S_MADE: V3.replace('"pullonce"\n  #', '"overlayfs"\n  #'), HOSTS: MIRROR}, NO_MIRROR)
    assert {each.runtime for each in findings} == {"k3s"} and any("config k3s" in each.mend for each in findings)
    template = K3S_MADE.replace("config.toml", "config-v3.toml.tmpl")
    findings = found("k3s", {K3S_MADE: "version = 3\n", template: "[proxy_plugins.pullonce]\n"})
    assert any("not in what k3s runs with yet" in each.what for each in findings)
    findings = found("k3s", {"/etc/rancher/k3s/registries.yaml": 'mirrors:\n  quay.io: {endpoint: ["https://q"]}\n'})
    assert any("not there for quay.io" in each.what and each.line == 2 for each in findings)


@pytest.mark.parametrize(
    ("runtime", "path", "text", "line"),
    [
        ("containerd", CONTAINERD, "version = 2\n[plugins\n", 2),
        ("docker", DAEMON, "{\n", 2),
        ("podman", CONF, "[[registry]\n", 1),
        ("crio", "/etc/crio/crio.conf.d/1.conf", "x\n", 1),
        ("kubelet", KUBELET, "a: [\n", 2),
        ("k3s", "/etc/rancher/k3s/registries.yaml", "- a\n", 1),
        ("rke2", "/etc/rancher/rke2/config.yaml", "a: [\n", 2),
    ],
)
def test_a_file_that_cannot_be_read_is_found_with_its_line(runtime: str, path: str, text: str, line: int) -> None:
    assert ("blocks", path, line) in [(each.severity, each.path, each.line) for each in found(runtime, {path: text})]


@pytest.mark.parametrize("path", [HOSTS, "/etc/containerd/conf.d/x.toml"])
def test_the_same_beside_containerds_own_file(path: str) -> None:
    texts = {
        CONTAINERD: 'imports = ["/etc/containerd/conf.d/*.toml"]\n' + V3.replace("version = 3\n", "version = 3\n"),
        path: "[x\n",
    }
    assert [each.path for each in found("containerd", texts) if each.severity == "blocks"] == [path]


@pytest.mark.parametrize("state", ["absent", "refused", "forbidden", "silent"])
def test_a_door_that_does_not_answer(state: DoorState) -> None:
    findings = doctor(["containerd"], MemoryFiles(GOOD), OFFER, Wanted(), Facts(live=True, doors={"snapshotter": state}))
    assert [(each.runtime, each.severity) for each in findings] == [("gateway", "note" if state == "forbidden" else "blocks")]


@pytest.mark.parametrize(
    ("offer", "facts", "severity", "what"),
    [
        (OFFER, Facts(live=True, bus="nobody"), "blocks", "the bus does not answer: nobody"),
        (OFFER, Facts(live=True, unknown="no key"), "note", "whether the bus answers is not known: no key"),
        (OFFER, Facts(live=True, missing=("fetcher",)), "blocks", "these parts do not answer: fetcher"),
        (OFFER, Facts(live=True, root=False), "note", "not run by root"),
        (replace(OFFER, home="/a,b"), Facts(), "blocks", "lies below /a,b"),
        (replace(OFFER, home="/a:b"), Facts(), "blocks", "lies below /a:b"),
        (replace(OFFER, hosts_dir="/etc/containerd/certs.d"), Facts(), "note", "PULLONCE_HOSTS_DIR"),
    ],
)
def test_what_concerns_all(offer: Offer, facts: Facts, severity: str, what: str) -> None:
    findings = [each for each in doctor(["containerd"], MemoryFiles(GOOD), offer, Wanted(), facts) if each.runtime == "gateway"]
    assert [(each.severity, what in each.what) for each in findings] == [(severity, True)]


class Refusing(MemoryFiles):
    """Files of which the keys are root's."""

    def read(self, path: str) -> str | None:
        if path.startswith("/etc/pullonce/bus/"):
            raise FilesRefused(f"{path} cannot be read: Permission denied")
        return super().read(path)


KEYS = {
    "/etc/pullonce/pullonce.conf": "PULLONCE_NATS_CA=/ca\nPULLONCE_ACK_WAIT=20\n",
    "/etc/pullonce/bus/client/env": "PULLONCE_NATS_URL=tls://n:4222\nPULLONCE_NATS_CREDS=/k\nPULLONCE_NATS_CA=/other\n",
}


def test_the_bus_is_found_by_the_settings_of_the_units_and_the_key_of_clients() -> None:
    wanted = {"URL": "tls://n:4222", "CREDS": "/k", "CA": "/ca"}
    named = {f"PULLONCE_NATS_{key}": value for key, value in wanted.items()}
    assert bus_of(MemoryFiles(KEYS), {}, served=False) == ({**named, "PULLONCE_ACK_WAIT": "20"}, "")
    told, why = bus_of(Refusing(KEYS), {}, served=False)
    assert "PULLONCE_NATS_CREDS" not in told and "Permission denied" in why
    assert bus_of(MemoryFiles({"/etc/pullonce/bus/gateway/env": ""}), {}, served=False)[1]
    assert bus_of(MemoryFiles(), {}, served=False) == ({}, "")


@pytest.mark.parametrize("said", ["PULLONCE_NATS_URL", "PULLONCE_NATS_CREDS", "PULLONCE_HOME"])
def test_the_key_of_clients_is_shown_to_no_bus_but_its_own(said: str) -> None:
    told, why = bus_of(MemoryFiles(KEYS), {said: "x"}, served=False)
    assert told == {"PULLONCE_NATS_CA": "/ca", "PULLONCE_ACK_WAIT": "20", said: "x"} and not why
    assert "PULLONCE_NATS_CREDS" not in bus_of(MemoryFiles(KEYS), {}, served=True)[0]


def test_a_process_from_before_the_change_is_told_of() -> None:
    facts = {"processes": {"containerd": [Process(("containerd",), 100.0)]}}
    assert found("containerd", GOOD, changed={CONTAINERD: 101.0, HOSTS: 999.0}, **facts) == []
    assert [each.what for each in found("containerd", GOOD, changed={CONTAINERD: 110.0}, **facts)] == [
        f"containerd runs since before {CONTAINERD} was changed"
    ]


def test_file_systems_of_their_own_are_told_of() -> None:
    text = V3.replace('root = "/var/lib/pullonce"', "")
    (one,) = found("containerd", {CONTAINERD: text, HOSTS: MIRROR}, devices={OFFER.home: 1, "/var/lib/containerd": 2})
    assert "another one than containerd's" in one.why


@pytest.mark.parametrize(
    "words", [("containerd", "-c", "/c.toml"), ("containerd", "--config=/c.toml"), ("containerd", "--config", "/c.toml")]
)
def test_the_file_of_the_running_process(words: tuple[str, ...]) -> None:
    assert config_of({"containerd": [Process(words, 1.0)]}, "containerd") == "/c.toml"
    assert config_of({"containerd": [Process(("containerd",), 1.0)]}, "containerd") == config_of({}, "docker") == ""


def test_what_is_there_is_looked_at() -> None:
    files = MemoryFiles({"/usr/bin/dockerd": "", "/usr/local/bin/k3s": "", "/etc/crio/crio.conf": ""})
    assert present(files, Facts()) == ["docker", "crio", "k3s"]
    assert present(MemoryFiles(), Facts(processes={"containerd": [Process((), 0.0)]})) == ["containerd"]
