"""A registry, its storage and its token server say everything back that they are shown: none of it goes any further."""

from __future__ import annotations

import base64
import html
import json
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from pullonce.errors import Permanent, Retryable
from pullonce.process.runtime import JsonLines
from schemas.events import BlobFailed, PullUnresolved, Source
from schemas.oci import Descriptor, Digest
from schemas.orders import FetchBlob, ResolveReference
from services.fetcher.auth.redaction import Secrets
from services.fetcher.remote.failures import redacted
from services.fetcher.telling import clean_logs
from tests.integration.fetcher.conftest import FLIGHT, Fetcher, Opened
from tests.integration.fetcher.test_auth import login
from tests.support.faulty import FaultyRegistry, sends
from tests.support.images import image, layer, tar_of

IMAGE = image([layer(tar_of({"file": b"content"}))])
LAYER = Digest("sha256:" + "0" * 64)
PASSWORD = 'p&ss"w/rd+\\ 7é'
TOKEN = "eyJhbGciOi.to-ken/with+signs.and-its=signature"
REFRESH = "refresh/me+=1"
BASIC = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, BASIC, TOKEN, REFRESH)

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a URL": lambda text: quote(text, safe=""),
    "in a query": quote_plus,
    "in a URL, small": lambda text: "".join(f"%{octet:02x}" for octet in text.encode()),
    "in a URL, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in JSON, with slashes as PHP has them": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "in JSON, all by number": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "in HTML": html.escape,
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "in hexadecimal": lambda text: text.encode().hex(),
    "in Python": lambda text: repr(text)[1:-1],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_known_in_every_form(form: Callable[[str], str]) -> None:
    secrets = Secrets()
    secrets.keep(*SECRETS)
    for secret in SECRETS:
        assert secrets.clean(f"you sent {form(secret)}, and that is wrong") == "you sent [secret], and that is wrong"


