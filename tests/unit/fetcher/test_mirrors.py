"""What is kept of registries: anybody who pulls names them, so it is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.fetcher.servers.hosts import Host
from services.fetcher.servers.mirrors import Mirrors


def test_registries_without_end_are_not_kept_without_end(tmp_path: Path) -> None:
    mirrors = Mirrors(tmp_path, lambda _: False)
    for number in range(5000):
        assert mirrors.of(f"r{number}.example")[-1].origin == f"https://r{number}.example"
    assert len(mirrors._read) == 4096
    assert mirrors.of("r0.example")[-1].origin == "https://r0.example", "it is read again"


def test_contexts_without_end_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))  # many authorities take long to read
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    mirrors = Mirrors(None, lambda _: False)
    hosts = [Host(f"https://r{number}.example", skip_verify=True) for number in range(300)]
    first = [mirrors.context(host) for host in hosts]
    assert len(mirrors._contexts) == 256
    assert mirrors.context(hosts[-1]) is first[-1], "kept"
    assert mirrors.context(hosts[0]) is not first[0], "made again"
