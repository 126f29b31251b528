"""What may be wrong with a layer: plain exceptions of the pure modules, turned into typed failures in `failures.py`."""


class LayerError(Exception):
    """The content of a layer is at fault; the message names the entry and says what was expected."""

    code = "layer.invalid"


class Escapes(LayerError):
    """A name in the layer points out of its root."""

    code = "layer.escapes"


class TooLarge(LayerError):
    """The layer passes a limit: the message says which, and how to raise it."""

    code = "layer.too-large"


class Truncated(LayerError):
    """The bytes end in the middle of something."""


class Unsupported(LayerError):
    """The layer is stored in a way that cannot be read."""

    code = "media.unsupported"


def shown(name: bytes) -> str:
    """A name out of a layer as text for people: printable, bounded, and telling where bytes are no UTF-8."""
    text = name.decode("utf-8", "backslashreplace")
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])
    return f"'{printable}'" if len(text) <= 200 else f"'{printable}…'"
