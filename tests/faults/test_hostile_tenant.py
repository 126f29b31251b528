"""One store, two tenants. The second one wants what the first one pulled, and has no right to it.

Read from top to bottom this is a story: `alice` may read `private/app`, `mallory` may not; whatever mallory tries, the registry
decides, and the store asks it.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.errors import Permanent, Retryable
from pullonce.store.layout import Layout
from pullonce.store.proofs import Proofs
from services.fetcher.settings import AccessSettings
from tests.integration.fetcher.conftest import ACCESS, Fetcher, Opened, fetcher, record_of
from tests.support.faulty import Fault, FaultyRegistry, answers, sends
from tests.support.images import Image, image, layer, tar_of

__all__ = ["fetcher"]

USERS = {"alice": "correct horse", "mallory": "battery staple"}
LAYER = layer(tar_of({"secret": b"the plans"}))
IMAGE = image([LAYER])
STRICT = AccessSettings(isolated=True)


@dataclass
class Guard:
    """A registry that knows who may read what, by basic authentication.

    Attributes:
        readers: by repository; who is not named in any is let in by nobody. A repository that is not named is public.
    """

    readers: dict[str, set[str]] = field(default_factory=lambda: {"private/app": {"alice"}, "mallory/app": {"mallory"}})
    lacks: set[tuple[str, str]] = field(default_factory=set)
    """Repositories and ends of paths that are not there."""

    async def __call__(self, request: web.Request) -> web.Response | None:
        repository = request.path.removeprefix("/v2/").rpartition("/manifests/")[0]
        repository = repository or request.path.removeprefix("/v2/").rpartition("/blobs/")[0]
        if any(repository == where and request.path.endswith(what) for where, what in self.lacks):
            return web.Response(status=404)
        if repository not in self.readers:
            return None
        given = request.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(given).decode().partition(":")
        if not given or USERS.get(user) != password:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return None if user in self.readers[repository] else web.Response(status=403)


def login(directory: Path, name: str, host: str, user: str, password: str) -> None:
    directory.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (directory / f"{name}.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@dataclass
class Scene:
    """What the story needs: the fetcher of a store, and a registry that counts who asked for what."""

    f: Fetcher
    registry: FaultyRegistry
    guard: Guard

    @property
    def private(self) -> str:
        return f"{self.registry.host}/private/app:1"

    def asked(self) -> list[str]:
        """Requests since the last call."""
        found = [f"{request.method} {request.path.rpartition('/v2/')[2]}" for request in self.registry.seen]
        self.registry.seen.clear()
        return found

    async def refused(self, reference: str, credential: str, policy: str = "if-not-present") -> str:
        with pytest.raises((Permanent, Retryable)) as failed:
            await self.f.resolve(reference, credential=credential, policy=policy)
        return failed.value.code


@asynccontextmanager
async def staged(fetcher: Opened, tmp_path: Path, access: AccessSettings = ACCESS) -> AsyncIterator[Scene]:
    """Alice has pulled the private image."""
    guard = Guard()
    async with FaultyRegistry(IMAGE, guard=guard) as registry:
        credentials = tmp_path / "credentials"
        login(credentials, "alice", registry.host, "alice", USERS["alice"])
        login(credentials, "alices-other-name", registry.host, "alice", USERS["alice"])
        login(credentials, "mallory", registry.host, "mallory", USERS["mallory"])
        login(credentials, "guess", registry.host, "alice", "tr0ub4dor")
        login(credentials, "elsewhere", "other.example", "mallory", "x")
        async with fetcher(access=access) as f:
            scene = Scene(f, registry, guard)
            await f.pull(scene.private, credential="alice")
            scene.asked()
            yield scene


async def test_who_has_proved_access_is_asked_for_no_more_proof(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        await scene.f.resolve(scene.private, credential="alice", policy="if-not-present")
        assert scene.asked() == []


async def test_who_has_not_is_sent_to_the_registry_and_refused_there(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        assert await scene.refused(scene.private, "") == "UNAUTHORIZED"
        assert await scene.refused(scene.private, "guess") == "UNAUTHORIZED"
        assert await scene.refused(scene.private, "mallory") == "DENIED"
        assert set(scene.asked()) == {"HEAD private/app/manifests/1"}


@pytest.mark.parametrize("verify", ["never", "if-private", "always"])
async def test_a_name_that_nobody_knows_is_refused_before_anything(fetcher: Opened, tmp_path: Path, verify: str) -> None:
    async with staged(fetcher, tmp_path, AccessSettings(verify=verify)) as scene:  # type: ignore[arg-type]
        for policy in ("if-not-present", "always"):
            assert await scene.refused(scene.private, "nobody", policy) == "credential.unknown"
            assert await scene.refused(f"{scene.registry.host}/public:1", "nobody", policy) == "credential.unknown"
            assert await scene.refused(scene.private, "../credentials/alice", policy) == "credential.unknown"
        assert scene.asked() == []
        if verify != "never":
            assert await scene.refused(scene.private, "elsewhere") == "credential.unknown"


async def test_who_may_proves_it_once_by_one_head(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        scene.guard.readers["private/app"].add("mallory")
        await scene.f.resolve(scene.private, credential="mallory", policy="if-not-present")
        # Without a challenge that is remembered for this credential the first HEAD shows nothing.
        assert scene.asked() == ["HEAD private/app/manifests/1"] * 2
        for _ in range(2):
            await scene.f.resolve(scene.private, credential="mallory", policy="if-not-present")
        assert scene.asked() == []


async def test_what_is_public_is_everybodys(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        public = f"{scene.registry.host}/public:1"
        await scene.f.pull(public, credential="alice")
        scene.asked()
        for credential in ("", "mallory", "elsewhere"):
            await scene.f.resolve(public, credential=credential, policy="if-not-present")
        assert scene.asked() == []


async def test_always_means_everybody(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, AccessSettings(verify="always")) as scene:
        public = f"{scene.registry.host}/public:1"
        await scene.f.pull(public, credential="alice")
        scene.asked()
        await scene.f.resolve(public, policy="if-not-present")
        assert scene.asked() == ["HEAD public/manifests/1"]


async def test_never_means_nobody(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, AccessSettings(verify="never")) as scene:
        await scene.f.resolve(scene.private, credential="mallory", policy="if-not-present")
        assert scene.asked() == []


async def test_a_proof_ends_and_is_taken_away(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, AccessSettings(lifetime=0.0)) as scene:
        await scene.f.resolve(scene.private, credential="alice", policy="if-not-present")
        assert scene.asked() == ["HEAD private/app/manifests/1"], "it had ended"
    async with staged(fetcher, tmp_path) as scene:
        scene.guard.readers["private/app"].clear()
        assert await scene.refused(scene.private, "alice", "always") == "DENIED"
        assert await scene.refused(scene.private, "alice") == "DENIED", "not given from the disk what was refused just now"


async def test_a_new_password_is_another_credential(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        login(tmp_path / "credentials", "alice", scene.registry.host, "alice", "forgotten")
        assert await scene.refused(scene.private, "alice") == "UNAUTHORIZED"


async def test_while_the_registry_is_away_only_who_has_proved_it_is_served(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        private = scene.private
        await scene.registry.__aexit__()
        await scene.f.resolve(private, credential="alice", policy="if-not-present")
        assert await scene.refused(private, "mallory") == "registry.unavailable"


async def test_proofs_outlive_the_fetcher_and_tell_nothing(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        async with fetcher() as again:
            await again.resolve(scene.private, credential="alice", policy="if-not-present")
            assert scene.asked() == []
        files = [path for path in scene.f.content.root.iterdir() if path.name.startswith("access")]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600} and len(files) >= 2
        kept = b"".join(path.read_bytes() for path in files)
        assert b"private/app" in kept
        for secret in (USERS["alice"], base64.b64encode(f"alice:{USERS['alice']}".encode()).decode()):
            assert secret.encode() not in kept


@pytest.mark.parametrize("access", [ACCESS, AccessSettings(verify="always"), STRICT])
async def test_what_an_operator_puts_there_is_everybodys(fetcher: Opened, tmp_path: Path, access: AccessSettings) -> None:
    async with staged(fetcher, tmp_path, access) as scene:
        Proofs(scene.f.content.root).give_to_all(f"{scene.registry.host}/private/app", IMAGE.digest)
        await scene.f.resolve(scene.private, credential="mallory", policy="if-not-present")
        assert scene.asked() == []


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 500])
async def test_a_damaged_memory_costs_a_request_and_no_pull(fetcher: Opened, tmp_path: Path, damage: bytes) -> None:
    async with staged(fetcher, tmp_path) as scene:
        for path in scene.f.content.root.glob("access.sqlite*"):
            path.unlink()
        (scene.f.content.root / "access.sqlite").write_bytes(damage)
        await scene.f.resolve(scene.private, credential="alice", policy="if-not-present")
        await scene.f.resolve(scene.private, credential="alice", policy="if-not-present")
        assert len(scene.asked()) <= 2
        await scene.f.resolve(scene.private, credential="alice", policy="if-not-present")
        assert scene.asked() == []


@dataclass
class Tokens:
    """A registry whose token server knows the passwords, and gives `anonymous` tokens while it is public."""

    password: str = USERS["alice"]
    public: bool = False
    issued: int = 0

    async def __call__(self, request: web.Request) -> web.Response | None:
        if request.path == "/token":
            given = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            if given != f"alice:{self.password}" and (given or not self.public):
                return web.Response(status=401)
            self.issued += 1
            return web.json_response({"token": f"{given.partition(':')[0]}-{self.issued}"})
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == f"alice-{self.issued}" or (token and self.public):
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{request.host}/token"'})


async def test_a_password_that_the_token_server_refuses_takes_the_proof_away(fetcher: Opened, tmp_path: Path) -> None:
    tokens = Tokens()
    async with FaultyRegistry(IMAGE, guard=tokens) as registry, fetcher() as f:
        login(tmp_path / "credentials", "alice", registry.host, "alice", tokens.password)
        scene = Scene(f, registry, Guard())
        await f.pull(scene.private, credential="alice")
        scene.asked()
        await f.resolve(scene.private, credential="alice", policy="if-not-present")
        assert scene.asked() == []
        tokens.password, tokens.issued = "another one", 99
        assert await scene.refused(scene.private, "alice", "always") == "UNAUTHORIZED"
        assert await scene.refused(scene.private, "alice") == "UNAUTHORIZED", "not given from the disk"


@pytest.mark.parametrize("bearer", [False, True])
async def test_what_becomes_private_is_not_everybodys_any_more(fetcher: Opened, tmp_path: Path, bearer: bool) -> None:
    guard, tokens = Guard(), Tokens(public=True)
    async with FaultyRegistry(IMAGE, guard=tokens if bearer else guard) as registry, fetcher() as f:
        scene, public = Scene(f, registry, guard), f"{registry.host}/public:1"
        await f.pull(public)
        scene.asked()
        await f.resolve(public, policy="if-not-present")
        assert scene.asked() == []
        guard.readers["public"], tokens.public = {"alice"}, False
        assert await scene.refused(public, "", "always") == "UNAUTHORIZED"
        assert await scene.refused(public, "") == "UNAUTHORIZED"
        Proofs(f.content.root).give_to_all(f"{registry.host}/public", IMAGE.digest)
        assert await scene.refused(public, "", "always") == "UNAUTHORIZED"
        await f.resolve(public, policy="if-not-present")


async def page(request: web.Request, content: bytes) -> web.StreamResponse:
    """Whoever asks without a secret is sent to log in, and the page is there."""
    if request.path.startswith("/v2/"):
        return web.Response(status=302, headers={"Location": "/login"})
    return web.Response(text="<h1>Who are you?</h1>", content_type="text/html")


async def test_a_login_page_gives_nothing(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path) as scene:
        scene.guard.readers.clear()
        scene.registry.plan("", page, times=100)
        for _ in range(2):
            assert await scene.refused(scene.private, "") == "MANIFEST_UNKNOWN"
        assert "GET private/app/manifests/1" in scene.asked()


async def test_a_manifest_without_a_type_is_read_to_know_it(fetcher: Opened, tmp_path: Path) -> None:
    async def plain(request: web.Request, content: bytes) -> web.StreamResponse:
        return web.Response(body=content, content_type="application/octet-stream")

    async with staged(fetcher, tmp_path) as scene:
        scene.guard.readers.clear()
        scene.registry.plan("/manifests/", plain, times=100)
        await scene.f.resolve(scene.private, policy="if-not-present")
        scene.asked()
        await scene.f.resolve(scene.private, policy="if-not-present")
        assert scene.asked() == []


def test_what_does_not_count_any_more_does_not_pile_up(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path, lifetime=-1.0)
    proofs.give_to_all("r/app", "sha256:1")
    for number in range(999):
        proofs.prove(f"r/{number}", "somebody")
    with closing(sqlite3.connect(tmp_path / "access.sqlite")) as file:
        assert file.execute("SELECT repository FROM proofs").fetchall() == [("r/app",)]
        (plan,) = file.execute("EXPLAIN QUERY PLAN DELETE FROM resolved WHERE whom = 'x'").fetchall()
        assert "resolved_by_whom" in plan[3]
    proofs.close()


def test_a_damaged_key_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "access.key").write_bytes(b"short")
    first = Proofs(tmp_path).fingerprint("r", "alice")
    assert len((tmp_path / "access.key").read_bytes()) == 32
    assert Proofs(tmp_path).fingerprint("r", "alice") == first


# -- content below images: mallory knows digests -----------------------------------------------------------------------------


async def test_shared_content_is_shared_by_digest(fetcher: Opened, tmp_path: Path) -> None:
    """As containerd's default has it: who knows a digest has it."""
    async with staged(fetcher, tmp_path) as scene:
        scene.guard.lacks = {("mallory/app", LAYER.digest)}
        resolved = await scene.f.resolve(f"{scene.registry.host}/mallory/app:1", credential="mallory")
        assert all(each.fetched for each in resolved.layers)