@given(st.text(min_size=4), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_of_something_around_it(secret: str, before: bytes, after: bytes) -> None:
    try:
        octets = secret.encode()
    except UnicodeEncodeError:
        return
    secrets = Secrets()
    secrets.keep(secret)
    around = base64.b64encode(before + octets + after).decode()
    assert "[secret]" in secrets.clean(around)


def test_what_strangers_make_up_does_not_push_out_what_is_ours() -> None:
    secrets = Secrets()
    secrets.keep("of-this-machine")
    secrets.keep("brought-and-used-now", strangers=True)
    for number in range(1100):
        secrets.keep(f"made-up-{number:04}", strangers=True)
        if number % 500 == 0:
            secrets.keep("brought-and-used-now", strangers=True)
    told = secrets.clean("of-this-machine, brought-and-used-now, made-up-1099, made-up-0001")
    assert told == "[secret], [secret], [secret], made-up-0001", "the oldest of strangers is let go, and nothing else"


def test_one_secret_that_two_have_stays_hidden_while_one_of_them_is_known() -> None:
    secrets = Secrets()
    secrets.keep("ab1", "the-same")
    secrets.keep("the-same", "ab1", strangers=True)
    for number in range(1000):
        secrets.keep(f"made-up-{number:04}", strangers=True)
    assert secrets.clean("the-same ab1 ab12") == "[secret] [secret] ab12"


def test_short_ones_are_words() -> None:
    secrets = Secrets()
    secrets.keep("ab", "")
    assert secrets.clean("ab, about, tab") == "[secret], about, tab"


def test_parameters_of_a_path_are_none_of_the_path() -> None:
    assert redacted("https://u:p@host.example/a;session=1/b%3Bkey=2?q#f") == "https://host.example/a;…/b;…"
    assert redacted("https://[bad") == "a malformed address"
    assert "\x1b" not in redacted("https://host.example/\x1b[2J")


class Echo:
    """Says back all that it was ever shown, in each form, wherever an answer has room for words."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.status = 403

    def words(self, form: Callable[[str], str] = str) -> str:
        return " ".join(form(each) for each in dict.fromkeys(self.shown))

    async def __call__(self, request: web.Request) -> web.Response | None:
        authorization = request.headers.get("Authorization", "")
        if authorization:
            scheme, _, value = authorization.partition(" ")
            self.shown += [authorization, value]
            if scheme == "Basic":
                self.shown.append(base64.b64decode(value).decode().partition(":")[2])
        if request.method == "POST":
            self.shown.append(str((await request.post())["refresh_token"]))
        if request.path == "/token":
            return self.token()
        if authorization != f"Bearer {TOKEN}":
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{request.host}/token"'})
        return self.refuse()

    def token(self) -> web.Response:
        return web.json_response({"token": TOKEN, "refresh_token": REFRESH})

    def refuse(self) -> web.Response | None:
        said = [self.words(form) for form in FORMS.values()]
        errors = [{"code": self.words(), "message": f"\x1b[31m{' | '.join(said)}\u202e"}]
        latin = quote(self.words()) + " " + self.words(lambda text: text.encode("ascii", "ignore").decode())
        headers = {"Warning": f'299 - "{json.dumps(latin)[1:-1]}"', "Www-Authenticate": f'Negotiate x="{quote(self.words())}"'}
        return web.json_response({"errors": errors}, status=self.status, headers=headers)


def secrets_in(text: str) -> list[str]:
    return [
        f"{secret} {name}" for secret in SECRETS for name, form in FORMS.items() for it in (form(secret),) if it and it in text
    ]


@pytest.fixture
def logged() -> Logged:
    return Logged()


class Logged(logging.Handler):
    """The lines of a service's log as they go out."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(JsonLines("fetcher"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


async def failing(f: Fetcher, logged: Logged, order: ResolveReference | FetchBlob) -> str:
    """All that is told of an order that fails: the failure, the fact, the log and the progress."""
    root = logging.getLogger()
    root.addHandler(logged)
    before = root.handlers[:]
    try:
        clean_logs(f.handlers.secrets)
        handler = f.handlers.resolve_reference if isinstance(order, ResolveReference) else f.handlers.fetch_blob
        with pytest.raises((Permanent, Retryable)) as failed:
            await handler(order)  # type: ignore[arg-type]
        fact = f.handlers.give_up(order, failed.value)
        assert isinstance(fact, PullUnresolved | BlobFailed)
        logging.getLogger("services").error("it failed", exc_info=failed.value)
        told = [str(failed.value), failed.value.code, fact.code, fact.message, *logged.lines]
        return "\n".join([*told, *(message.error for message in f.progress)])
    finally:
        root.removeHandler(logged)
        for each in before:
            each.setFormatter(None)


def resolving(reference: str) -> ResolveReference:
    return ResolveReference(reference=reference, flight=FLIGHT, opened=7, revision=3)


@pytest.mark.parametrize("status", [400, 403, 404, 418, 429, 500, 503])
@pytest.mark.parametrize("entry", [{}, {"identitytoken": REFRESH}], ids=["password", "identity token"])
async def test_what_a_registry_says_back_goes_no_further(
    fetcher: Opened, tmp_path: Path, logged: Logged, status: int, entry: dict[str, str]
) -> None:
    echo = Echo()
    echo.status = status
    async with FaultyRegistry(IMAGE, guard=echo) as registry:
        given = entry or {"auth": BASIC}
        async with fetcher(configs=(login(tmp_path / "config.json", registry.host, **given),)) as f:
            told = await failing(f, logged, resolving(registry.reference))
    assert "[secret]" in told and not secrets_in(told)
    assert "\x1b" not in told and "\u202e" not in told


async def test_what_a_token_server_says_back_goes_no_further(fetcher: Opened, tmp_path: Path, logged: Logged) -> None:
    class Desk(Echo):
        def token(self) -> web.Response:
            refused = self.refuse()
            assert refused is not None
            return refused

    async with (
        FaultyRegistry(IMAGE, guard=Desk()) as registry,
        fetcher(configs=(login(tmp_path / "config.json", registry.host, auth=BASIC),)) as f,
    ):
        told = await failing(f, logged, resolving(registry.reference))
    assert "[secret]" in told and not secrets_in(told)


@pytest.mark.parametrize(
    "headers",
    [
        lambda echo: {"Location": f"http://127.0.0.1:1/{quote(echo.words(), safe='')};x={quote(TOKEN)}"},
        lambda echo: {"Location": f"ftp://{TOKEN}.example/"},
        lambda echo: {"Location": f"http://[{TOKEN}"},
        lambda echo: {"Location": f"//u:{TOKEN}@127.0.0.1:1/{TOKEN}?{TOKEN}#{TOKEN}"},
    ],
)
async def test_a_redirect_tells_no_secret(
    fetcher: Opened, tmp_path: Path, logged: Logged, headers: Callable[[Echo], dict[str, str]]
) -> None:
    class Storage(Echo):
        def refuse(self) -> web.Response:
            return web.Response(status=307, headers=headers(self))

    async with (
        FaultyRegistry(IMAGE, guard=Storage()) as registry,
        fetcher(configs=(login(tmp_path / "config.json", registry.host, auth=BASIC),)) as f,
    ):
        assert not secrets_in(await failing(f, logged, resolving(registry.reference)))


@pytest.mark.parametrize("where", ["Docker-Content-Digest", "Content-Type", "Content-Encoding", "Content-Range", "X"])
async def test_headers_tell_no_secret(fetcher: Opened, tmp_path: Path, logged: Logged, where: str) -> None:
    class Told(Echo):
        def refuse(self) -> web.Response:
            return web.Response(body=b"x" * 9, headers={where: f"application/{TOKEN}"})

    async with (
        FaultyRegistry(IMAGE, guard=Told()) as registry,
        fetcher(configs=(login(tmp_path / "config.json", registry.host, auth=BASIC),)) as f,
    ):
        assert not secrets_in(await failing(f, logged, resolving(registry.reference)))
        source = Source(registry=registry.host, repository="app")
        order = FetchBlob(blob=Descriptor(media_type="x", digest=LAYER, size=5000), source=source, revision=5)
        assert not secrets_in(await failing(f, logged, order))


async def test_a_manifest_tells_no_secret(fetcher: Opened, tmp_path: Path) -> None:
    """The facts of a pull that goes well hold what a manifest says."""

    class Quiet(Echo):
        def refuse(self) -> None:
            return None

    manifest = json.loads(IMAGE.content)
    manifest["layers"][0]["mediaType"] = f"application/{TOKEN}"
    manifest["layers"][0]["urls"] = [f"https://x.example/{quote(PASSWORD)}\u202e"]
    manifest["config"]["mediaType"] = f"application/{TOKEN}\x1b"
    content = json.dumps(manifest).encode()
    async with FaultyRegistry(IMAGE, guard=Quiet()) as registry:
        registry.plan("HEAD /v2/app/manifests", sends(b"", status=405))
        registry.plan("GET /v2/app/manifests", sends(content, headers={"Content-Type": IMAGE.media_type}))
        async with fetcher(configs=(login(tmp_path / "config.json", registry.host, auth=BASIC),)) as f:
            fact = json.dumps(to_builtins(await f.resolve(registry.reference)), ensure_ascii=False)
    assert not secrets_in(fact) and "\x1b" not in fact and "\u202e" not in fact
