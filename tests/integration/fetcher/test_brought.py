"""Secrets that clients bring to the gateway: kept by the gateway, found by the fetcher, told to nobody but their registry."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pullonce.errors import Permanent
from pullonce.store.content import open_store
from services.gateway import credentials
from services.gateway.credentials import CredentialNotKept, Credentials, Login
from tests.integration.fetcher.conftest import Opened
from tests.integration.fetcher.test_auth import IMAGE, PASSWORD, TokenDesk
from tests.support.faulty import FaultyRegistry

ALI = Login("ali", PASSWORD)
LOGINS = {"a password": ALI, "an identity token": Login(identity_token=PASSWORD)}


@pytest.fixture
def kept(tmp_path: Path) -> Credentials:
    """Of the store that the fetcher of these tests serves."""
    open_store(tmp_path / "store")
    return Credentials(tmp_path / "store")


def files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "credentials").iterdir() if path.name != "key")


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS)
async def test_what_a_client_brought_opens_its_registry(
    fetcher: Opened, kept: Credentials, tmp_path: Path, caplog: pytest.LogCaptureFixture, login: Login
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password=PASSWORD)) as registry, fetcher() as f:
        with pytest.raises(Permanent):
            await f.resolve(registry.reference)
        async with kept.held(registry.host, login) as name:
            resolved = await f.pull(registry.reference, credential=name)
        told = msgspec.json.encode(resolved).decode() + caplog.text + repr(login) + name
        assert name in told and PASSWORD not in told
        assert base64.b64encode(f"ali:{PASSWORD}".encode()).decode() not in told


async def test_a_token_that_a_client_brought_is_presented_as_it_is(fetcher: Opened, kept: Credentials) -> None:
    desk = TokenDesk()
    desk.valid["ready-made"] = desk.needs
    async with FaultyRegistry(IMAGE, guard=desk) as registry, fetcher() as f:
        await f.pull(registry.reference, credential=kept.keep(registry.host, Login(registry_token="ready-made")))
        assert desk.given == []


async def test_a_secret_is_for_the_registry_that_it_came_for(fetcher: Opened, kept: Credentials) -> None:
    desk = TokenDesk(password=PASSWORD)
    async with FaultyRegistry(IMAGE, guard=desk) as registry, fetcher() as f:
        for host in ("registry.example", f"other.{registry.host}"):
            with pytest.raises(Permanent, match="knows no credential") as failed:
                await f.resolve(registry.reference, credential=kept.keep(host, ALI))
            assert failed.value.code == "credential.unknown"
        assert not any(request["authorization"] for request in desk.given)
        assert not any("Authorization" in request.headers for request in registry.seen)


async def test_a_wrong_secret_is_refused_and_is_not_in_the_refusal(fetcher: Opened, kept: Credentials) -> None:
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password="another")) as registry, fetcher() as f:
        with pytest.raises(Permanent) as failed:
            await f.resolve(registry.reference, credential=kept.keep(registry.host, ALI))
        assert failed.value.code == "UNAUTHORIZED" and PASSWORD not in str(failed.value)


def test_a_name_tells_nothing_and_is_the_same_for_the_same_secret(tmp_path: Path) -> None:
    one, other = (Credentials(open_store(tmp_path / name).root) for name in ("one", "other"))
    names = {one.keep("a.example", ALI), one.keep("a.example", Login("ali", PASSWORD))}
    assert len(names) == 1
    differing = [
        one.keep("b.example", ALI), one.keep("a.example", Login("ali", "x")), one.keep("a.example", Login("ali")),
        one.keep("a.example", Login(registry_token=PASSWORD)), one.keep("a.example", Login(identity_token=PASSWORD)),
        other.keep("a.example", ALI),
    ]  # fmt: skip
    assert len(names | set(differing)) == 7
    assert Credentials(tmp_path / "one").keep("a.example", ALI) in names, (
        "a gateway that starts anew shares with the one before"
    )


async def test_what_has_ended_opens_nothing_and_is_taken_away(fetcher: Opened, kept: Credentials, tmp_path: Path) -> None:
    async with FaultyRegistry(IMAGE, guard=TokenDesk(password=PASSWORD)) as registry, fetcher() as f:
        name = kept.keep(registry.host, ALI)
        kept.keep("other.example", ALI)
        (path,) = [path for path in files(tmp_path / "store") if path.stem == name]
        path.write_text(json.dumps({**json.loads(path.read_text()), "expires": 1.0}))
        with pytest.raises(Permanent, match="or no more; its client brings it again") as failed:
            await f.resolve(registry.reference, credential=name)
        assert failed.value.code == "credential.unknown"
        draft = path.with_name(f"{path.name}.4711")  # of a gateway that was killed while it wrote
        draft.write_text(PASSWORD)
        assert kept.sweep() == 2
        assert [left.stem for left in files(tmp_path / "store")] == [kept.keep("other.example", ALI)]
        assert kept.keep(registry.host, ALI) == name
        await f.resolve(registry.reference, credential=name)


async def test_a_secret_lives_as_long_as_a_pull_needs_it(tmp_path: Path) -> None:
    credentials = Credentials(open_store(tmp_path / "store").root, lifetime=0.4)

    def expires() -> float:
        (path,) = (tmp_path / "store" / "credentials").glob("*.json")
        return float(json.loads(path.read_text())["expires"])

    async with credentials.held("a.example", ALI):
        first = expires()
        while expires() < first + 0.5:  # noqa: ASYNC110 (well beyond the lifetime of what was written at the beginning)
            await asyncio.sleep(0.02)
    while not credentials.sweep():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert files(tmp_path / "store") == []


async def test_who_brings_nothing_leaves_nothing(kept: Credentials, tmp_path: Path) -> None:
    async with kept.held("a.example", None) as name:
        assert name == ""
    assert not (tmp_path / "store" / "credentials").exists() and kept.sweep() == 0


def test_only_the_services_may_read_it(kept: Credentials, tmp_path: Path) -> None:
    kept.keep("a.example", ALI)
    place = tmp_path / "store" / "credentials"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place, *place.iterdir())} == {
        path.name: 0o700 if path == place else 0o600 for path in (place, *place.iterdir())
    }


@pytest.fixture
def anothers() -> Iterator[Path]:
    """A store of user 4711, as a system's services have it beside a gateway that is root."""
    if os.geteuid() != 0:
        pytest.skip("making another user's store needs root")
    home = Path(tempfile.mkdtemp(prefix="brought-"))
    root = open_store(home / "store").root
    for path in (root, *root.rglob("*")):
        os.chown(path, 4711, 4712)
    yield root
    shutil.rmtree(home)