async def test_isolated_content_is_given_where_the_registry_has_it(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, STRICT) as scene:
        mine = f"{scene.registry.host}/mallory/app:1"
        scene.guard.lacks = {("mallory/app", LAYER.digest)}
        assert await scene.refused(mine, "mallory", "always") == "content.isolated"
        scene.guard.lacks.clear()
        scene.asked()
        resolved = await scene.f.resolve(mine, credential="mallory")
        assert all(each.fetched for each in resolved.layers)
        assert f"HEAD mallory/app/blobs/{LAYER.digest}" in scene.asked(), "pushed there, it is mallory's as well"
        await scene.f.resolve(mine, credential="mallory")
        assert not [each for each in scene.asked() if "/blobs/" in each], "once"


def lie(registry: FaultyRegistry, answer: Fault) -> None:
    """Mallory's own registry knows the manifest of alice's image, says that it has the layer, and sends something else."""

    async def lies(request: web.Request, content: bytes) -> web.StreamResponse | None:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(len(content)), "Content-Type": "application/octet-stream"})
        return await answer(request, content)

    registry.plan(LAYER.digest, lies, times=100)


WRONG = sends(bytes(len(IMAGE.blobs[LAYER.digest])))


@pytest.mark.parametrize(
    "answer", [answers(404), WRONG, sends(b""), sends(bytes(1 << 20))], ids=["404", "wrong", "short", "long"]
)
async def test_a_registry_that_only_says_it_has_a_blob_is_not_believed(fetcher: Opened, tmp_path: Path, answer: Fault) -> None:
    async with staged(fetcher, tmp_path, STRICT) as scene, FaultyRegistry(IMAGE) as own:
        lie(own, answer)
        for _ in range(2):
            assert await scene.refused(f"{own.host}/mallory/app:1", "", "always") == "content.isolated"
        assert scene.asked() == []


