"""containerd's registries: whether it asks our mirror. Pure. Source: containerd, docs/hosts.md."""

from collections.abc import Iterator

from pullonce.runtimes.containerd_names import CERTS, DEFAULT
from pullonce.runtimes.files import Files
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.loaded import Loaded
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.toml_words import shown
from pullonce.runtimes.trouble import ConfigInvalid

NAME = "containerd"
ADD = "`pullonce gateway config containerd --door mirror` prints what to add, `--write` adds it"


def examine(files: Files, offer: Offer, loaded: Loaded) -> Iterator[Finding]:
    """What keeps containerd from the mirror.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    config_path, mirrors = loaded.registry("config_path"), loaded.registry("mirrors")
    if config_path.value and mirrors.value:
        why = "containerd refuses registry.mirrors beside config_path"
        yield Finding(
            NAME,
            "blocks",
            "registry.mirrors stands beside config_path: the CRI does not start",
            why,
            f"move them to {CERTS}/<registry>/hosts.toml",
            mirrors.path,
            mirrors.line,
        )
        return
    if offer.mirror in str(mirrors.value or ""):
        return
    certs = str(config_path.value or "").split(":")[0]
    if not certs:
        there = [path for path, document in _documents(files, CERTS) if offer.mirror in _hosts(document)]
        what = f"{there[0]} names the mirror, but config_path is not set" if there else "config_path is not set"
        yield Finding(
            NAME,
            "blocks",
            what,
            "containerd reads no hosts.toml, and asks the registries themselves",
            ADD,
            loaded.parts[0].path,
            0,
        )
        return
    yield from _directories(files, certs, offer)


def _directories(files: Files, certs: str, offer: Offer) -> Iterator[Finding]:
    with_mirror = 0
    apart = []
    for path, document in _documents(files, certs):
        given = _hosts(document)
        named = list(given)
        if offer.mirror not in named:
            apart.append(path)
            continue
        with_mirror += 1
        line = document.line("host", offer.mirror)
        if named[0] != offer.mirror:
            yield Finding(
                NAME,
                "limits",
                f"the mirror comes behind {shown(named[0])}",
                "that one is asked first, and the mirror only where it has nothing",
                "let the mirror's table be the first",
                path,
                line,
            )
        table = given[offer.mirror]
        capabilities = table.get("capabilities") if isinstance(table, dict) else None
        lacking = [each for each in ("pull", "resolve") if isinstance(capabilities, list) and each not in capabilities]
        if lacking:
            why = (
                "containerd asks it for nothing at all"
                if "pull" in lacking
                else "containerd asks the registry itself what a tag names"
            )
            yield Finding(
                NAME,
                "limits",
                f"the mirror lacks the capability {shown(lacking[0])}",
                why,
                'set capabilities = ["pull", "resolve"]',
                path,
                line,
            )
    if not with_mirror:
        yield Finding(
            NAME,
            "blocks",
            f"no hosts.toml below {certs} names the mirror {offer.mirror}",
            "containerd asks the registries themselves",
            ADD,
            f"{certs}/{DEFAULT}/hosts.toml",
            0,
        )
        return
    for path in apart:
        registry = path.split("/")[-2]
        yield Finding(
            NAME,
            "limits",
            f"the mirror is not there for {registry}",
            f"for {registry} containerd reads this file and no other",
            f"`pullonce gateway config containerd --registry {registry}` adds it",
            path,
            0,
        )


def _hosts(document: TomlText) -> dict[str, object]:
    found = document.values.get("host")
    return found if isinstance(found, dict) else {}


def _documents(files: Files, certs: str) -> Iterator[tuple[str, TomlText]]:
    for name in files.names(certs):
        path = f"{certs}/{name}/hosts.toml"
        text = files.read(path)
        if text is None:
            continue
        try:
            yield path, TomlText(text)
        except ConfigInvalid as exc:
            raise exc.of(path) from None
