"""References: what people write, what it stands for, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pullonce.errors import ReferenceInvalid
from pullonce.oci.reference import Reference, parse

SHA256 = "sha256:" + "a" * 64
SHA512 = "sha512:" + "b" * 128


@pytest.mark.parametrize(
    "text, normal",
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest"),
        ("me/app", "docker.io/me/app:latest"),
        ("docker.io", "docker.io/library/docker.io:latest"),
        ("localhost", "docker.io/library/localhost:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("app:5000", "docker.io/library/app:5000"),
        ("host:5000/app", "host:5000/app:latest"),
        ("HOST/app", "HOST/app:latest"),
        ("ghcr.io/x", "ghcr.io/x:latest"),
        ("ghcr.io/a/b/c-d_e__f.g---h:V1", "ghcr.io/a/b/c-d_e__f.g---h:V1"),
        ("127.0.0.1/app", "127.0.0.1/app:latest"),
        ("[::1]/app", "[::1]/app:latest"),
        ("[fe80::1]:5000/app:1", "[fe80::1]:5000/app:1"),
        (f"ubuntu@{SHA256}", f"docker.io/library/ubuntu@{SHA256}"),
        (f"ubuntu@{SHA512}", f"docker.io/library/ubuntu@{SHA512}"),
        (f"ubuntu:1@{SHA256}", f"docker.io/library/ubuntu:1@{SHA256}"),
        (f"localhost:5000/x@{SHA256}", f"localhost:5000/x@{SHA256}"),
        ("a" * 63 + "/x", "docker.io/" + "a" * 63 + "/x:latest"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert str(parse(text)) == normal
    assert parse(normal) == parse(text)


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "empty"),
        ("Ubuntu", "lower case"),
        ("ghcr.io/Me/app", "lower case"),
        ("a" * 64, "image ID"),
        ("https://ghcr.io/x", "no scheme"),
        ("docker://ubuntu", "no scheme"),
        ("ubuntu:", "tag"),
        ("ubuntu:.x", "tag"),
        ("ubuntu:" + "t" * 129, "tag"),
        ("ubuntu:a b", "tag"),
        ("ubuntu:1\n", "tag"),
        ("ubuntu@", "digest"),
        ("ubuntu@sha256:abc", "digest"),
        (f"ubuntu@{SHA256.upper()}", "digest"),
        ("ubuntu@md5:" + "a" * 32, "digest"),
        (f"ubuntu@{SHA256}@{SHA256}", "digest"),
        ("a//b", "repository"),
        ("/a", "repository"),
        ("a/", "repository"),
        ("-a", "repository"),
        ("a___b", "repository"),
        ("a..b", "repository"),
        ("ghcr.io/../x", "repository"),
        ("host..x/y", "registry host"),
        ("-host.x/y", "registry host"),
        ("host:port/y", "registry host"),
        ("user:pw@host/y", "digest"),
        ("localhost:99999/y", "ports go from 1 to 65535"),
        ("localhost:0/y", "ports go from 1 to 65535"),
        ("[::1]:70000/y", "ports go from 1 to 65535"),
        (f"{'a' * 64}.example/y", "longer than the 63 letters"),
        ("[1:2]/y", "no IPv6 address"),
        ("ghcr.io/" + "a" * 248, "longer than 255"),
        ("ubuntu\0", "repository"),
        ("übuntu", "repository"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(ReferenceInvalid, match=why):
        parse(text)


def test_parts_and_what_the_registry_is_asked_for() -> None:
    both = parse(f"ubuntu:1@{SHA256}")
    assert (both.registry, both.repository, both.tag, both.digest) == ("docker.io", "library/ubuntu", "1", SHA256)
    assert (both.name, both.locator) == ("docker.io/library/ubuntu", SHA256)
    assert parse("ubuntu").locator == "latest"
    assert len({parse("ubuntu"), parse("docker.io/ubuntu:latest"), Reference("docker.io", "library/ubuntu", "latest")}) == 1


@given(st.text(alphabet="aZ09.:/@-_[]\n sha256", max_size=60))
def test_anything_is_parsed_to_a_fixed_point_or_refused(text: str) -> None:
    try:
        once = parse(text)
    except ReferenceInvalid:
        return
    assert str(parse(str(once))) == str(once)


def test_it_is_light_to_import() -> None:
    code = "import sys; import pullonce.oci.reference; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"typing", "dataclasses", "msgspec", "asyncio"} & set(loaded)
