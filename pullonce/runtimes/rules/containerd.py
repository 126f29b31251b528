"""containerd: its snapshotter, and whether its pulls say what the gateway has to know. Pure.

Which settings have the CRI pull in the old way, without labels, is told by the source of containerd 2:
`disable_snapshot_annotations`, `discard_unpacked_layers`, `registry.mirrors`, `configs`, `auths`, `max_concurrent_downloads`,
`image_pull_with_sync_fs`.
"""

from collections.abc import Iterator

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.containerd_names import CONFIG, PROXY, UNPACK
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import Files
from pullonce.runtimes.finding import Finding, Severity
from pullonce.runtimes.loaded import Loaded, Set, load
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.rules import hosts
from pullonce.runtimes.toml_words import shown

NAME = "containerd"
ADD = "`pullonce gateway config containerd` prints what to add, `--write` adds it"

_LOCAL = {
    "disable_snapshot_annotations": True,
    "discard_unpacked_layers": False,
    "max_concurrent_downloads": 3,
    "image_pull_with_sync_fs": False,
    "use_local_image_pull": False,
}
"""Settings of the CRI, and the values beside which it pulls by the transfer service."""


def examine(files: Files, offer: Offer, wanted: Wanted, facts: Facts) -> list[Finding]:
    """What keeps containerd from using pullonce.

    Raises:
        ConfigInvalid, FilesRefused: its files cannot be read.
    """
    path = wanted.config or CONFIG
    loaded = load(files, path, wanted.major)
    if loaded is None:
        return [
            Finding(
                NAME,
                "blocks",
                f"{path} is not there, so containerd has nothing but its defaults",
                "it uses overlayfs, and asks the registries themselves",
                ADD,
                path,
            )
        ]
    mirror = list(hosts.examine(files, offer, loaded)) if offer.mirror else []
    in_front = bool(offer.mirror) and not any(each.severity == "blocks" for each in mirror)
    snapshots = [*_wired(offer, loaded), *_files(loaded)] if offer.snapshotter else []
    used = bool(offer.snapshotter) and not any(each.severity == "blocks" for each in snapshots)
    if used:
        snapshots += [
            *_labels(loaded, in_front=in_front),
            *_unpacking(loaded),
            *_proxy(loaded, offer, facts),
            *_runtimes(loaded),
        ]
    elif in_front and not _named(loaded):
        # The mirror alone is a way to use pullonce.
        snapshots = [_weaker(each, "limits") for each in snapshots]
    if used:
        mirror = [_weaker(each, "note") for each in mirror]
    return [*snapshots, *mirror]


def _weaker(found: Finding, severity: Severity) -> Finding:
    if found.severity != "blocks" or found.what.endswith("does not start"):
        return found
    return Finding(found.runtime, severity, found.what, found.why, found.mend, found.path, found.line)


def _named(loaded: Loaded) -> bool:
    """Whether somebody meant to use the snapshotter."""
    return loaded.find(*PROXY).value is not None or loaded.images("snapshotter").value == "pullonce"


def _found(severity: Severity, what: str, why: str, mend: str, at: Set) -> Finding:
    return Finding(NAME, severity, what, why, mend, at.path, at.line)