async def test_a_registry_that_lies_about_a_manifest_is_not_believed(fetcher: Opened, tmp_path: Path) -> None:
    """By a digest that is there: whatever it answers to HEAD, it does not have the document."""
    async with staged(fetcher, tmp_path, STRICT) as scene, FaultyRegistry(IMAGE) as own:
        own.plan("GET /v2/mallory/app/manifests/", answers(404), times=100)
        for reference in (f"{own.host}/mallory/app@{IMAGE.digest}", f"{own.host}/mallory/app:1"):
            assert await scene.refused(reference, "", "always") == "content.isolated"


async def test_a_registry_proves_by_sending_once_and_is_believed_from_then_on(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, STRICT) as scene, FaultyRegistry(IMAGE) as copy:
        mine = await scene.f.resolve(f"{copy.host}/mallory/app:1")
        await scene.f.handlers.record_image(record_of(mine))
        assert [request.method for request in copy.asked(LAYER.digest)] == ["GET"]
        await scene.f.resolve(f"{copy.host}/another/app:1")
        assert [request.method for request in copy.asked(LAYER.digest)] == ["GET", "HEAD"]


async def test_the_end_of_a_blob_that_another_began_proves_nothing(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, STRICT) as scene, FaultyRegistry(IMAGE) as own:
        content = IMAGE.blobs[LAYER.digest]
        scene.f.content.discard(LAYER.digest)  # type: ignore[arg-type]
        alices = await scene.f.resolve(scene.private, credential="alice")
        async with scene.f.content.ingest(alices.layers[0].blob) as ingest:
            await ingest.write(content[:-1])
            await ingest.flush()
        mine = await scene.f.resolve(f"{own.host}/mallory/app:1")
        await scene.f.fetch(mine, mine.layers[0].blob)
        lie(own, WRONG)
        with pytest.raises(Permanent) as failed:
            await scene.f.handlers.record_image(record_of(mine))
        assert failed.value.code == "content.isolated"
        assert own.asked(LAYER.digest)[0].headers["Range"] == f"bytes={len(content) - 1}-"


