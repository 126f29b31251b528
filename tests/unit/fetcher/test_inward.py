"""Which addresses lie within, in every notation; who may lead there. Nothing here is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fetcher.remote.connections import AddressResolver, Connections, Inward, check_address
from services.fetcher.remote.inward import (
    ANYWHERE,
    HOME,
    PUBLIC,
    Kind,
    Reach,
    kind_of,
    kinds_of_host,
    leads,
    literal,
)
from services.fetcher.settings import FetcherSettings, RegistrySettings

_KINDS: dict[Kind, tuple[str, ...]] = {
    "loopback": ("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1"),
    "link-local": ("169.254.0.1", "fe80::1", "febf::1", "::ffff:169.254.7.7", "64:ff9b::169.254.7.7"),
    "metadata": ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "::ffff:a9fe:a9fe"),
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.9.9", "100.64.0.1", "fc00::1", "fd12::1", "fec0::1",
                "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "64:ff9b:1::10.0.0.1",
                "2001:4860::5efe:10.0.0.1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
    "public": ("8.8.8.8", "172.32.0.1", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2002:808:808::1"),
    "reserved": ("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "ff02::1", "2001:db8::1", "100::1"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "address"), [(kind, each) for kind, all_ in _KINDS.items() for each in all_])
def test_where_an_address_lies(kind: Kind, address: str) -> None:
    assert kind_of(ipaddress.ip_address(address)) == kind
    assert kinds_of_host(address) == kinds_of_host(f"[{address}]") == {kind}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1.", "0x7f000001", "0X7F.0.0.1", "0177.0.0.1", "017700000001", "2130706433", "127.1", "127.0.1",
        "0x7f.1", "\uff11\uff12\uff17.0.0.1", "127。0。0。1", "127\uff0e0\uff0e0\uff0e1", "127｡0｡0｡1", "①②⑦.0.0.1",
        "127%2e0.0.1", "127.0.0\u00ad.1",
        "127.0.0\u200b.1", "0x7f.0x0.0x0.0x1", "::ffff:7f00:1", "[::ffff:127.0.0.1]", "::ffff:127.0.0.1%eth0",
        "localhost", "LOCALHOST", "localhost.", "registry.localhost",
    ],
)  # fmt: skip
def test_this_machine_in_disguise(host: str) -> None:
    assert kinds_of_host(host) == {"loopback"}


@pytest.mark.parametrize(
    "host", ["example.com", "127.0.0.1.nip.io", "1.2.3.4.5", "256.0.0.1", "0x", "0xg", "08.0.0.1", "", ".", "a:b"]
)
def test_names_are_looked_up(host: str) -> None:
    assert kinds_of_host(host) in (frozenset(), {"loopback"} if host == "0x" else frozenset())


@given(st.text(max_size=40))
def test_no_host_makes_it_fail(host: str) -> None:
    literal(host)


@given(st.integers(0, 2**32 - 1), st.sampled_from(("{0}", "0x{0:x}", "0{0:o}")))
def test_a_number_is_the_address_that_the_c_library_makes_of_it(value: int, form: str) -> None:
    text = form.format(value)
    assert literal(text) == ipaddress.IPv4Address(socket.inet_ntoa(socket.inet_aton(text)))


@given(
    st.lists(st.sampled_from(("0", "1", "127", "0x7f", "0177", "255", "256", "65535", "08", "x", "")), min_size=1, max_size=5)
)
def test_whatever_the_c_library_reads_is_read(parts: list[str]) -> None:
    text = ".".join(parts)
    try:
        known = ipaddress.IPv4Address(socket.inet_ntoa(socket.inet_aton(text)))
    except OSError:
        return
    assert literal(text) == known


@pytest.mark.parametrize(
    ("kinds", "reach"),
    [
        (["public"], PUBLIC),
        (["private"], PUBLIC | {"private"}),
        (["loopback"], PUBLIC | {"loopback"}),
        (["public", "private"], PUBLIC),
        (["private", "loopback"], PUBLIC),
        (["link-local"], PUBLIC),
        (["metadata"], PUBLIC),
        ([], PUBLIC),
    ],
)
def test_who_leads_where(kinds: list[Kind], reach: Reach) -> None:
    assert leads(kinds) == reach


@pytest.mark.parametrize(
    ("address", "reach", "allowed"),
    [
        ("8.8.8.8", PUBLIC, True),
        ("10.0.0.1", PUBLIC, False),
        ("::ffff:10.0.0.1", PUBLIC, False),
        ("fe80::1%2", PUBLIC, False),
        ("10.0.0.1", HOME, True),
        ("127.0.0.1", HOME, True),
        ("169.254.169.254", HOME, False),
        ("169.254.169.254", ANYWHERE, True),
    ],
)
def test_a_connection_is_decided_by_its_address(address: str, reach: Reach, allowed: bool) -> None:
    if allowed:
        check_address(address, reach)
    else:
        with pytest.raises(Inward):
            check_address(address, reach)
    check_address(address, reach, (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


async def test_what_a_name_stood_for_once_is_not_forgotten() -> None:
    resolver = AddressResolver()
    try:
        assert resolver.kinds("registry.corp") == {"public"}, "nobody asked yet"
        resolver.note("registry.corp", ["10.0.0.5", "fd00::5"])
        assert resolver.kinds("registry.corp") == {"private"}
        resolver.note("registry.corp", ["8.8.8.8"])
        resolver.note("registry.corp", ["10.0.0.5"])
        assert leads(resolver.kinds("registry.corp")) == PUBLIC, "a name that moves inward has not always been there"
    finally:
        await resolver.close()


async def test_a_name_is_looked_up_and_remembered() -> None:
    resolver = AddressResolver()
    try:
        found = await resolver.resolve("localhost", 80, socket.AF_UNSPEC)
        assert {ipaddress.ip_address(each["host"]).is_loopback for each in found} == {True}
        with pytest.raises(OSError, match="no name"):
            await resolver.resolve("a" * 70 + ".example", 80)
    finally:
        await resolver.close()


@pytest.mark.parametrize(
    ("inward", "authority", "target", "reach"),
    [
        ("", "registry.example", "storage.example", PUBLIC),
        ("storage.example", "registry.example", "storage.example:9000", ANYWHERE),
        ("storage.example:9000", "registry.example", "storage.example", PUBLIC),
        ("registry.example", "registry.example:5000", "10.0.0.1", ANYWHERE),
        ("10.0.0.1", "registry.example", "10.0.0.1:9000", ANYWHERE),
    ],
)
async def test_the_operator_may_allow_it(inward: str, authority: str, target: str, reach: Reach) -> None:
    settings = RegistrySettings(inward=frozenset(filter(None, [inward])))
    async with Connections(settings, {}) as connections:
        assert connections.led(authority, authority.partition(":")[0], target) == reach


def test_networks_may_be_allowed() -> None:
    settings = FetcherSettings.from_env({"PULLONCE_HOME": "/h", "PULLONCE_INWARD_HOSTS": "10.0.0.0/8, storage.corp,fd00::/8"})
    assert settings.registry.inward_networks == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    check_address("10.1.2.3", PUBLIC, settings.registry.inward_networks)


async def test_the_pools_refuse_what_is_out_of_reach_before_a_byte_is_sent() -> None:
    """A listener on loopback stands for what lies within: a pool for public addresses must not get there by any name of it."""
    arrived: list[object] = []

    async def arrive(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(arrive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Connections(RegistrySettings(patience=2.0), {}) as connections:
        for host in ("127.0.0.1", "localhost", "0x7f000001", "127.1"):
            with pytest.raises(Exception, match=r"within|canonical"):
                await connections.session(PUBLIC).get(f"http://{host}:{port}/")
    server.close()
    assert not arrived
