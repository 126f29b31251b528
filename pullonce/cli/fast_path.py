"""The usual `pullonce pull REF`, read without argparse: to load that costs as much as the whole conversation with the bus.

Whatever is not obvious here is argparse's business, with its help and its complaints.
"""

from pullonce import environment
from schemas.subjects import FLIGHT_FIELDS

_FLAGS = {"-q": ("quiet", True), "--quiet": ("quiet", True), "--json": ("json", True), "--no-unpack": ("unpack", False)}


class Arguments:
    """What `pullonce pull` was told, as argparse would say it."""

    def __init__(self, reference: str) -> None:
        self.home = ""
        self.reference = reference
        for name, default in FLIGHT_FIELDS.items():
            setattr(self, name, default)
        self.store = environment.store()
        self.timeout: float | None = None
        self.json = self.quiet = False


def read(words: list[str]) -> tuple[str, Arguments] | None:
    """What carries a plain pull out (`module:name`), and its arguments; None for every other command line."""
    if not words or words[0] != "pull":
        return None
    references = [word for word in words[1:] if word[:1] != "-"]
    flags = [word for word in words[1:] if word[:1] == "-"]
    if len(references) != 1 or not all(flag in _FLAGS for flag in flags):
        return None
    args = Arguments(references[0])
    if not args.store.replace("-", "").replace("_", "").isalnum() or not args.store.isascii() or len(args.store) > 64:
        return None
    for flag in flags:
        setattr(args, *_FLAGS[flag])
    return "pull:pull", args