async def test_what_a_manifest_itself_holds_needs_no_registry_that_has_it(fetcher: Opened, tmp_path: Path) -> None:
    fields = json.loads(IMAGE.content)
    for each in (fields["config"], *fields["layers"]):
        each["data"] = base64.b64encode(IMAGE.blobs[each["digest"]]).decode()
    content = json.dumps(fields).encode()
    async with staged(fetcher, tmp_path, STRICT) as scene, FaultyRegistry(Image(IMAGE.media_type, content)) as other:
        resolved = await scene.f.resolve(other.reference)
        await scene.f.handlers.record_image(record_of(resolved))
        assert not other.asked("/blobs/")


async def test_whoever_brings_content_is_not_asked_for_it_again(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, STRICT) as scene:
        await scene.f.resolve(scene.private, credential="alice")
        assert not [each for each in scene.asked() if "/blobs/" in each]


async def test_isolated_content_that_came_while_it_was_waited_for_is_not_listed(fetcher: Opened, tmp_path: Path) -> None:
    """Mallory joined a transfer of alice's by its digest: the list of images comes last, and looks once more."""
    async with staged(fetcher, tmp_path, STRICT) as scene:
        scene.f.content.discard(LAYER.digest)  # type: ignore[arg-type]
        scene.guard.lacks = {("mallory/app", LAYER.digest)}
        mine = await scene.f.resolve(f"{scene.registry.host}/mallory/app:1", credential="mallory")
        alices = await scene.f.resolve(scene.private, credential="alice")
        await scene.f.fetch(alices, alices.layers[0].blob)
        with pytest.raises(Permanent) as failed:
            await scene.f.handlers.record_image(record_of(mine))
        assert failed.value.code == "content.isolated"


