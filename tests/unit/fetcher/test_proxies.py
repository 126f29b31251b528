"""Proxies out of the environment, as Go reads it."""

from __future__ import annotations

import pytest

from pullonce.config import SettingInvalid
from services.fetcher.servers.proxies import Proxies, ProxyInvalid
from services.fetcher.settings import FetcherSettings


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("proxy.example", "http://proxy.example"),
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("user:pw@proxy:3128", "http://user:pw@proxy:3128"),
        ("https://proxy", "https://proxy"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("", ""),
    ],
)
def test_an_address_may_lack_its_scheme(given: str, address: str) -> None:
    assert Proxies.from_env({"HTTPS_PROXY": given}).https == address
    assert Proxies.from_env({"http_proxy": given}).http == address


@pytest.mark.parametrize(
    "given", ["socks5://proxy:1080", "socks5h://user:s3cret@proxy", "socks4://p", "ftp://p", "http://", "http://p:x"]
)
def test_what_is_no_proxy_of_ours_is_refused_by_name(given: str) -> None:
    with pytest.raises(ProxyInvalid) as refused:
        Proxies.from_env({"HTTPS_PROXY": given})
    assert str(refused.value).startswith("HTTPS_PROXY is ") and "s3cret" not in str(refused.value)
    with pytest.raises(SettingInvalid, match="HTTPS_PROXY"):
        FetcherSettings.from_env({"PULLONCE_HOME": "/h", "HTTPS_PROXY": given})


@pytest.mark.parametrize(
    ("entries", "host", "port", "direct"),
    [
        ("", "ghcr.io", None, False),
        ("*", "ghcr.io", None, True),
        ("ghcr.io", "ghcr.io", None, True),
        ("ghcr.io", "sub.ghcr.io", None, True),
        ("ghcr.io", "notghcr.io", None, False),
        (".ghcr.io", "sub.ghcr.io", None, True),
        (".ghcr.io", "ghcr.io", None, False),
        ("*.ghcr.io", "sub.ghcr.io", None, True),
        ("*.ghcr.io", "ghcr.io", None, False),
        (" GHCR.io , x", "ghcr.io", None, True),
        ("ghcr.io:443", "ghcr.io", None, True),
        ("ghcr.io:8443", "ghcr.io", None, False),
        ("ghcr.io:8443", "ghcr.io", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", None, True),
        ("10.0.0.0/8", "11.1.2.3", None, False),
        ("10.0.0.5/8", "10.1.2.3", None, True),
        ("10.0.0.0/8", "ten.example", None, False),
        ("10.0.0.1", "10.0.0.1", 5000, True),
        ("10.0.0.1:5000", "10.0.0.1", 5000, True),
        ("10.0.0.1:5000", "10.0.0.1", 5001, False),
        ("fd00::/8", "fd00::1", None, True),
        ("fd00::1", "fd00::1", None, True),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
        ("[fd00::1]:5000", "fd00::1", 5001, False),
        ("10.0.0.0/99", "10.0.0.1", None, False),
        (",,.,:", "ghcr.io", None, False),
    ],
)
def test_what_is_reached_directly(entries: str, host: str, port: int | None, direct: bool) -> None:
    found = Proxies.from_env({"HTTPS_PROXY": "proxy:1", "NO_PROXY": entries}).of("https", host, port)
    assert found == (None if direct else "http://proxy:1")


def test_each_scheme_has_its_proxy_and_upper_case_goes_first() -> None:
    proxies = Proxies.from_env({"HTTP_PROXY": "a:1", "http_proxy": "b:1", "https_proxy": "c:1", "no_proxy": "x"})
    assert (proxies.of("http", "h", None), proxies.of("https", "h", None)) == ("http://a:1", "http://c:1")
    assert Proxies.from_env({"HTTP_PROXY": "a:1", "REQUEST_METHOD": "GET"}).of("http", "h", None) is None
    assert Proxies.from_env({"HTTPS_PROXY": "u:p%20w@a"}).passwords == ["p w"]
