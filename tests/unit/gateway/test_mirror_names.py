"""What a request of the mirror asks for, by its path; and which bytes of it."""

from __future__ import annotations

import base64

import pytest

from pullonce.hostnames import is_named_plainly
from services.gateway.mirror.guests import is_browser, is_password, login_of
from services.gateway.mirror.names import NoSuchThing, wanted
from services.gateway.mirror.ranges import Span, span_of

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("path", "ns", "reference"),
    [
        ("/v2/library/redis/manifests/7", "docker.io", "docker.io/library/redis:7"),
        ("/v2/library/redis/manifests/7", "", "docker.io/library/redis:7"),
        ("/v2/redis/manifests/7", "", "docker.io/library/redis:7"),
        ("/v2/redis/manifests/7", "docker.io", "docker.io/library/redis:7"),
        ("/v2/redis/manifests/7", "index.docker.io", "docker.io/library/redis:7"),
        ("/v2/redis/manifests/7", "Index.Docker.IO", "docker.io/library/redis:7"),
        ("/v2/a/manifests/7", "QUAY.io", "quay.io/a:7"),
        ("/v2/user/app/manifests/7", "", "docker.io/user/app:7"),
        ("/v2/quay.io/org/app/manifests/v1", "", "quay.io/org/app:v1"),
        ("/v2/docker.io/library/redis/manifests/7", "", "docker.io/library/redis:7"),
        ("/v2/registry.lan_5000/a/manifests/1", "", "registry.lan:5000/a:1"),
        ("/v2/registry.lan:5000/a/manifests/1", "", "registry.lan:5000/a:1"),
        ("/v2/127.0.0.1_5000/a/b/c/manifests/1", "", "127.0.0.1:5000/a/b/c:1"),
        ("/v2/localhost/a/manifests/1", "", "localhost/a:1"),
        ("/v2/localhost_5000/a/manifests/1", "", "localhost:5000/a:1"),
        ("/v2/a/b/manifests/1", "[::1]:5000", "[::1]:5000/a/b:1"),
        ("/v2/quay.io/b/manifests/1", "ghcr.io", "ghcr.io/quay.io/b:1"),  # ns decides
        ("/v2/a/manifests/manifests/1", "ghcr.io", "ghcr.io/a/manifests:1"),
        ("/v2/a/blobs/manifests/1", "ghcr.io", "ghcr.io/a/blobs:1"),
        (f"/v2/a/b/manifests/{DIGEST}", "ghcr.io", f"ghcr.io/a/b@{DIGEST}"),
        (f"/v2/a/b/blobs/{DIGEST}", "ghcr.io", f"ghcr.io/a/b@{DIGEST}"),
        (f"/v2/a/b/manifests/sha512:{'0' * 128}", "ghcr.io", f"ghcr.io/a/b@sha512:{'0' * 128}"),
    ],
)
def test_a_path_names_a_registry_a_repository_and_a_thing(path: str, ns: str, reference: str) -> None:
    assert wanted(path, ns, "docker.io").reference == reference


def test_another_default_registry() -> None:
    assert wanted("/v2/team/app/manifests/1", "", "registry.lan:5000").reference == "registry.lan:5000/team/app:1"
    assert wanted("/v2/app/manifests/1", "", "registry.lan:5000").reference == "registry.lan:5000/app:1"
    # Others than docker's hub have names with underscores.
    assert wanted("/v2/team_1/app/manifests/1", "", "registry.lan:5000").reference == "registry.lan:5000/team_1/app:1"
    assert wanted("/v2/other.lan_80/app/manifests/1", "", "registry.lan:5000").reference == "other.lan:80/app:1"


def test_what_could_be_a_name_is_shown_no_login() -> None:
    guessed = {"/v2/team_1/app/manifests/1": True, "/v2/a.lan_1/app/manifests/1": False, "/v2/app/manifests/1": False}
    assert {path: wanted(path, "", "docker.io").guessed for path in guessed} == guessed
    assert not wanted("/v2/app/manifests/1", "registry:5000", "docker.io").guessed


def test_lists() -> None:
    tags = wanted("/v2/quay.io/org/app/tags/list", "", "docker.io")
    assert (tags.kind, tags.place, tags.name) == ("tags", "quay.io/org/app", "quay.io/org/app")
    referrers = wanted(f"/v2/org/app/referrers/{DIGEST}", "quay.io", "docker.io")
    assert (referrers.kind, referrers.place, referrers.digest) == ("referrers", "quay.io/org/app", DIGEST)


