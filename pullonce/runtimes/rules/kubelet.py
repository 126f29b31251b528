"""kubelet: whom it asks for images. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from pullonce.errors import PullonceError
from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import Files
from pullonce.runtimes.finding import Finding, Severity
from pullonce.runtimes.kubelet import CONFIG, ENDPOINT, Flag, documents, flags, last
from pullonce.runtimes.loaded import NOWHERE, Set
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.rules import containerd
from pullonce.runtimes.yaml_text import YamlText

NAME = "kubelet"
ADD = "`pullonce gateway config kubelet` prints what to add, `--write` adds it"
USUAL = "/run/containerd/containerd.sock"


def examine(files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> list[Finding]:
    """What keeps kubelet from asking the gateway.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    given = flags(files)
    for process in list(facts.processes.get(NAME, ()))[:1]:
        given += _of_process(process.words)
    main = wanted.config or _value(given, "config") or CONFIG
    texts = list(documents(files, main, _value(given, "config-dir")))
    through = _through_containerd(files, offer, wanted, facts)
    return [*_endpoint(given, texts, offer, main, through=through), *_others(given, texts, offer)]


def _of_process(words: tuple[str, ...]) -> list[Flag]:
    """The options with which it runs: what counts, whatever units say now."""
    found = []
    for position, word in enumerate(words):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            following = words[position + 1] if position + 1 < len(words) else ""
            found.append(Flag(name, value if equals else following, "the running kubelet", 0))
    return found


def _value(given: list[Flag], name: str) -> str:
    flag = last(given, name)
    return flag.value if flag else ""


def _set(given: list[Flag], texts: list[tuple[str, YamlText]], flag: str, key: str) -> Set:
    """What counts of an option that may stand in the configuration too: the option, then the last file."""
    if said := last(given, flag):
        return Set(said.value, said.path, said.line)
    found = NOWHERE
    for path, document in texts:
        if (value := document.get(key)) is not None:
            found = Set(value, path, document.line(key))
    return found


def _through_containerd(files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> bool:
    """Whether images come from pullonce even if kubelet asks the container runtime."""
    try:
        found = containerd.examine(files, offer, replace(wanted, config=""), facts)
    except PullonceError:
        return False
    return not any(each.severity == "blocks" for each in found)


def _endpoint(
    given: list[Flag], texts: list[tuple[str, YamlText]], offer: Offer, main: str, *, through: bool
) -> Iterator[Finding]:
    if not offer.cri:
        return
    found = _set(given, texts, "image-service-endpoint", ENDPOINT)
    wanted = f"unix://{offer.cri}"
    if not found.value and through:
        why = "containerd asks pullonce for layers, so public images come from it; credentials of pods reach no snapshotter"
        yield Finding(NAME, "limits", f"{ENDPOINT} is not set", why, ADD, main, 0)
    elif not found.value:
        why = "kubelet asks the container runtime for images, and that does not use pullonce either"
        yield Finding(NAME, "blocks", f"{ENDPOINT} is not set", why, ADD, main, 0)
    elif str(found.value).removeprefix("unix://") != offer.cri:
        what, mend = f"{ENDPOINT} is {found.value}", f"set it to {wanted}"
        yield Finding(NAME, "blocks", what, f"the gateway's image service is at {wanted}", mend, found.path, found.line)
    elif not offer.behind:
        why = "what it pulls lies in pullonce's store, and the container runtime does not know of it: pods do not start"
        mend = f"set PULLONCE_GATEWAY_CRI_BEHIND={USUAL} for the gateway, or where the runtime listens"
        yield Finding(
            NAME, "blocks", "the gateway's image service stands in front of no runtime", why, mend, found.path, found.line
        )


def _others(given: list[Flag], texts: list[tuple[str, YamlText]], offer: Offer) -> Iterator[Finding]:
    runtime = _set(given, texts, "container-runtime-endpoint", "containerRuntimeEndpoint")
    image = _set(given, texts, "image-service-endpoint", ENDPOINT)
    uses = bool(offer.cri) and str(image.value or "").removeprefix("unix://") == offer.cri
    if uses and offer.behind and runtime.value and str(runtime.value).removeprefix("unix://") != offer.behind:
        what = f"containers are run by {runtime.value}, and the image service stands in front of {offer.behind}"
        mend = f"set PULLONCE_GATEWAY_CRI_BEHIND={str(runtime.value).removeprefix('unix://')} for the gateway"
        yield Finding(
            NAME, "blocks", what, "images are brought to a runtime that does not run the pods", mend, runtime.path, runtime.line
        )
    serial = _set(given, texts, "serialize-image-pulls", "serializeImagePulls")
    if serial.value in (None, True, "true"):
        severity: Severity = "note"
        why = "kubelet pulls one image after the other; pullonce pulls several at once, and what they share once"
        at = serial.path or (texts[0][0] if texts else "")
        yield Finding(
            NAME, severity, "images are pulled one after another", why, "set serializeImagePulls: false", at, serial.line
        )
