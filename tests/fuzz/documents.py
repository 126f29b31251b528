"""What registries say and users write: manifests, configs, challenges, hosts.toml, docker's config.json."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from pullonce.errors import Permanent
from pullonce.oci.digest import is_digest
from schemas.oci import Manifest
from services.fetcher.auth import login_files
from services.fetcher.auth.challenge import check_realm, parse_challenges, pick
from services.fetcher.auth.login_files import LoginFileInvalid
from services.fetcher.documents.manifest import in_oci_types, read_document, read_layers
from services.fetcher.servers import hosts
from services.fetcher.servers.hosts import HostsInvalid
from tests.fuzz.target import Target, bounded, nearly
from tests.support.images import image, index, layer, tar_of

_LAYER = layer(tar_of({"f": b"f"}))
_IMAGE, _DOCKER = image([_LAYER]), image([_LAYER], docker=True)
_DOCUMENTS = [_IMAGE.content, _DOCKER.content, index([_IMAGE]).content, index([_DOCKER], docker=True).content]
_CONFIG = _IMAGE.blobs[_IMAGE.document["config"]["digest"]]
_TYPES = ["", "application/json", _IMAGE.media_type, _DOCKER.media_type, index([_IMAGE]).media_type, "text/html; charset=x"]

_JSON_WORDS = [
    *(b"null", b"1e400", b"-1", b"1_0", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\ud800", b"\xff", b"[" * 3000),
    *(b'"layers":', b'"config":{}', b'"manifests":[]', b'"mediaType":7', b'"schemaVersion":1', b'"SIZE":0'),
    *(b'"digest":"sha256:x"', b"\xef\xbb\xbf"),
]  # fmt: skip

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """A document with some of its values, at any depth, replaced by others or taken away."""
    made = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(0, 3))):
        at: Any = made
        while isinstance(at, dict | list) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if draw(st.booleans()) and isinstance(at[key], dict | list):
                at = at[key]
                continue
            at[key] = draw(VALUES)
            break
    return json.dumps(made).encode(errors="surrogatepass")


def read_manifest(drawn: tuple[bytes, str]) -> None:
    """Read, and then everything in it can be asked for; or refused for what it is."""
    content, content_type = drawn
    with suppress(Permanent), bounded(len(content)):
        _, document = read_document(content, content_type, "x")
        if isinstance(document, Manifest):
            assert all(is_digest(each.digest) and each.size >= 0 for each in (document.config, *document.layers))
            translated = in_oci_types(content)
            if translated is not None:
                assert in_oci_types(translated) is None
            with suppress(Permanent):
                read_layers(document, b"{}", "x")


_MANIFEST = read_document(_IMAGE.content, "", "x")[1]


def read_config(content: bytes) -> None:
    assert isinstance(_MANIFEST, Manifest)
    with suppress(Permanent), bounded(len(content)):
        _, diff_ids = read_layers(_MANIFEST, content, "x")
        assert all(not each or is_digest(each) for each in diff_ids)


def read_challenges(content: bytes) -> None:
    lines = content.decode("latin-1").split("\n")
    with bounded(len(content)):
        for challenge in (*(found := parse_challenges(lines)), *filter(None, [pick(found)])):
            assert isinstance(challenge.service, str) and isinstance(challenge.scopes, frozenset)
            with suppress(Permanent):
                check_realm(challenge.realm, "registry.example", plain=False)


def read_hosts(content: bytes) -> None:
    text = content.decode(errors="replace")
    with suppress(HostsInvalid), bounded(len(content)):
        found = hosts.parse(text, "/etc/certs.d/registry.example")
        for host in hosts.arrange(found, "registry.example", lambda _: False):
            assert host.name


def read_logins(drawn: tuple[bytes, bool]) -> None:
    content, legacy = drawn
    with suppress(LoginFileInvalid), bounded(len(content)):
        found = login_files.parse(content, legacy=legacy)
        for registry in ("docker.io", "registry.example", ""):
            assert isinstance(found.helper(registry), str)
            found.secret(registry, "team/app")


_CHALLENGES = [
    b'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:app:pull,push"',
    b'Basic realm="x", Bearer realm="https://a/t" , charset="UTF-8"\nNegotiate',
]
_HOSTS = [
    b'server = "https://registry.example"\n[host."https://mirror.example:5000/v2/x"]\n  capabilities = ["pull", "resolve"]\n'
    b'  ca = "ca.crt"\n  client = [["a.cert", "a.key"]]\n  skip_verify = true\n  override_path = true\n'
    b'  dial_timeout = "1m30s"\n'
    b'  [host."https://mirror.example:5000/v2/x".header]\n    x-a = ["1", "2"]\n',
]
_LOGINS = [
    b'{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"registry.example":{"identitytoken":"t","username":"u"}},'
    b'"credsStore":"pass","credHelpers":{"gcr.io":"gcloud"}}',
]
_TOML_WORDS = [
    b'"',
    b"'''",
    b"[",
    b"]]",
    b"=",
    b"\n",
    b"1979-05-27",
    b"localhost:99999",
    b"x" * 70 + b".y",
    b"[::1]",
    b"://",
    b"%",
]
_HEADER_WORDS = [b'"', b"\\", b",", b"=", b" ", b"Bearer ", b'realm="', b"//x", b"http://[::1", b"ftp://x", b":99999/", b"\xff"]

TARGETS = (
    Target(
        "manifest",
        st.tuples(
            st.one_of(nearly(_DOCUMENTS, _JSON_WORDS), *(changed(json.loads(each)) for each in _DOCUMENTS)),
            st.sampled_from(_TYPES),
        ),
        read_manifest,
    ),
    Target("config", st.one_of(nearly([_CONFIG], _JSON_WORDS), changed(json.loads(_CONFIG))), read_config),
    Target("challenge", nearly(_CHALLENGES, _HEADER_WORDS), read_challenges),
    Target("hosts", nearly(_HOSTS, _TOML_WORDS), read_hosts),
    Target(
        "login",
        st.tuples(st.one_of(nearly(_LOGINS, _JSON_WORDS), changed(json.loads(_LOGINS[0]))), st.booleans()),
        read_logins,
    ),
)
