"""`hosts.toml`: what it may say, whom that has us ask, and what is refused."""

from __future__ import annotations

import pytest

from services.fetcher.servers.hosts import Host, Hosts, HostsInvalid, arrange, directories, having, parse, secured

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
        (
            '[host."https://a.example"]\ncapabilities = ["read"]',
            "has the capability 'read'; known are pull, resolve, push, referrers",
        ),
        ('[host."https://a.example"]\nskip_verify = "yes"', "skip_verify of host 'https://a.example' is 'yes'"),
        ('[host."https://a.example"]\nca = 7', "ca of host"),
        ('[host."https://a.example"]\nca = [7]', "no list of texts"),
        ('[host."https://a.example"]\nclient = [["a", "b", "c"]]', "no pair of a certificate and its key"),
        ('[host."https://a.example"]\nclient = [""]', "names no certificate"),
        ('[host."https://a.example"]\ndial_timeout = "5"', "dial_timeout of host 'https://a.example' is '5'"),
        ('[host."https://a.example"]\ndial_timeout = 5', "expected a time such as"),
        ('[host."https://a.example".header]\n"x y" = "1"', "header 'x y'"),
        ('[host."https://a.example".header]\nx = "1\\r\\ny: 2"', "header 'x' of host"),
        ('[host."ftp://a.example"]', "'ftp://a.example' is no address of a registry"),
        ('[host."https://user:secret@a.example"]', "is no address of a registry"),
        ('[host."https://a.example:port"]', "is no address of a registry"),
        ('[host."https://[a.example"]', "'https://[a.example' is no address of a registry"),
        ('[host."https://a.example]:5000"]', "is no address of a registry"),
        ('server = "[::1"', "'[::1' is no address of a registry"),
        ('[host."https://a.example:99999"]', "there is no port 99999"),
        ('server = "localhost:99999"', "there is no port 99999"),
        (f'[host."https://{"a" * 64}.example"]', "longer than 63 letters"),
        ('[host."https://a.example"]\ndial_timeout = "-5s"', "dial_timeout of host"),
        ('[host."https://a.example"]\ndial_timeout = "1m 30s"', "dial_timeout of host"),
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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0), ("500ms", 0.5), ("1m30s", 90.0), ("1h", 3600.0), (".5s", 0.5), ("1.5s", 1.5), ("+2s", 2.0),
        ("100us", 1e-4), ("5\u00b5s", 5e-6), ("1h2m3.5s", 3723.5), ("0s", None), ("0", None), ("", None),
    ],
)  # fmt: skip
def test_times_are_written_as_in_go(text: str, seconds: float | None) -> None:
    connect = hosts(f'[host."https://a.example"]\ndial_timeout = "{text}"')[0].connect
    assert connect == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "capabilities", ['["Pull", "RESOLVE"]', '["pull", "resolve", "referrers"]', "[]", '["pull", "resolve", "push"]']
)
def test_capabilities_are_those_of_containerd_in_any_case(capabilities: str) -> None:
    found = hosts(f'[host."https://a.example"]\ncapabilities = {capabilities}')[0]
    assert {"pull", "resolve"} <= found.capabilities


def test_a_key_that_nothing_knows_is_named_and_changes_nothing() -> None:
    text = 'servre = "https://a.example"\n[host."https://a.example"]\ncapabilites = ["pull"]\nskip_verify = true'
    said = parse(text, BESIDE)
    assert [each.partition(", which")[0] for each in said.unknown] == [
        "the server has 'servre'",
        "host 'https://a.example' has 'capabilites'",
    ]
    assert said.mirrors[0].skip_verify and said.mirrors[0].capabilities == {"pull", "resolve"}
    assert parse("", BESIDE).unknown == ()


@pytest.mark.parametrize(
    ("text", "origin", "guessed"),
    [
        ("", "http://localhost:5000", True),
        ('ca = "ca.pem"', "https://localhost:5000", False),
        ("skip_verify = true", "https://localhost:5000", False),
        ('client = "both.pem"', "https://localhost:5000", False),
        ('server = "http://localhost:5000"\nca = "ca.pem"', "http://localhost:5000", False),
        ('server = "https://localhost:5000"', "https://localhost:5000", False),
    ],
)
def test_certificates_mean_tls_on_this_machine_too(text: str, origin: str, guessed: bool) -> None:
    (found,) = arrange(parse(text, BESIDE), "localhost:5000", lambda host: True)
    assert (found.origin, found.guessed) == (origin, guessed)
    if guessed:
        https = secured(found)
        assert https.origin == "https://localhost:5000" and https.skip_verify and not https.guessed
