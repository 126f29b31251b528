"""Platforms: one spelling for each, and which entry of an index serves which wish. Pure, and light to import.

Sources: OCI image-spec 1.1 (image index, `platform`); the names of Go's GOOS and GOARCH; containerd's order of preference.
"""

import re
from collections.abc import Iterable, Sequence

from pullonce.errors import Permanent, PlatformInvalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from schemas.oci import Descriptor, ImageConfig, Platform

_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_LONGEST_WORD = 32
_MOST_NAMED = 20
"""Platforms that an error names."""
_SYSTEMS = {"macos": "darwin"}
_MACHINES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armhf": "arm/v7",
    "armel": "arm/v6",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "armv5tel": "arm/v5",
    "loongarch64": "loong64",
    "mips64el": "mips64le",
    "mipsel": "mipsle",
}
_PLAIN_VARIANTS = {("amd64", "v1"), ("arm64", "v8"), ("arm64", "v8.0"), ("arm64", "8")}
_ATTESTATION = "vnd.docker.reference.type"
_NOWHERE = "unknown/unknown"


def normalise(text: str) -> str:
    """Read `os/architecture[/variant]` and give it its one spelling: `Linux/x86_64` → `linux/amd64`.

    Raises:
        PlatformInvalid: it is no platform; the message says what was expected.
    """
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise PlatformInvalid(f"{text!r} is no platform; expected os/architecture[/variant], for instance linux/arm64")
    return spell(*parts)


def spell(system: str, machine: str, variant: str = "") -> str:
    """The one spelling of what an index, a config or `uname` says in whatever words. Empty where it says nothing."""
    system, machine, variant = system.lower(), machine.lower(), variant.lower()
    if not system and not machine:
        return ""
    machine, _, implied = _MACHINES.get(machine, machine).partition("/")
    variant = variant or implied
    if variant and variant[0].isdigit():
        variant = f"v{variant}"
    if machine == "arm":
        variant = variant or "v7"
    if (machine, variant) in _PLAIN_VARIANTS:
        variant = ""
    variant = variant.removesuffix(".0")
    return "/".join(filter(None, (_SYSTEMS.get(system, system), machine, variant)))


def preferences(wanted: str) -> list[str]:
    """The platforms that can serve a wish, best first. `wanted` is normalised."""
    system, _, rest = wanted.partition("/")
    machine, _, variant = rest.partition("/")
    match machine:
        case "amd64":
            names = [f"amd64/v{level}" for level in range(_number(variant, 1), 1, -1)] + ["amd64", "386"]
        case "arm64":
            names = [*_arm64(variant), *(f"arm/v{level}" for level in range(8, 4, -1))]
        case "arm":
            names = [f"arm/v{level}" for level in range(_number(variant, 7), 4, -1)]
        case _:
            names = [rest]
    return [f"{system}/{name}" for name in dict.fromkeys([rest, *names])]


def serves(have: str, wanted: str) -> bool:
    """Whether an image of one platform is a full answer to a wish for another: same processor, and no newer than wanted."""
    return have in preferences(wanted) and have.split("/")[:2] == wanted.split("/")[:2]


def images(entries: Iterable["Descriptor"]) -> list["Descriptor"]:
    """The entries of an index without attestations, which are no images."""
    return [entry for entry in entries if _ATTESTATION not in entry.annotations and platform_of(entry.platform) != _NOWHERE]


def choose(entries: Iterable["Descriptor"], wanted: str) -> list["Descriptor"]:
    """The entries of an index that may serve a wish: best first, the earlier of equals first, those without a platform last.

    An entry without a platform may be anything: whoever takes it must look at its config. Empty where nothing fits; see
    `unavailable`.
    """
    rank = {name: position for position, name in enumerate(preferences(wanted))}
    candidates = images(entries)
    fitting = [entry for entry in candidates if platform_of(entry.platform) in rank]
    fitting.sort(key=lambda entry: (rank[platform_of(entry.platform)], _demands(entry)))
    return fitting + [entry for entry in candidates if not platform_of(entry.platform)]


def platform_of(described: "Platform | ImageConfig | None") -> str:
    """What an index entry or a config says of its platform, normalised; empty where it says nothing."""
    if described is None:
        return ""
    said = (described.os, described.architecture, described.variant)
    if not all(len(word) <= _LONGEST_WORD and (not word or _WORD.fullmatch(word)) for word in said):
        return _NOWHERE  # whatever that is, nobody asks for it, and it fits into no message
    return spell(*said)


def unavailable(wanted: str, available: Sequence[str]) -> Permanent:
    """The error of an image that has nothing for a platform."""
    names = list(dict.fromkeys(available))
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    there = f"{', '.join(names[:_MOST_NAMED])}{more}" if names else "nothing"
    return Permanent(f"the image has nothing for {wanted}; available: {there}", code="platform.unavailable")


def _arm64(variant: str) -> list[str]:
    """v9.N includes v8.(N+5); plain arm64 is v8.0."""
    major, _, minor = variant.removeprefix("v").partition(".")
    low = min(int(minor), 9) if minor.isascii() and minor.isdigit() and len(minor) < 4 else 0
    names: list[str] = []
    if major == "9":
        names += [f"arm64/v9.{level}" for level in range(low, 0, -1)] + ["arm64/v9"]
        low += 5
    return [*names, *(f"arm64/v8.{level}" for level in range(low, 0, -1)), "arm64"]


def _number(variant: str, default: int) -> int:
    digits = variant.removeprefix("v")
    return min(int(digits), 9) if digits.isascii() and digits.isdigit() and len(digits) < 4 else default


def _demands(entry: "Descriptor") -> bool:
    """Entries that ask for features of the operating system come after equals that do not."""
    return bool(entry.platform and entry.platform.os_features)
