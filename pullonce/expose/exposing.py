"""Show images of a store in its view, and take them out of it.

Holds come first: an image is held and only then looked for, under the lock of the store, as `store/holds.py` says. Then layers
get their tar-split, then everything is synced, and only then it is listed. Whoever comes after somebody that died goes on from
the holds.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pullonce.errors import PullonceError
from pullonce.expose.making import make
from pullonce.expose.reading import NotExposable, Reader, listed
from pullonce.expose.records import Layer, names
from pullonce.expose.shown import Shown, ShownImages, twins
from pullonce.expose.users import Users
from pullonce.expose.view import Listed, View
from pullonce.failpoints import reach
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from pullonce.store.snapshots import boot_id, sync
from schemas.oci import ChainID


class NotExposed(PullonceError):
    """There is no such image in the view."""


class StillUsed(PullonceError):
    """Something of podman's is built on the image."""


def nothing(*_: object) -> None:
    """Say nothing."""


@dataclass(slots=True)
class Report:
    """What became of the view."""

    shown: list[Shown] = field(default_factory=list)
    """The images that it lists now."""
    gone: list[Shown] = field(default_factory=list)
    """Those that it does not list any more."""
    kept: dict[str, list[str]] = field(default_factory=dict)
    """Image that was replaced by a newer one → what is still built on it."""
    layers: int = 0
    """Layers whose tar-split was made."""
    blob_bytes: int = 0
    """Bytes of their blobs."""


