"""What is installed and started from: requirement files, compose.yaml, the Dockerfile, the scripts."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
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


def test_compose_starts_modules_that_are_there() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"nats", "registry", "coordinator", "fetcher", "unpacker", "ledger", "client"}
    for name in ("coordinator", "fetcher", "unpacker", "ledger"):
        *python, module = services[name]["command"]
        assert python == ["python", "-m"] and module == f"services.{name}"
        assert find_spec(f"{module}.__main__") is not None
    assert services["coordinator"]["deploy"]["replicas"] == services["fetcher"]["deploy"]["replicas"] == 2
    assert services["fetcher"]["volumes"] == services["unpacker"]["volumes"] == services["client"]["volumes"]


def test_images_are_pinned() -> None:
    named = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named += re.findall(r"image: (\S+)", (ROOT / "compose.yaml").read_text())
    assert named and all(re.search(r":\d+\.\d+\.\d+", image) for image in named)


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_scripts_are_plain_shell(script: str) -> None:
    subprocess.run(["/bin/sh", "-n", str(ROOT / script)], check=True)
    assert (ROOT / script).stat().st_mode & 0o111


def test_the_readme_tells_the_exit_codes_and_settings() -> None:
    from pullonce import cli

    readme = (ROOT / "README.md").read_text()
    for code in (cli.DONE, cli.FAILED, cli.USAGE, cli.NO_SERVICE, cli.INTERRUPTED):
        assert f"| {code} |" in readme
    for variable in re.findall(r"PULLONCE_[A-Z_]+", cli.ENVIRONMENT):
        assert f"`{variable}`" in readme
