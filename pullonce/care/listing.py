"""Take images off the list of a store, and pin them. What an image needs stays on the disk until it is collected."""

from collections.abc import Iterable

from pullonce.care.flights import ActiveFlights
from pullonce.care.owed import Owed
from pullonce.errors import PullonceError
from pullonce.store.content import ContentStore
from pullonce.store.holds import PODMAN, Holds
from pullonce.store.images import ImageRecord
from pullonce.store.pins import Pins
from pullonce.store.uses import Use, Uses


class NotListed(PullonceError):
    """The store does not list the image."""


class Kept(PullonceError):
    """The image may not be taken off the list: it is pinned, exposed, or being pulled."""


class ImageList:
    """The images of one store, with their pins and uses."""

    def __init__(self, content: ContentStore) -> None:
        self.images = content.images
        self.pins = Pins(content.root)
        self.uses = Uses(content.root)
        self.owed = Owed(content.root)
        self._holds = Holds(content.root)

    def exposed(self) -> set[tuple[str, str]]:
        """References and platforms of images that podman and others are shown.

        Raises:
            HoldUnreadable: a hold cannot be read.
        """
        return {(hold.reference, hold.platform) for hold in self._holds.all(PODMAN)}

    def remove(self, reference: str, platform: str, active: ActiveFlights) -> list[ImageRecord]:
        """Take a reference off the list; one platform of it, or all where `platform` is empty. Returns what was listed.

        What a verification took off the list is not to be repaired any more; it counts as listed here.

        Raises:
            NotListed: it is not there.
            Kept: it is pinned, exposed, or a pull of it is in flight.
            Permanent: the disk refuses.
        """
        with self.images.hold():
            listed = self.images.all()
            found = [each for each in listed if _is_meant(each, reference, platform)]
            owed = [each for each in self.owed.all(listed) if _is_meant(each, reference, platform)]
            if not found and not owed:
                raise NotListed(f"{reference}{f' for {platform}' if platform else ''} is not in the store")
            if reference in self.pins.all():
                raise Kept(f"{reference} is pinned; `pullonce unpin` it first")
            exposed = self.exposed()
            if any((each.reference, each.platform) in exposed for each in found):
                raise Kept(f"{reference} is exposed to podman and others; `pullonce unexpose` it first")
            if any(active.has(use) for use in self.uses.all() if _same(use.image, found)):
                raise Kept(f"{reference} is being pulled at this moment; try again when that has ended")
            self.images.remove(found)
            self.owed.forget([*found, *owed])
            return [*found, *owed]

    def drop(self, chosen: Iterable[ImageRecord], active: ActiveFlights, since: float) -> list[ImageRecord]:
        """Take chosen images off the list, those aside that were pinned, exposed or used since. Returns what was taken off."""
        with self.images.hold():
            pinned, exposed, uses = set(self.pins.all()), self.exposed(), list(self.uses.all())
            listed = self.images.all()
            gone = [
                each
                for each in chosen
                if each in listed
                and each.reference not in pinned
                and (each.reference, each.platform) not in exposed
                and not any(use.at >= since or active.has(use) for use in uses if _same(use.image, [each]))
            ]
            self.images.remove(gone)
            self.owed.forget(gone)
            return gone

    def pin(self, reference: str, *, pinned: bool) -> None:
        """Pin a listed reference, or let it go; the latter also where it is no longer listed.

        Raises:
            NotListed: it is not there.
            Permanent: the disk refuses.
        """
        with self.images.hold():
            if pinned and not self.images.named(reference):
                raise NotListed(f"{reference} is not in the store; pull it first")
            if not pinned and reference not in self.pins.all():
                raise NotListed(f"{reference} is not pinned")
            self.pins.set(reference, pinned=pinned)

    def forget_uses(self, active: ActiveFlights) -> None:
        """Remove the notes of flights that have ended and whose images are not listed any more."""
        with self.images.hold():
            listed = self.images.all()
            for use in list(self.uses.all()):
                if not active.has(use) and not _same(use.image, listed):
                    self.uses.forget(use)


def _is_meant(image: ImageRecord, reference: str, platform: str) -> bool:
    return image.reference == reference and platform in ("", image.platform)


def uses_of(image: ImageRecord, uses: Iterable[Use]) -> list[Use]:
    """Those of some uses that are of an image: under the same reference and for the same platform."""
    return [use for use in uses if _same(use.image, [image])]


def _same(image: ImageRecord, others: Iterable[ImageRecord]) -> bool:
    """Whether an image stands under the same reference and platform as one of some others."""
    return any((image.reference, image.platform) == (other.reference, other.platform) for other in others)