class Exposer:
    """Changes the view of one store.

    Args:
        preferred: the platform whose image has the name, where several of a reference are shown.
        users: looks whether something is built on a layer.
        say: takes lines for people.
        tell: takes bytes of blobs read so far, and all there are to read.
    """

    def __init__(
        self,
        content: ContentStore,
        preferred: str,
        users: Users,
        *,
        say: Callable[[str], None] = nothing,
        tell: Callable[[int, int], None] = nothing,
    ) -> None:
        self._content = content
        self._preferred = preferred
        self._users = users
        self._say = say
        self._tell = tell
        self._view = View(content.root)
        self._shown = ShownImages(content.root)
        self._reader = Reader(content, as_root=users.as_root)

    def expose(self, images: Sequence[ImageRecord], *, leave_out: bool = False) -> Report:
        """Show images, in place of what is shown under the same references and for the same platforms.

        Repetition changes nothing. What a process that died left behind is finished or undone.

        Args:
            leave_out: show the others where one cannot be shown, and say so.

        Raises:
            NotExposable: one cannot be shown; then none of them is.
            ViewLocked, HoldUnreadable.
            Permanent: the disk refuses.
        """
        report = Report()
        with self._view.alone(self._say):
            there = {each.name: each for each in self._shown.all()}
            wanted = {each.name: each for each in (Shown(image=image, state="begun") for image in images)}
            fresh = [each for each in wanted.values() if each.name not in there]
            for each in fresh:
                self._shown.put(each)
            reach("view.held")
            try:
                ready = self._make_ready(wanted, there, leave_out, report)
            except BaseException:
                for each in fresh:
                    self._shown.drop(each)
                raise
            for each in ready:
                if each.name not in there or there[each.name].state != "shown":
                    self._shown.put(each.now("shown"))
            reach("view.promised")
            self._publish(report)
        return report

    def unexpose(self, chosen: Collection[tuple[str, str]], *, force: bool = False) -> Report:
        """Take images out of the view. Their snapshots stay where they are, and are not held any more.

        Args:
            chosen: reference and platform of each; an empty platform means all.
            force: also where something is built on them, which cannot be used any more then.

        Raises:
            NotExposed, StillUsed: then nothing has changed.
            ViewLocked, HoldUnreadable.
            Permanent: the disk refuses.
        """
        report = Report()
        with self._view.alone(self._say):
            there = self._shown.all()
            gone = [each for each in there if any(_is_meant(each, *name) for name in chosen)]
            for name in chosen:
                if not any(_is_meant(each, *name) for each in gone):
                    raise NotExposed(f"{name[0]}{f' for {name[1]}' if name[1] else ''} is not exposed")
            if not force:
                self._refuse_if_used(gone, [each for each in there if each not in gone])
            for each in gone:
                self._shown.put(each.now("leaving"))
            reach("view.leaving")
            self._publish(report)
        return report

    # -- before anything is listed -----------------------------------------------------------------------------------------

    def _make_ready(
        self, wanted: Mapping[str, Shown], there: Mapping[str, Shown], leave_out: bool, report: Report
    ) -> list[Shown]:
        """Look whether all is there. Layers that have no tar-split get it, those too that were damaged and are mended."""
        unread: dict[str, dict[str, Layer]] = {}
        with self._content.images.hold():  # they are held by now: what is there now stays
            for name, each in wanted.items():
                try:
                    unread[name] = self._unread(each.image)
                except NotExposable as exc:
                    self._refuse(exc, leave_out)
            for name, each in there.items():
                with suppress(NotExposable):
                    unread.setdefault(name, self._unread(each.image))
        layers = {name: layer for each in unread.values() for name, layer in each.items()}
        failed = make(self._content.layout, self._view, layers.values(), self._tell)
        report.layers, report.blob_bytes = len(layers), sum(layer.blob.size for layer in layers.values())
        ready = []
        for name in wanted.keys() & unread.keys():
            if why := [failed[layer] for layer in unread[name] if layer in failed]:
                self._refuse(NotExposable(f"{wanted[name].title}: {why[0]}"), leave_out)
            else:
                ready.append(wanted[name])
        return ready

    def _unread(self, image: ImageRecord) -> dict[str, Layer]:
        """The layers of an image that have no tar-split, by their ids."""
        found = {each.id: each for each in self._reader.layers(image) if self._view.facts(each) is None}
        for layer in found.values():
            if not self._content.has(layer.blob.digest):
                raise NotExposable(
                    f"the layer {layer.blob.digest} of {image.reference} is not there; `pullonce verify --repair` fetches it"
                )
        return found

    def _refuse(self, why: NotExposable, leave_out: bool) -> None:
        if not leave_out:
            raise why
        self._say(f"left out: {why}")

    # -- listing -----------------------------------------------------------------------------------------------------------

    def _publish(self, report: Report) -> None:
        """Have the view list what is to be shown, then let go what is not."""
        self._replace(report)
        there = self._shown.all()
        staying = [each for each in there if each.state in ("shown", "replaced") and self._is_whole(each)]
        layers: Listed = {}
        for each in staying:
            stack = self._reader.layers(each.image)
            self._view.put_layers(stack)
            layers |= {layer.id: (layer, facts) for layer in stack if (facts := self._view.facts(layer))}
        named = names([each.image for each in staying if each.state == "shown"], self._preferred)
        groups: dict[str, list[Shown]] = {}
        for each in staying:
            groups.setdefault(each.image.image_id, []).append(each)
        images = [self._reader.image(group, named) for group in groups.values()]
        for image in images:
            self._view.put_image(image)
        self._sync(chain_id for each in staying for chain_id in each.image.chain_ids)
        reach("view.synced")
        self._view.publish(layers, images, self._say)
        report.gone = [each for each in there if each.state in ("begun", "leaving")]
        for each in report.gone:
            self._shown.drop(each)
        report.shown = [each for each in staying if each.state == "shown"]

    def _replace(self, report: Report) -> None:
        """What a newer image has replaced stays for as long as something is built on it, and else goes."""
        there = self._shown.all()
        for each in twins(there, listed(self._content)):
            self._shown.put(each.now("replaced"))
        there = self._shown.all()
        shown = [each for each in there if each.state == "shown"]
        for each in (each for each in there if each.state == "replaced"):
            if used := self._used([each], shown):
                report.kept[f"{each.title}, {each.image.image_id}"] = used
            else:
                self._shown.put(each.now("leaving"))

    def _is_whole(self, shown: Shown) -> bool:
        """Whether it can be listed: the store may have lost a part of it since, and a verification may have taken one out."""
        try:
            if all(self._view.facts(layer) for layer in self._reader.layers(shown.image)):
                return True
            why = f"{shown.title} lacks a part of the view"
        except NotExposable as exc:
            why = str(exc)
        self._say(f"left out until it is mended and exposed again: {why}")
        return False

    def _sync(self, chain_ids: Iterable[ChainID]) -> None:
        """Have everything on the disk that is about to be listed."""
        marks, boot = [], boot_id()
        for mark in {self._content.layout.unsynced(chain_id) for chain_id in chain_ids}:
            try:
                if mark.read_text() == boot:
                    marks.append(mark)
            except FileNotFoundError:
                continue
        if marks or self._view.written:
            sync(self._content.root, marks)

    # -- who uses what -----------------------------------------------------------------------------------------------------

    def _refuse_if_used(self, gone: Sequence[Shown], staying: Sequence[Shown]) -> None:
        if used := self._used(gone, staying):
            raise StillUsed(
                f"{', '.join(used)} cannot be used any more without {', '.join(sorted({each.title for each in gone}))}: "
                "remove them first with podman, or say --force"
            )

    def _used(self, gone: Sequence[Shown], staying: Sequence[Shown]) -> list[str]:
        """What is built on layers that only some images have."""
        return self._users.of(self._ids(gone) - self._ids(staying))

    def _ids(self, there: Iterable[Shown]) -> set[str]:
        found: set[str] = set()
        for each in there:
            try:
                found |= {layer.id for layer in self._reader.layers(each.image)}
            except NotExposable:
                continue  # nothing can use what is not there
        return found


def _is_meant(shown: Shown, reference: str, platform: str) -> bool:
    return shown.image.reference == reference and platform in ("", shown.image.platform)