def _wired(offer: Offer, loaded: Loaded) -> Iterator[Finding]:
    """Whether the CRI's snapshotter is ours, and where it is found."""
    main = Set(None, loaded.parts[0].path, 0)
    snapshotter, proxy, dropped = loaded.images("snapshotter"), loaded.find(*PROXY), loaded.dropped("snapshotter")
    if snapshotter.value != "pullonce" and dropped.value == "pullonce":
        why = "containerd 2 takes the registries over from a file of version 2, and not the snapshotter: overlayfs is used"
        yield _found("blocks", 'snapshotter = "pullonce" stands in a file of version 2 and does not count', why, ADD, dropped)
    elif snapshotter.value != "pullonce":
        what = (
            f"the CRI's snapshotter is {shown(snapshotter.value)}" if snapshotter.value else "the CRI's snapshotter is not set"
        )
        yield _found(
            "blocks",
            what,
            "images of pods are unpacked by containerd itself, for that snapshotter",
            ADD,
            snapshotter if snapshotter.value else main,
        )
    if proxy.value is None:
        starts = "; the CRI does not start" if snapshotter.value == "pullonce" else ""
        yield _found(
            "blocks", f"there is no [proxy_plugins.pullonce]{starts}", "containerd knows no snapshotter of that name", ADD, main
        )
        return
    for key, right in (("type", "snapshot"), ("address", offer.snapshotter)):
        found = loaded.find(*PROXY, key)
        if str(found.value or "").removeprefix("unix://") != right:
            what = f"{key} of [proxy_plugins.pullonce] is {shown(found.value) if found.value else 'not set'}"
            yield _found(
                "blocks",
                what,
                f"the gateway's is {shown(right)}",
                f"set {key} = {shown(right)}",
                found if found.path else proxy,
            )


def _files(loaded: Loaded) -> Iterator[Finding]:
    """What the files themselves are."""
    for part in loaded.parts:
        stray = part.document.get("plugins", "io.containerd.grpc.v1.cri")
        if part.version == 1 and stray is not None:
            line = part.document.line("plugins", "io.containerd.grpc.v1.cri")
            why = "in a file of version 1 the section is called [plugins.cri]; this one is passed over"
            yield Finding(
                NAME, "blocks", 'the file does not say "version = 2"', why, "say version = 2 at its beginning", part.path, line
            )
        disabled = part.document.get("disabled_plugins")
        for name in disabled if isinstance(disabled, list) else ():
            if name in ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"):
                line = part.document.line("disabled_plugins")
                why = "Kubernetes cannot use this containerd; docker and `ctr` can"
                yield Finding(
                    NAME,
                    "note",
                    f"the plugin {name} is disabled",
                    why,
                    "take it out of disabled_plugins for Kubernetes",
                    part.path,
                    line,
                )
    for part, other in loaded.replaced():
        line = part.document.line(*part.names.cri)
        why = f"containerd 1 takes the section of {other.path} in its place, and nothing of this one"
        yield Finding(
            NAME, "limits", "this section on the CRI does not count", why, "have it in one file alone", part.path, line
        )


def _labels(loaded: Loaded, *, in_front: bool) -> Iterator[Finding]:
    """Whether containerd says of which image a layer is. With the mirror in front the gateway knows without."""
    severity: Severity = "note" if in_front else "blocks"
    lost = "the gateway is not told of which image a layer is" + (
        "; it knows from the mirror" if in_front else ", and containerd pulls by itself"
    )
    annotations = loaded.images("disable_snapshot_annotations")
    if loaded.major < 2:
        if annotations.value is not False:
            what = "disable_snapshot_annotations is not false"
            at = annotations if annotations.path else loaded.images("snapshotter")
            yield _found(
                severity,
                what,
                lost,
                "set disable_snapshot_annotations = false beside the snapshotter, or put the mirror in front",
                at,
            )
        return
    local = list(_local(loaded))
    for what, at in local:
        if annotations.value is False:
            why = "the CRI pulls in the old way instead of by the transfer service; labels are on, so pullonce is used"
            yield _found("note", what, why, "nothing has to be done; without all such settings it pulls in the new way", at)
        else:
            why = f"the CRI pulls in the old way instead of by the transfer service, without labels: {lost}"
            yield _found(
                severity, what, why, "take it out, or set disable_snapshot_annotations = false, or put the mirror in front", at
            )
    export = loaded.find(*PROXY, "exports", "enable_remote_snapshot_annotations")
    if not local and str(export.value).lower() != "true":
        at = export if export.path else loaded.find(*PROXY)
        yield _found(
            severity, 'enable_remote_snapshot_annotations of [proxy_plugins.pullonce.exports] is not "true"', lost, ADD, at
        )