async def test_an_isolated_snapshot_is_not_given_to_who_claims_its_diff_id(fetcher: Opened, tmp_path: Path) -> None:
    """The layer of mallory's image is an own one; only its config says that it unpacks to what alice has."""
    async with staged(fetcher, tmp_path, STRICT) as scene:
        resolved = await scene.f.resolve(scene.private, credential="alice")
        (only,) = resolved.layers
        layout = Layout(scene.f.content.root)
        layout.snapshot(only.chain_id).mkdir(parents=True)
        told = {"chain_id": only.chain_id, "diff_id": only.diff_id, "blob": only.blob.digest}
        layout.tree(only.chain_id).mkdir(parents=True)
        layout.record(only.chain_id).write_text(json.dumps(told))
        forged = forged_image()
        async with FaultyRegistry(forged) as hers:
            with pytest.raises(Permanent) as failed:
                await scene.f.resolve(hers.reference)
            assert failed.value.code == "content.isolated"
            assert LAYER.digest in str(failed.value)


def forged_image() -> Image:
    """Another blob under the diffID of alice's layer."""
    own = layer(tar_of({"nothing": b"mine"}))
    return image([type(own)(blob=own.blob, diff_id=LAYER.diff_id, compression=own.compression)])


# -- twenty who ask at once are no burden -----------------------------------------------------------------------------------


async def test_who_asks_again_at_once_is_answered_from_what_was_said_just_now(fetcher: Opened, tmp_path: Path) -> None:
    async with staged(fetcher, tmp_path, AccessSettings(fresh=60.0)) as scene:
        for _ in range(5):
            await scene.f.resolve(scene.private, credential="alice")
        assert scene.asked() == []
        # Whose secret is the same may share it under the same name only; all others ask for themselves.
        await scene.f.resolve(scene.private, credential="alices-other-name")
        assert scene.asked()[-1] == "HEAD private/app/manifests/1"
        assert await scene.refused(scene.private, "mallory", "always") == "DENIED"
    async with staged(fetcher, tmp_path, AccessSettings(fresh=0.0)) as scene:
        await scene.f.resolve(scene.private, credential="alice")
        assert scene.asked() == ["HEAD private/app/manifests/1"]
