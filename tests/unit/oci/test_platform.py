"""Platforms: spelling, preference, and the choice from an index."""

from __future__ import annotations

import pytest

from pullonce.errors import PlatformInvalid
from pullonce.oci.platform import choose, normalise, platform_of, preferences, serves, spell, unavailable
from schemas.oci import Descriptor, Digest, ImageConfig, Platform


@pytest.mark.parametrize(
    "text, normal",
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("macos/aarch64", "darwin/arm64"),
        ("linux/s390x", "linux/s390x"),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize("text", ["", "linux", "amd64", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "linux/amd64\n"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(PlatformInvalid, match="expected os/architecture"):
        normalise(text)


@pytest.mark.parametrize(
    "system, machine, normal",
    [
        ("Linux", "x86_64", "linux/amd64"),
        ("Linux", "armv7l", "linux/arm/v7"),
        ("Darwin", "arm64", "darwin/arm64"),
        ("", "", ""),
    ],
)
def test_what_uname_says(system: str, machine: str, normal: str) -> None:
    assert spell(system, machine) == normal


@pytest.mark.parametrize(
    "wanted, order",
    [
        ("linux/amd64/v3", ["amd64/v3", "amd64/v2", "amd64", "386"]),
        ("linux/amd64", ["amd64", "386"]),
        ("linux/386", ["386"]),
        ("linux/arm64", ["arm64", "arm/v8", "arm/v7", "arm/v6", "arm/v5"]),
        ("linux/arm64/v8.1", ["arm64/v8.1", "arm64", "arm/v8", "arm/v7", "arm/v6", "arm/v5"]),
        ("linux/arm/v6", ["arm/v6", "arm/v5"]),
        ("linux/riscv64", ["riscv64"]),
    ],
)
def test_preferences(wanted: str, order: list[str]) -> None:
    assert preferences(wanted) == [f"linux/{name}" for name in order]


def test_a_silly_variant_costs_nothing() -> None:
    assert len(preferences("linux/arm64/v9.999999999")) < 30
    assert len(preferences("linux/amd64/v99999999999999")) < 30


@pytest.mark.parametrize(
    "have, wanted, answer",
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/amd64/v3", True),
        ("linux/amd64/v3", "linux/amd64", False),
        ("linux/386", "linux/amd64", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_serves(have: str, wanted: str, answer: bool) -> None:
    assert serves(have, wanted) is answer


def entry(name: str, platform: str = "", *, features: tuple[str, ...] = (), notes: dict[str, str] | None = None) -> Descriptor:
    system, _, rest = platform.partition("/")
    machine, _, variant = rest.partition("/")
    described = Platform(os=system, architecture=machine, variant=variant, os_features=features) if platform else None
    return Descriptor(media_type="", digest=Digest(name), size=1, platform=described, annotations=notes or {})


INDEX = [
    entry("attestation", "unknown/unknown"),
    entry("provenance", "linux/amd64", notes={"vnd.docker.reference.type": "attestation-manifest"}),
    entry("nameless"),
    entry("386", "linux/386"),
    entry("featured", "linux/amd64", features=("win32k",)),
    entry("amd64", "linux/amd64"),
    entry("amd64-again", "linux/x86_64"),
    entry("amd64-v3", "linux/amd64/v3"),
    entry("arm64", "linux/arm64/v8"),
]


@pytest.mark.parametrize(
    "wanted, chosen",
    [
        ("linux/amd64", ["amd64", "amd64-again", "featured", "386", "nameless"]),
        ("linux/amd64/v4", ["amd64-v3", "amd64", "amd64-again", "featured", "386", "nameless"]),
        ("linux/arm64", ["arm64", "nameless"]),
        ("linux/s390x", ["nameless"]),
    ],
)
def test_choose(wanted: str, chosen: list[str]) -> None:
    assert [each.digest for each in choose(INDEX, wanted)] == chosen


def test_the_error_names_what_was_wanted_and_what_there_is() -> None:
    error = unavailable("linux/s390x", ["linux/amd64", "linux/arm64", "linux/amd64"])
    assert str(error) == "the image has nothing for linux/s390x; available: linux/amd64, linux/arm64"
    assert (error.code, error.concerns) == ("platform.unavailable", "source")


def test_what_a_config_says() -> None:
    assert platform_of(ImageConfig(os="linux", architecture="arm", variant="v6")) == "linux/arm/v6"
    assert platform_of(ImageConfig()) == platform_of(None) == ""
