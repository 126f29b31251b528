"""deploy/kubernetes: what the API of Kubernetes takes, what fits together, and what the services say of their settings."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pullonce.bus.nats.deployment import Plan, write
from pullonce.bus.nats.permissions import EVERY_STORE
from pullonce.config import BusSettings, StoreSettings, number
from services.gateway.settings import GatewaySettings
from services.ledger.settings import LedgerSettings
from services.ledger.web.access import authorized

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OLDEST = "1.29"
"""Sidecars are on by default from this version on (docs/kubernetes.md)."""
COMPONENTS = ((), ("cluster",), ("k3s",), ("cluster", "k3s"))

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("path", sorted((KUBERNETES / "base").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_document_is_what_kubernetes_takes(path: Path, version: str) -> None:
    if path.stem == "kustomization":
        resources = yaml.safe_load(path.read_text())["resources"]
        assert sorted(resources) == sorted(each.name for each in path.parent.glob("*.yaml") if each != path)
        return
    for document in documents(path.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def kustomize() -> list[str]:
    """The command that renders: kustomize, or a kubectl that has a current one in it."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        told = subprocess.run(
            ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=False
        ).stdout
        if re.match(r"v[5-9]\.", json.loads(told or "{}").get("kustomizeVersion", "")):
            return ["kubectl", "kustomize"]
    pytest.skip("neither kustomize nor a kubectl with kustomize 5 is on PATH; the documents themselves are looked at without")


