"""docker's and podman's own files and helpers: what is wrong in them costs nobody a public image."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from pullonce.errors import Permanent, Retryable
from tests.integration.fetcher.conftest import Opened
from tests.integration.fetcher.test_auth import IMAGE, PASSWORD, TokenDesk, login
from tests.support.faulty import FaultyRegistry

SAID = json.dumps({"ServerURL": "x", "Username": "ali", "Secret": PASSWORD})
AUTH = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()


class Helper:
    """A credential helper on PATH that notes what it is asked."""

    def __init__(self, directory: Path) -> None:
        self._noted = directory / "asked"
        self.program = directory / "bin" / "docker-credential-test"
        self.program.parent.mkdir()
        self.says(f"printf '%s' '{SAID}'")

    def says(self, script: str) -> None:
        self.program.write_text(f'#!/bin/sh\nread -r server\necho "$1 $server" >> {self._noted}\n{script}\n')
        self.program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._noted.read_text().splitlines() if self._noted.exists() else []


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    """One that knows the password of everything."""
    made = Helper(tmp_path)
    monkeypatch.setenv("PATH", str(made.program.parent), prepend=os.pathsep)
    return made


def config(path: Path, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("how", ["credsStore", "credHelpers"])
async def test_a_credential_helper_is_asked(fetcher: Opened, tmp_path: Path, helper: Helper, how: str) -> None:
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password=PASSWORD)) as registry:
        value = "test" if how == "credsStore" else {f"https://{registry.host}/v2/": "test"}
        async with fetcher(configs=(config(tmp_path / "config.json", **{how: value}),)) as f:
            await f.resolve(registry.reference)
        assert helper.asked[0] == f"get {registry.host}"


BROKEN = {
    "it fails": "exit 3",
    "it says nonsense": "echo nonsense",
    "it says nothing": "true",
    "it says not found, and where errors go": "echo 'credentials not found in native keychain' >&2; exit 1",
    "it says not found": "echo 'credentials not found in native keychain'; exit 1",
    "it says null": "echo null",
    "it knows nobody": """echo '{"Username":"","Secret":""}'""",
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_a_helper_that_is_no_help_costs_no_public_image(
    fetcher: Opened, tmp_path: Path, helper: Helper, script: str
) -> None:
    helper.says(script)
    async with (
        FaultyRegistry(IMAGE, guard=TokenDesk()) as registry,
        fetcher(configs=(config(tmp_path / "config.json", credsStore="test"),)) as f,
    ):
        await f.pull(registry.reference)
    assert len(helper.asked) == 1, "for a while it is not asked again"


async def test_a_helper_that_is_missing_is_named_once(
    fetcher: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with FaultyRegistry(IMAGE, guard=TokenDesk()) as registry:
        path = config(tmp_path / "config.json", credsStore="is-not-installed")
        async with fetcher(configs=(path,)) as f:
            await f.pull(registry.reference)
    assert caplog.text.count("docker-credential-is-not-installed failed: No such file or directory") == 1


async def test_a_helper_that_says_more_than_its_answer_is_understood(fetcher: Opened, tmp_path: Path, helper: Helper) -> None:
    helper.says(f"printf '%s' '{SAID}'; echo; echo 'update available'")
    desk = TokenDesk(password=PASSWORD)
    async with (
        FaultyRegistry(IMAGE, guard=desk) as registry,
        fetcher(configs=(config(tmp_path / "config.json", credsStore="test"),)) as f,
    ):
        await f.resolve(registry.reference)


@pytest.mark.parametrize("script", ["exit 3", "echo nonsense"])
async def test_a_helper_of_a_named_credential_is_asked_again_later(
    fetcher: Opened, tmp_path: Path, helper: Helper, script: str
) -> None:
    helper.says(script)
    config(tmp_path / "credentials" / "ci.json", credsStore="test")
    async with FaultyRegistry(IMAGE, guard=TokenDesk()) as registry, fetcher() as f:
        with pytest.raises(Retryable, match="docker-credential-test failed") as failed:
            await f.resolve(registry.reference, credential="ci")
        assert (failed.value.code, failed.value.concerns) == ("credential.helper", "credential")


async def test_a_helper_that_knows_nothing_leaves_it_to_the_file(fetcher: Opened, tmp_path: Path, helper: Helper) -> None:
    helper.says("echo 'credentials not found in native keychain'; exit 1")
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password=PASSWORD)) as registry:
        path = config(tmp_path / "config.json", credsStore="test", auths={registry.host: {"auth": AUTH}})
        async with fetcher(configs=(path,)) as f:
            await f.resolve(registry.reference)


async def test_a_helper_is_asked_once_until_its_answer_is_refused(fetcher: Opened, tmp_path: Path, helper: Helper) -> None:
    desk = TokenDesk(password=PASSWORD)
    async with (
        FaultyRegistry(IMAGE, guard=desk) as registry,
        fetcher(configs=(config(tmp_path / "config.json", credsStore="test"),)) as f,
    ):
        await asyncio.gather(*(f.resolve(registry.reference) for _ in range(10)))
        await f.pull(registry.reference)
        assert len(helper.asked) == 1
        # The password is changed, here and there, and no token of before is good any more.
        desk.change("another")
        helper.says(f"printf '%s' '{SAID.replace(PASSWORD, 'another')}'")
        await f.resolve(registry.reference)
        assert len(helper.asked) == 2


DAMAGED: dict[str, bytes | None] = {
    "nothing in it": b"",
    "a comma too many": b'{"auths": {},}',
    "not JSON at all": b"\x00\xff",
    "another thing": b"[]",
    "a directory": None,
    "an entry of another registry that is none": b'{"auths": {"other.example": 5, "more.example": {"auth": "!"}}}',
    "helpers that are none": b'{"credHelpers": {"other.example": 5}, "credsStore": []}',
    "nulls": b'{"auths": null, "credsStore": null, "credHelpers": null}',
    "deep nesting": b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_file_of_the_user_costs_no_public_image(fetcher: Opened, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.json"
    path.mkdir() if content is None else path.write_bytes(content)
    desk = TokenDesk(password=PASSWORD)
    async with (
        FaultyRegistry(IMAGE, guard=TokenDesk()) as public,
        FaultyRegistry(IMAGE, guard=desk) as private,
        fetcher(configs=(path, login(tmp_path / "auth.json", private.host))) as f,
    ):
        await f.resolve(public.reference)
        await f.resolve(private.reference)  # the next file counts


@pytest.mark.parametrize(
    "wrap",
    [
        lambda entry: b"\xef\xbb\xbf" + json.dumps(entry).encode(),
        lambda entry: json.dumps({**entry, "credHelpers": None, "psFormat": "x"}).encode(),
        lambda entry: json.dumps({"auths": {**entry["auths"], "other.example": None, "bad.example": []}}).encode(),
        lambda entry: json.dumps({"Auths": {key: {"Auth": each["auth"]} for key, each in entry["auths"].items()}}).encode(),
        lambda entry: json.dumps({"auths": {key: {**each, "email": None} for key, each in entry["auths"].items()}}).encode(),
    ],
    ids=["a mark of byte order", "nulls and what is not known", "bad neighbours", "names in another case", "null fields"],
)
async def test_what_can_be_used_is_used(fetcher: Opened, tmp_path: Path, wrap: Any) -> None:
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password=PASSWORD)) as registry:
        path = tmp_path / "config.json"
        path.write_bytes(wrap({"auths": {registry.host: {"auth": AUTH}}}))
        async with fetcher(configs=(path,)) as f:
            await f.resolve(registry.reference)


async def test_the_old_file_of_docker(fetcher: Opened, tmp_path: Path) -> None:
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password=PASSWORD)) as registry:
        path = config(tmp_path / ".dockercfg", **{f"https://{registry.host}": {"auth": AUTH, "email": "a@b"}})
        async with fetcher(configs=(path,)) as f:
            await f.resolve(registry.reference)


@pytest.mark.parametrize(
    "content",
    [content for content in DAMAGED.values() if content is not None and b"null" not in content],
    ids=[name for name, content in DAMAGED.items() if content is not None and b"null" not in content],
)
async def test_a_named_credential_must_be_right(
    fetcher: Opened, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = config(tmp_path / "credentials" / "ci.json")
    path.write_bytes(content)
    async with FaultyRegistry(IMAGE, guard=TokenDesk()) as registry, fetcher() as f:
        with pytest.raises(Permanent, match=r"ci\.json cannot be read") as failed:
            await f.resolve(registry.reference, credential="ci")
        assert (failed.value.code, failed.value.concerns) == ("credential.invalid", "credential")