@pytest.mark.parametrize(
    ("path", "ns", "code"),
    [
        ("/", "", "UNSUPPORTED"),
        ("/v2", "", "UNSUPPORTED"),
        ("/v1/search", "", "UNSUPPORTED"),
        ("/v2/a/b", "", "UNSUPPORTED"),
        ("/v2/a/b/tags/other", "", "UNSUPPORTED"),
        ("/v2/a/b/manifests/", "", "UNSUPPORTED"),
        ("/v2/_catalog", "", "UNSUPPORTED"),
        ("/v2/a/b/blobs/uploads/", "", "UNSUPPORTED"),
        ("/v2/" + "a/" * 600 + "manifests/1", "", "UNSUPPORTED"),
        ("/v2/A/b/manifests/1", "", "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/.INVALID_MANIFEST_NAME", "", "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/sha256:12", "", "MANIFEST_UNKNOWN"),
        ("/v2/a/b/blobs/latest", "", "BLOB_UNKNOWN"),
        (f"/v2/a/b/blobs/{DIGEST.upper()}", "", "BLOB_UNKNOWN"),
        ("/v2/../../etc/passwd/manifests/1", "", "MANIFEST_UNKNOWN"),
        (f"/v2/../x/blobs/{DIGEST}", "", "NAME_INVALID"),
        (f"/v2/a/../b/blobs/{DIGEST}", "docker.io", "NAME_INVALID"),
        (f"/v2/a//b/blobs/{DIGEST}", "docker.io", "NAME_INVALID"),
        (f"/v2/a@{DIGEST}/blobs/{DIGEST}", "docker.io", "NAME_INVALID"),
        (f"/v2/a:1/blobs/{DIGEST}", "docker.io", "NAME_INVALID"),
        (f"/v2/a\n/blobs/{DIGEST}", "docker.io", "UNSUPPORTED"),
        (f"/v2/a/blobs/{DIGEST}", "user:secret@evil.example", "NAME_INVALID"),
        (f"/v2/a/blobs/{DIGEST}", "evil.example/path", "NAME_INVALID"),
        (f"/v2/a/blobs/{DIGEST}", "http://evil.example", "NAME_INVALID"),
        (f"/v2/a/blobs/{DIGEST}", "plain", "NAME_INVALID"),  # that would be a user of docker's hub
        (f"/v2/a/blobs/{DIGEST}", "evil.example:99999", "NAME_INVALID"),
        (f"/v2/registry.lan_99999/a/blobs/{DIGEST}", "", "NAME_INVALID"),
    ],
)
def test_what_leads_to_nothing(path: str, ns: str, code: str) -> None:
    with pytest.raises(NoSuchThing) as refused:
        wanted(path, ns, "docker.io")
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        ("", 10, Span(0, 10, 10)),
        ("bytes=0-", 10, Span(0, 10, 10, partial=True)),
        ("bytes=4-", 10, Span(4, 10, 10, partial=True)),
        ("bytes=4-5", 10, Span(4, 6, 10, partial=True)),
        ("Bytes=4-500", 10, Span(4, 10, 10, partial=True)),
        ("bytes=9-9", 10, Span(9, 10, 10, partial=True)),
        ("bytes=-3", 10, Span(7, 10, 10, partial=True)),
        ("bytes=-30", 10, Span(0, 10, 10, partial=True)),
        ("bytes=10-", 10, None),
        ("bytes=10-20", 10, None),
        ("bytes=-0", 10, None),
        ("bytes=0-", 0, None),
        ("", 0, Span(0, 0, 0)),
        # What is no range, or several, is ignored (RFC 9110, sections 14.1.1 and 14.2).
        ("bytes=5-4", 10, Span(0, 10, 10)),
        ("bytes=0-1,4-5", 10, Span(0, 10, 10)),
        ("bytes=", 10, Span(0, 10, 10)),
        ("bytes=-", 10, Span(0, 10, 10)),
        ("bytes=a-b", 10, Span(0, 10, 10)),
        ("bytes=--1", 10, Span(0, 10, 10)),
        ("lines=0-1", 10, Span(0, 10, 10)),
        ("bytes=" + "9" * 400 + "-", 10, Span(0, 10, 10)),
        ("bytes=\u0661-", 10, Span(0, 10, 10)),
    ],
)
def test_ranges(header: str, size: int, span: Span | None) -> None:
    assert span_of(header, size) == span


def test_what_a_part_says_of_itself() -> None:
    span = span_of("bytes=4-5", 10)
    assert span is not None
    assert (span.length, span.content_range) == (2, "bytes 4-5/10")


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_logins() -> None:
    login = login_of(basic("user:pass:word"))
    assert login is not None
    assert (login.username, login.password) == ("user", "pass:word")
    assert "pass:word" not in repr(login)
    assert is_password(login, "pass:word")
    assert not is_password(login, "pass")
    assert not is_password(None, "")
    for nothing in ("", "Basic", "Basic !", "Bearer abc", basic("nocolon"), basic(":"), "Basic /w==", "Basic \u0661"):
        assert login_of(nothing) is None, nothing


def test_pages_of_browsers_are_told_apart() -> None:
    assert is_browser({"Origin": "https://evil.example"})
    assert is_browser({"Sec-Fetch-Site": "cross-site"})
    assert not is_browser({"User-Agent": "containerd/2.1"})


@pytest.mark.parametrize(
    ("host", "plain"),
    [("127.0.0.1:577", True), ("[::1]:577", True), ("localhost", True), ("rebound.example:577", False), ("", False)],
)
def test_hosts(host: str, plain: bool) -> None:
    assert is_named_plainly(host) is plain
