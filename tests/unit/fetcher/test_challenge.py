"""`WWW-Authenticate` as registries really write it, and the token servers that get no secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pullonce.errors import Permanent
from services.fetcher.auth.challenge import Challenge, check_realm, parse_challenges, pick
from services.fetcher.remote.inward import ANYWHERE, PUBLIC, Reach, leads

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/redis:pull"'


@pytest.mark.parametrize(
    "headers, challenges",
    [
        (
            [HUB],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/redis:pull",
                    },
                )
            ],
        ),
        (['BASIC realm="a, b"'], [Challenge("basic", {"realm": "a, b"})]),
        (['Basic realm="say \\"x\\""'], [Challenge("basic", {"realm": 'say "x"'})]),
        (['Basic REALM=x , charset="UTF-8"'], [Challenge("basic", {"realm": "x", "charset": "UTF-8"})]),
        (['Bearer realm="r",scope="a:b,c d:e"'], [Challenge("bearer", {"realm": "r", "scope": "a:b,c d:e"})]),
        (['Negotiate, Basic realm="x"'], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (['Basic realm="x", Bearer realm="y"'], [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})]),
        (["Negotiate", 'Basic realm="x"'], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (['Bearer realm = "x" ,service=y'], [Challenge("bearer", {"realm": "x", "service": "y"})]),
        (['Bearer realm="x",realm="y"'], [Challenge("bearer", {"realm": "x"})]),
        ([""], []),
        (['realm="x"'], []),
        (['Basic realm="unfinished'], [Challenge("basic", {})]),
    ],
)
def test_parse(headers: list[str], challenges: list[Challenge]) -> None:
    assert parse_challenges(headers) == challenges


@given(st.lists(st.text(max_size=80), max_size=3))
def test_nothing_makes_it_fail(headers: list[str]) -> None:
    parse_challenges(headers)


@pytest.mark.parametrize(
    "header, scheme",
    [
        (HUB, "bearer"),
        ('Basic realm="x", Bearer realm="y"', "bearer"),
        ('Bearer service="y", Basic realm="x"', "basic"),
        ('Basic realm="x"', "basic"),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_pick(header: str, scheme: str | None) -> None:
    picked = pick(parse_challenges([header]))
    assert (picked.scheme if picked else None) == scheme


def test_several_scopes() -> None:
    (challenge,) = parse_challenges(['Bearer realm="x",scope="a:b:pull c:d:pull"'])
    assert challenge.scopes == {"a:b:pull", "c:d:pull"}


@pytest.mark.parametrize(
    "realm, registry, plain, reach",
    [
        ("https://auth.docker.io/token", "docker.io", False, PUBLIC),
        ("https://registry.corp:8443/token", "registry.corp:8443", False, PUBLIC),
        ("https://10.0.0.5/token", "10.0.0.5:5000", False, PUBLIC),
        ("https://8.8.8.8/token", "ghcr.io", False, PUBLIC),
        ("http://127.0.0.1:5001/token", "127.0.0.1:5000", True, leads(["loopback"])),
        ("https://10.0.0.6/token", "10.0.0.5:5000", False, leads(["private"])),
        ("http://169.254.169.254/", "localhost:5000", True, ANYWHERE),
    ],
)
def test_realms_that_are_asked(realm: str, registry: str, plain: bool, reach: Reach) -> None:
    check_realm(realm, registry, plain=plain, reach=reach)


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example.com/token",
        "https://169.254.169.254/latest/meta-data",
        "https://0xa9fea9fe/latest/meta-data",
        "https://127.0.0.1/",
        "https://0x7f000001/",
        "https://127。0。0。1/",
        "https://localhost:9000/",
        "https://10.1.2.3/",
        "https://192.168.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fe80::1]/",
        "https://example.com:99999/",
        "ftp://example.com/",
        "//x",
        "https://[",
        "https://./",
        "/token",
        "",
    ],
)
def test_realms_that_are_refused(realm: str) -> None:
    with pytest.raises(Permanent, match="no secret is sent there") as failed:
        check_realm(realm, "ghcr.io", plain=False)
    assert failed.value.code == "realm.refused"


def test_a_private_registry_leads_within_and_no_further() -> None:
    for realm in ("https://127.0.0.1/", "https://169.254.169.254/", "https://[fd00:ec2::254]/"):
        with pytest.raises(Permanent, match="no secret is sent there"):
            check_realm(realm, "10.0.0.5:5000", plain=False, reach=leads(["private"]))


def test_a_refused_realm_is_named_without_its_secrets() -> None:
    with pytest.raises(Permanent) as failed:
        check_realm("http://user:secret@auth.example.com/token?key=secret", "ghcr.io", plain=False)
    assert "secret@" not in str(failed.value) and "key=" not in str(failed.value)