@pytest.fixture(scope="module", params=COMPONENTS, ids=lambda components: "+".join(components) or "base")
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """All that `kubectl apply -k` would send: of a copy of the example, with keys, as docs/kubernetes.md says."""
    command = kustomize()
    place = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(KUBERNETES, place)
    site = place / "overlays" / "example"
    write(Plan(site / "bus", ("tls://nats.pullonce.svc:4222",), (EVERY_STORE,), at="/bus", data="/data"))
    (site / "ledger-token").write_text("something\n")
    if request.param:
        chosen = yaml.safe_load((site / "kustomization.yaml").read_text())
        chosen["components"] = [f"../../components/{each}" for each in request.param]
        (site / "kustomization.yaml").write_text(yaml.safe_dump(chosen))
    done = subprocess.run([*command, str(site)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def pods(rendered: list[Document]) -> Iterator[tuple[str, Document]]:
    """Name and specification of the pods that are made."""
    for document in rendered:
        if "template" in document.get("spec", {}):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def settings(container: Document, maps: dict[str, dict[str, str]]) -> dict[str, str]:
    """The environment as a container would have it; what the cluster fills in is an example."""
    values = {}
    for source in container.get("envFrom", []):
        values |= maps[source["configMapRef"]["name"]]
    for each in container.get("env", []):
        values[each["name"]] = each.get("value", "worker-1.example")
    return values


def maps_of(rendered: list[Document]) -> dict[str, dict[str, str]]:
    return {each["metadata"]["name"]: each["data"] for each in rendered if each["kind"] == "ConfigMap"}


def test_what_is_applied_is_what_kubernetes_takes(rendered: list[Document]) -> None:
    for document in rendered:
        kubernetes_validate.validate(document, OLDEST, strict=True)
    assert {"Namespace", "StatefulSet", "Deployment", "DaemonSet", "Job", "RuntimeClass"} <= {each["kind"] for each in rendered}
    assert all(
        each["metadata"].get("namespace") == "pullonce"
        for each in rendered
        if each["kind"] not in ("Namespace", "RuntimeClass")
    )


def test_what_is_named_is_there(rendered: list[Document]) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in rendered}
    keys = {each["metadata"]["name"]: set(each["data"]) for each in rendered if each["kind"] == "Secret"}
    for name, pod in pods(rendered):
        owners = [each for each in rendered if each["metadata"]["name"] == name]
        claims = [claim for each in owners for claim in each.get("spec", {}).get("volumeClaimTemplates", [])]
        volumes = {each["name"] for each in [*pod["volumes"], *(claim["metadata"] for claim in claims)]}
        for volume in pod["volumes"]:
            secret = volume.get("secret")
            if secret and not secret.get("optional"):
                assert ("Secret", secret["secretName"]) in there, volume
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
        for container in containers(pod):
            assert {each["name"] for each in container["volumeMounts"]} <= volumes
            for each in container.get("env", []):
                if secret := each.get("valueFrom", {}).get("secretKeyRef"):
                    assert secret["key"] in keys[secret["name"]]
        if "runtimeClassName" in pod:
            assert ("RuntimeClass", pod["runtimeClassName"]) in there


def test_services_lead_to_pods_and_pods_are_selected(rendered: list[Document]) -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in rendered if "template" in each.get("spec", {})]
    for document in rendered:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert any(spec["selector"].items() <= each.items() for each in labels), document["metadata"]["name"]
        if document["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_every_part_has_its_own_key_and_settings_that_it_takes(rendered: list[Document], tmp_path: Path) -> None:
    plan = Plan(tmp_path / "bus", ("tls://nats.pullonce.svc:4222",), (EVERY_STORE,), at="/bus")
    write(plan)
    maps, served = maps_of(rendered), set()
    for _, pod in pods(rendered):
        for container in containers(pod):
            values = settings(container, maps)
            if "PULLONCE_NATS_CREDS" not in values:
                continue
            role = values["PULLONCE_NATS_CREDS"].split("/")[2]
            served.add(role)
            said = dict(line.split("=", 1) for line in (tmp_path / "bus" / role / "env").read_text().splitlines())
            for key in ("PULLONCE_NATS_CREDS", "PULLONCE_NATS_CA", "PULLONCE_NATS_INBOX", "PULLONCE_NATS_SETUP"):
                assert values[key] == said[key], (role, key)
            mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            volume = next(each for each in pod["volumes"] if each["name"] == mounts[f"/bus/{role}"])
            assert volume["secret"]["secretName"].startswith(f"pullonce-bus-{role}")
            bus = BusSettings.from_env(role, values)
            assert bus.replicas == len(bus.url.split(",")) in (1, 3)
            if role in ("fetcher", "unpacker", "gateway", "caretaker"):
                assert StoreSettings.from_env(values).name == "worker-1_example"
                assert "/var/lib/pullonce" in mounts
            if role == "gateway":
                gateway = GatewaySettings.from_env(values)
                assert gateway.snapshotter is not None and str(gateway.snapshotter.parent) in mounts
            documented = (ROOT / "docs" / "settings.md").read_text()
            assert all(f"`{key}`" in documented for key in values if key.startswith("PULLONCE_")), role
    assert served == set(plan.users) - {"client"}


def test_the_ledger_opens_to_whoever_has_the_token_in_its_file(rendered: list[Document]) -> None:
    [secret] = [each for each in rendered if each["metadata"]["name"].startswith("pullonce-ledger")]
    told = {"PULLONCE_LEDGER_TOKEN": base64.b64decode(secret["data"]["token"]).decode(), "PULLONCE_LEDGER_HTTP": "0.0.0.0:4280"}
    assert authorized("Bearer something", LedgerSettings.from_env(told).token)


def test_a_pod_keeps_no_mount_of_the_host(rendered: list[Document]) -> None:
    for _, pod in pods(rendered):
        for container in containers(pod):
            for mount in container["volumeMounts"]:
                if mount["name"] == "containerd":
                    assert mount["mountPropagation"] == "HostToContainer"


def test_the_gateway_waits_for_the_store_and_not_for_the_bus(rendered: list[Document]) -> None:
    pod = next(spec for name, spec in pods(rendered) if name == "node")
    [fetcher] = [each for each in pod["initContainers"] if each.get("restartPolicy") == "Always"]
    assert "/tmp/ready" not in str(fetcher["startupProbe"]) and not any("startupProbe" in each for each in pod["containers"])


def test_a_bus_of_three_is_told_of_three(rendered: list[Document]) -> None:
    replicas = next(each["spec"]["replicas"] for each in rendered if each["kind"] == "StatefulSet")
    maps = maps_of(rendered)
    told = next(values for name, values in maps.items() if "PULLONCE_NATS_URL" in values)
    assert number(told, "PULLONCE_REPLICAS", 0, low=1, high=5) == replicas == len(told["PULLONCE_NATS_URL"].split(","))


def test_parts_have_the_rights_that_they_have_in_compose() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    pod = next(spec for name, spec in pods(documents((KUBERNETES / "base" / "node.yaml").read_text())) if name == "node")
    given = {each["name"]: each["securityContext"] for each in containers(pod)}
    for part in ("fetcher", "unpacker", "gateway"):
        asked = set(composed[part].get("cap_add", []))
        allowed = set(given[part]["capabilities"].get("add", []))
        assert given[part]["capabilities"]["drop"] == ["ALL"] and given[part]["readOnlyRootFilesystem"]
        assert allowed - asked <= {"NET_BIND_SERVICE"} and asked <= allowed, part


def test_nothing_that_a_gateway_waits_for_is_unpacked_by_a_gateway() -> None:
    handler = documents((KUBERNETES / "base" / "runtime-class.yaml").read_text())[0]["handler"]
    for path in sorted((KUBERNETES / "base").glob("*.yaml")):
        for document in documents(path.read_text()):
            template = document.get("spec", {}).get("template")
            if template:
                assert template["spec"]["runtimeClassName"] == "pullonce-outside", path
                assert template["metadata"]["annotations"]["io.containerd.cri.runtime-handler"] == handler, path
    assert f"runtimes.{handler}]" in (ROOT / "docs" / "kubernetes.md").read_text()
