"""k3s and rke2: what they make of their template for the containerd of their own. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import Files
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.k3s import BASE, Distribution, template_of
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.rules import containerd
from pullonce.runtimes.trouble import ConfigInvalid
from pullonce.runtimes.yaml_text import YamlText


def examine(files: Files, offer: Offer, wanted: Wanted, facts: Facts, *, distribution: Distribution) -> list[Finding]:
    """What keeps k3s or rke2 from using pullonce.

    Raises:
        ConfigInvalid, FilesRefused: their files cannot be read.
    """
    made = f"{distribution.containerd}/config.toml"
    if files.read(made) is not None:
        # What it runs with, whatever it was made of.
        found = containerd.examine(files, offer, replace(wanted, config=made), facts)
        return [*(_of(each, distribution) for each in found), *_waiting(files, distribution, made)]
    return [*_template(files, offer, distribution), *_registries(files, offer, distribution)]


def _of(found: Finding, distribution: Distribution) -> Finding:
    name = distribution.name
    mend = found.mend.replace("config containerd", f"config {name}")
    if mend == found.mend:
        mend += f" (in {distribution.containerd}/*.tmpl or registries.yaml: {name} makes this file)"
    return replace(found, runtime=name, mend=mend)


def _waiting(files: Files, distribution: Distribution, made: str) -> Iterator[Finding]:
    """A template that was changed after the last start."""
    path, _ = template_of(files, distribution)
    if "[proxy_plugins.pullonce]" in (files.read(path) or "") and "proxy_plugins.pullonce" not in (files.read(made) or ""):
        name = distribution.name
        yield Finding(
            name,
            "blocks",
            f"{path} is not in what {name} runs with yet",
            f"{name} makes {made} when it starts",
            f"systemctl restart {name}",
            path,
            0,
        )


def _template(files: Files, offer: Offer, distribution: Distribution) -> Iterator[Finding]:
    name, (path, _) = distribution.name, template_of(files, distribution)
    add = f"`pullonce gateway config {name}` prints what to add, `--write` adds it"
    if not offer.snapshotter:
        return
    text = files.read(path)
    if text is None or "[proxy_plugins.pullonce]" not in text:
        yield Finding(
            name, "blocks", f"{path} has no [proxy_plugins.pullonce]", "its containerd knows no such snapshotter", add, path, 0
        )
    elif BASE.strip() not in text and "define" not in text:
        yield Finding(
            name,
            "note",
            f"{path} does not begin with {BASE.strip()}",
            f"whatever {name} sets itself has to stand in it",
            "compare it with the template of this version",
            path,
            1,
        )
    settings = [each for each in (distribution.drop_in, distribution.settings) if files.read(each) is not None]
    said = [(each, document) for each in settings if (document := _yaml(files, each)).get("snapshotter") is not None]
    if not said:
        yield Finding(name, "blocks", "snapshotter is not set", "it uses overlayfs", add, distribution.settings, 0)
    for each, document in said:
        if document.get("snapshotter") != "pullonce":
            what = f"snapshotter is {document.get('snapshotter')}"
            yield Finding(
                name,
                "blocks",
                what,
                "images are unpacked for that one",
                "set snapshotter: pullonce",
                each,
                document.line("snapshotter"),
            )


def _registries(files: Files, offer: Offer, distribution: Distribution) -> Iterator[Finding]:
    if not offer.mirror:
        return
    document = _yaml(files, distribution.registries)
    mirrors = document.get("mirrors")
    entries = mirrors if isinstance(mirrors, dict) else {}
    name = distribution.name
    for registry, entry in entries.items():
        if registry != "*" and offer.mirror not in _endpoints(entry):
            yield Finding(
                name,
                "limits",
                f"the mirror is not there for {registry}",
                f"for {registry} this entry counts, and not that of *",
                f"add {offer.mirror} as its first endpoint",
                distribution.registries,
                document.line("mirrors", registry),
            )
    if offer.mirror not in _endpoints(entries.get("*")):
        yield Finding(
            name,
            "limits",
            f"no mirror {offer.mirror} for all registries",
            "its containerd asks the registries for manifests",
            f"`pullonce gateway config {name} --door mirror` prints what to add",
            distribution.registries,
            document.line("mirrors"),
        )


def _endpoints(entry: object) -> list[object]:
    found = entry.get("endpoint") if isinstance(entry, dict) else None
    return found if isinstance(found, list) else []


def _yaml(files: Files, path: str) -> YamlText:
    try:
        return YamlText(files.read(path) or "")
    except ConfigInvalid as exc:
        raise exc.of(path) from None
