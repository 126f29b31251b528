"""What the labels of a Prepare say of the image that a layer belongs to. Pure.

containerd sends them where `disable_snapshot_annotations` is false, or where the snapshotter exports
`enable_remote_snapshot_annotations`; without them the log may know (`arrivals.Resolved`).
"""

import re

from pullonce.errors import PullonceError
from pullonce.oci import reference
from pullonce.oci.digest import parse_digest
from schemas.oci import ChainID
from services.gateway.snapshotter.records import REF

_IMAGE = "containerd.io/snapshot/cri.image-ref"
_MANIFEST = "containerd.io/snapshot/cri.manifest-digest"
UID_MAPPING = "containerd.io/snapshot/uidmapping"
GID_MAPPING = "containerd.io/snapshot/gidmapping"

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_MAPPING = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,10})")


class LabelInvalid(PullonceError):
    """A label has a value that cannot be used."""


def target_of(labels: dict[str, str]) -> ChainID | None:
    """The layer that is wanted, in place of a directory to unpack it into; None where none is named."""
    named = labels.get(REF, "")
    return ChainID(named) if _SHA256.fullmatch(named) else None


def reference_of(labels: dict[str, str]) -> str:
    """The image by the digest of its manifest for this platform, normalised; empty where the labels do not tell."""
    image, manifest = labels.get(_IMAGE, ""), labels.get(_MANIFEST, "")
    if not image or not manifest:
        return ""
    try:
        return by_digest(image, parse_digest(manifest))
    except PullonceError:
        return ""


def image_labels(labels: dict[str, str]) -> dict[str, str]:
    """Those that say of which image a layer is: the same for all of its layers."""
    return {name: labels[name] for name in (_IMAGE, _MANIFEST) if name in labels}


def by_digest(image: str, digest: str) -> str:
    """An image of the same repository by its digest; raises ReferenceInvalid."""
    parsed = reference.parse(image)
    return f"{parsed.registry}/{parsed.repository}@{digest}"


def root_owner(labels: dict[str, str]) -> tuple[int, int] | None:
    """Who owns what root owns in a container with a user namespace: uid and gid of the host. None without such labels.

    Raises:
        LabelInvalid: a mapping cannot be read, or does not say who root is.
    """
    if UID_MAPPING not in labels and GID_MAPPING not in labels:
        return None
    return _root(labels, UID_MAPPING), _root(labels, GID_MAPPING)


def _root(labels: dict[str, str], label: str) -> int:
    """The host's number of a container's 0, out of `container:host:length`, several with commas."""
    for part in labels.get(label, "").split(","):
        found = _MAPPING.fullmatch(part)
        if found is None:
            raise LabelInvalid(f"{label} is {labels.get(label, '')!r}; expected container:host:length, such as 0:100000:65536")
        first, host, length = map(int, found.groups())
        if first == 0 and length:
            return host
    raise LabelInvalid(f"{label} is {labels[label]!r}, which does not say who 0 is")
