"""`hosts.toml`: what it may say, whom that has us ask, and what is refused."""

from __future__ import annotations

import pytest

from services.fetcher.servers.hosts import Host, Hosts, HostsInvalid, arrange, directories, having, parse

BESIDE = "/etc/certs.d/registry.example"

WHOLE = """
server = "https://upstream.example"
ca = "upstream.pem"

[host."https://one.example:5000"]
  capabilities = ["pull"]
  ca = ["one.pem", "/etc/ssl/two.pem"]
  client = [["a.cert", "a.key"], ["b.pem", ""]]
  dial_timeout = "1500ms"
  [host."https://one.example:5000".header]
    x-team = "build"
    x-many = ["1", "2"]

[host."http://two.example/cache"]
  capabilities = ["pull", "resolve", "push"]
  skip_verify = true
  client = "/etc/ssl/both.pem"

[host."https://three.example/v2/proxied"]
  override_path = true
"""


def hosts(text: str, registry: str = "registry.example", plain: str = "") -> tuple[Host, ...]:
    return arrange(parse(text, BESIDE), registry, lambda host: host == plain)


def test_everything_that_may_be_said_is_read() -> None:
    one, two, three, server = hosts(WHOLE)
    assert one == Host(
        "https://one.example:5000", "/v2", mirror=True, capabilities=frozenset({"pull"}),
        ca=(f"{BESIDE}/one.pem", "/etc/ssl/two.pem"), client=((f"{BESIDE}/a.cert", f"{BESIDE}/a.key"), (f"{BESIDE}/b.pem", "")),
        headers=(("x-team", "build"), ("x-many", "1"), ("x-many", "2")), connect=1.5,
    )  # fmt: skip
    assert (two.origin, two.path, two.skip_verify, two.plain) == ("http://two.example", "/cache/v2", True, True)
    assert two.client == (("/etc/ssl/both.pem", ""),)
    assert (three.origin, three.path) == ("https://three.example", "/v2/proxied")
    assert server == Host("https://upstream.example", mirror=True, ca=(f"{BESIDE}/upstream.pem",))


@pytest.mark.parametrize(
    ("text", "registry", "expected"),
    [
        ("", "registry.example", ["https://registry.example/v2"]),
        ("", "docker.io", ["https://registry-1.docker.io/v2"]),
        ("", "plain.example:5000", ["http://plain.example:5000/v2"]),
        ('server = "other.example"', "registry.example", ["ns https://other.example/v2"]),
        ('server = "https://registry.example/"', "registry.example", ["https://registry.example/v2"]),
        ('server = "https://o.example/v2"', "registry.example", ["ns https://o.example/v2"]),
        ('server = "https://o.example/own"\noverride_path = true', "registry.example", ["ns https://o.example/own"]),
        ('[host."a.example"]\n[host."plain.example:5000"]', "r.example", [
            "ns https://a.example/v2", "ns http://plain.example:5000/v2", "https://r.example/v2"]),
        ('[host."https://b.example"]\n[host."https://a.example".header]\nx = "1"', "docker.io", [
            "ns https://b.example/v2", "ns https://a.example/v2", "https://registry-1.docker.io/v2"]),
        ('[host."https://registry-1.docker.io"]\n[host."https://[::1]:5000"]', "docker.io", [
            "https://registry-1.docker.io/v2", "ns https://[::1]:5000/v2", "https://registry-1.docker.io/v2"]),
    ],
)  # fmt: skip
def test_mirrors_come_in_their_order_and_the_registry_last(text: str, registry: str, expected: list[str]) -> None:
    found = hosts(text, registry, plain="plain.example:5000")
    assert [f"{'ns ' if each.mirror else ''}{each.origin}{each.path}" for each in found] == expected


def test_who_may_not_resolve_is_not_asked_for_tags() -> None:
    text = '[host."https://a.example"]\ncapabilities = ["pull"]\n[host."https://b.example"]\ncapabilities = ["resolve"]'
    found = hosts(text)
    assert [each.origin for each in having(found, "resolve")] == ["https://b.example", "https://registry.example"]
    assert [each.origin for each in having(found, "pull")] == ["https://a.example", "https://registry.example"]
    assert having(hosts('capabilities = ["push"]'), "pull") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server =", "no TOML"),
        ("server = 1", "server is 1, expected a text"),
        ('servre = "https://a.example"', "the server has 'servre'"),
        ('[host."https://a.example"]\ncapabilites = ["pull"]', "host 'https://a.example' has 'capabilites'"),
        ('[host."https://a.example"]\ncapabilities = ["read"]', "has the capability 'read'; known are pull, resolve, push"),
        ('[host."https://a.example"]\nskip_verify = "yes"', "skip_verify of host 'https://a.example' is 'yes'"),
        ('[host."https://a.example"]\nca = 7', "ca of host"),
        ('[host."https://a.example"]\nca = [7]', "no list of texts"),
        ('[host."https://a.example"]\nclient = [["a", "b", "c"]]', "no pair of a certificate and its key"),
        ('[host."https://a.example"]\nclient = [""]', "names no certificate"),
        ('[host."https://a.example"]\ndial_timeout = "5"', "dial_timeout of host 'https://a.example' is '5'"),
        ('[host."https://a.example"]\ndial_timeout = 5', "expected a time such as '5s'"),
        ('[host."https://a.example".header]\n"x y" = "1"', "header 'x y'"),
        ('[host."https://a.example".header]\nx = "1\\r\\ny: 2"', "header 'x' of host"),
        ('[host."ftp://a.example"]', "'ftp://a.example' is no address of a registry"),
        ('[host."https://user:secret@a.example"]', "is no address of a registry"),
        ('[host."https://a.example:port"]', "is no address of a registry"),
        ('[host."https://a.example?x=1"]', "is no address of a registry"),
        ('host = "https://a.example"', "host is 'https://a.example', expected a table"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(HostsInvalid) as caught:
        hosts(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("docker.io", ["docker.io", "_default"]),
        ("localhost:5000", ["localhost_5000_", "localhost:5000", "_default"]),
        ("[::1]:5000", ["[::1]_5000_", "[::1]:5000", "_default"]),
    ],
)
def test_a_registry_has_its_directory(registry: str, expected: list[str]) -> None:
    assert directories(registry) == expected


def test_logins_of_docker_hub_are_kept_under_its_own_name() -> None:
    assert [each.name for each in arrange(Hosts(), "docker.io", lambda _: False)] == ["docker.io"]
    assert Host("https://mirror.example:5000").name == "mirror.example:5000"