def _local(loaded: Loaded) -> Iterator[tuple[str, Set]]:
    """What has the CRI of containerd 2 pull in the old way."""
    for key, usual in _LOCAL.items():
        found = loaded.images(key)
        if found.value is not None and found.value != usual:
            yield f"{key} is {shown(found.value)}", found
    for key in ("mirrors", "configs", "auths"):
        found = loaded.registry(key)
        if found.value:
            yield f"registry.{key} is set", found


def _unpacking(loaded: Loaded) -> Iterator[Finding]:
    if loaded.major < 2:
        return
    listed = loaded.find(*UNPACK)
    names = (
        [each.get("snapshotter") for each in listed.value if isinstance(each, dict)] if isinstance(listed.value, list) else []
    )
    if "pullonce" not in names:
        severity: Severity = "limits" if any(_local(loaded)) else "blocks"
        at = listed if listed.path else Set(None, loaded.parts[0].path, 0)
        yield _found(
            severity,
            "no unpack_config of the transfer service names pullonce",
            "the transfer service does not unpack for a snapshotter that is not in its list",
            ADD,
            at,
        )
    elif len(names) == 1:
        why = '`ctr images pull` for another snapshotter, as it is without an option, says "no unpack platforms defined"'
        mend = f'add [[{".".join(map(shown_key, UNPACK))}]] with platform and snapshotter = "overlayfs"'
        yield _found("limits", "unpack_config names pullonce alone", why, mend, listed)


def shown_key(key: str) -> str:
    """A part of a dotted key."""
    return key if key.replace("_", "").isalnum() else f'"{key}"'


def _proxy(loaded: Loaded, offer: Offer, facts: Facts) -> Iterator[Finding]:
    proxy = loaded.find(*PROXY)
    capabilities = loaded.find(*PROXY, "capabilities")
    given = capabilities.value if isinstance(capabilities.value, list) else []
    if "rebase" in given:
        yield _found(
            "limits",
            '"rebase" is among the capabilities',
            "containerd then asks without a parent: only the lowest layer is shared",
            'take "rebase" out',
            capabilities,
        )
    if loaded.major < 2:
        return
    if "remap-ids" not in given:
        at = capabilities if capabilities.path else proxy
        yield _found(
            "limits",
            '"remap-ids" is not among the capabilities',
            "a pod with a user namespace of its own gets a copy of the whole tree",
            'set capabilities = ["remap-ids"]',
            at,
        )
    root = loaded.find(*PROXY, "exports", "root")
    own = facts.devices.get("/var/lib/containerd")
    ours = facts.devices.get(offer.home)
    if root.value != offer.home:
        apart = " (it is another one than containerd's here)" if own is not None and ours is not None and own != ours else ""
        at = root if root.path else proxy
        yield _found(
            "limits",
            f"root of [proxy_plugins.pullonce.exports] is {shown(root.value) if root.value else 'not set'}",
            f"kubelet looks at another file system than that of the images{apart} when it decides what to collect",
            f"set root = {shown(offer.home)}",
            at,
        )


def _runtimes(loaded: Loaded) -> Iterator[Finding]:
    """Runtime classes with a snapshotter of their own."""
    for part in loaded.parts:
        base = ("plugins", "io.containerd.cri.v1.runtime", "containerd") if part.version >= 3 else part.names.images
        runtimes = part.document.get(*base, "runtimes")
        for name, each in runtimes.items() if isinstance(runtimes, dict) else ():
            if isinstance(each, dict) and each.get("snapshotter") not in (None, "", "pullonce"):
                line = part.document.line(*base, "runtimes", name, "snapshotter")
                yield Finding(
                    NAME,
                    "note",
                    f"runtime {name} has the snapshotter {shown(each['snapshotter'])}",
                    "pods of that runtime class do not use pullonce",
                    "nothing has to be done where that is meant, as for the gateway's own pod",
                    part.path,
                    line,
                )