@pytest.mark.parametrize(("group", "modes"), [("", (0o700, 0o600, 4712)), ("4713", (0o750, 0o640, 4713))])
def test_a_fetcher_that_is_another_user_may_read_it(anothers: Path, group: str, modes: tuple[int, int, int]) -> None:
    name = Credentials(anothers, group).keep("a.example", ALI)
    place = (anothers / "credentials").stat()
    file = (anothers / "credentials" / f"{name}.json").stat()
    assert (place.st_uid, file.st_uid) == (4711, 4711)
    assert (stat.S_IMODE(place.st_mode), stat.S_IMODE(file.st_mode), file.st_gid) == modes
    key = (anothers / "credentials" / "key").stat()
    assert (key.st_uid, stat.S_IMODE(key.st_mode)) == (4711, 0o600)


def test_a_disk_that_refuses_is_told_and_a_damaged_key_is_made_anew(kept: Credentials, tmp_path: Path) -> None:
    name = kept.keep("a.example", ALI)
    (tmp_path / "store" / "credentials" / "key").write_text("no key")
    assert kept.keep("a.example", ALI) != name
    shutil.rmtree(tmp_path / "store" / "credentials")
    (tmp_path / "store" / "credentials").write_text("in the way")
    with pytest.raises(CredentialNotKept, match="no secret can be kept in"):
        kept.keep("a.example", ALI)
    with pytest.raises(CredentialNotKept, match="no fetcher has served it yet"):
        Credentials(tmp_path / "nowhere").keep("a.example", ALI)


# -- who makes them up -----------------------------------------------------------------------------------------------------


async def test_what_its_registry_refuses_is_taken_away_at_once(kept: Credentials, tmp_path: Path) -> None:
    async def tried(code: str, login: Login = ALI) -> list[str]:
        with pytest.raises(Permanent):
            async with kept.held("a.example", login):
                raise Permanent("the registry says no", code=code)
        return [path.stem for path in files(tmp_path / "store")]

    for code in ("UNAUTHORIZED", "DENIED"):
        assert await tried(code) == []
    (name,) = await tried("registry.unavailable")
    async with kept.held("a.example", ALI):
        assert await tried("DENIED") == [name], "somebody needs it"
    assert await tried("DENIED") == [name], "it was of use: its registry denies one repository"


def test_there_are_so_many_and_no_more(kept: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MOST", 3)
    names = [kept.keep("a.example", Login("eve", f"made up {number}")) for number in range(3)]
    with pytest.raises(CredentialNotKept, match="as many as may be"):
        kept.keep("a.example", ALI)
    assert kept.keep("a.example", Login("eve", "made up 0")) == names[0]
    path = tmp_path / "store" / "credentials" / f"{names[1]}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expires": 1.0}))
    kept.keep("a.example", ALI)
    assert len(files(tmp_path / "store")) == 3


async def test_few_are_tried_at_a_time(kept: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "UNPROVED", 2)
    async with kept.held("a.example", ALI):
        pass
    async with kept.held("a.example", Login("eve", "1")), kept.held("a.example", Login("eve", "2")):
        with pytest.raises(CredentialNotKept, match="being tried"):
            async with kept.held("a.example", Login("eve", "3")):
                pass
        assert len(files(tmp_path / "store")) == 3, "nothing is left of it"
        async with kept.held("a.example", Login("eve", "2")), kept.held("a.example", ALI):
            pass
    async with kept.held("a.example", Login("eve", "3")):
        pass


def test_what_is_not_ours_keeps_no_sweep_from_its_end(kept: Credentials, tmp_path: Path) -> None:
    kept.keep("a.example", ALI)
    place = tmp_path / "store" / "credentials"
    for name in ("0", "z"):
        (place / name).mkdir()
        (place / f"{name}.json.1").write_text("half written")
    assert kept.sweep() == 2
    assert {path.name for path in place.iterdir()} >= {"0", "z", "key"}
    with pytest.raises(CredentialNotKept, match="cannot be looked at"):
        Credentials(tmp_path / ("x" * 300)).sweep()


def test_a_gateway_that_stands_still_holds_nobody_for_ever(
    kept: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_LOCKED", 0.1)
    name = kept.keep("a.example", ALI)
    held = os.open(tmp_path / "store" / "credentials", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CredentialNotKept):
            kept.keep("a.example", ALI)
    finally:
        os.close(held)
    assert kept.keep("a.example", ALI) == name
