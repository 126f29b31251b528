"""The view on disk: what containers/storage reads, and what we remember of it.

    overlay/<layer>/diff -> the tree        overlay/<layer>/link, lower        overlay/l/<link> -> ../<layer>/diff
    overlay-layers/layers.json, layers.lock, <layer>.tar-split.gz
    overlay-images/images.json, images.lock, <image>/<document>
    facts/<layer>.json                      a `LayerFacts`; while it and the tar-split are there, the layer can be shown
    lock                                    held by whoever changes the view

`diff` leads to an absolute path, since containers/storage refuses others: a store that was moved is exposed again.

Everything below can be made anew from the holds and the store. What is listed is there: layers are listed when their files are
on the disk, images when their layers are listed, and taken off in the opposite order.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from pullonce import private
from pullonce.expose.locks import writing
from pullonce.expose.records import Image, Layer, LayerFacts, file_name, image_record, layer_record, lowers
from pullonce.failpoints import reach
from pullonce.store.disk import disk_errors, replace_file
from pullonce.store.layout import Layout
from pullonce.store.trees import remove_tree

Say = Callable[[str], None]
Listed = dict[str, tuple[Layer, LayerFacts]]
"""Layers by their ids."""

_SPLIT = ".tar-split.gz"


class View:
    """The view of one store.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._layout = Layout(root)
        self.place = self._layout.exposed
        self._overlay = self.place / "overlay"
        self._layers = self.place / "overlay-layers"
        self._images = self.place / "overlay-images"
        self._facts = self.place / "facts"
        self._locks = (self._layers / "layers.lock", self._images / "images.lock")
        self._layers_list = self._layers / "layers.json"
        self._images_list = self._images / "images.json"
        self.written = False
        """Something was written that is not listed yet."""

    @contextmanager
    def alone(self, say: Say) -> Iterator[None]:
        """Make what is missing of an empty view, and be the only one that changes it for the block.

        Args:
            say: called where another one has to be waited for.

        Raises:
            Permanent: the disk refuses.
        """
        with disk_errors(self.place):
            for directory in (self.place, self._overlay, self._overlay / "l", self._layers, self._images, self._facts):
                private.make(str(directory))
            # Both have to be there: a reader opens them, and creates nothing.
            for path in (self.place / "lock", *self._locks):
                path.touch(0o644)
        lock = os.open(self.place / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another one that changes {self.place}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            with disk_errors(self.place):
                yield
        finally:
            os.close(lock)

    def facts(self, layer: Layer) -> LayerFacts | None:
        """What is known of a layer; None where it has to be found out. A blob that is compressed otherwise says nothing new."""
        try:
            found = msgspec.json.decode(self._facts_of(layer.id).read_bytes(), type=LayerFacts)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return found if found.diff_id == layer.diff_id and self._split(layer.id).exists() else None

    def draft(self) -> Path:
        """A fresh name for a file that becomes a layer's tar-split."""
        return self._layers / f".{secrets.token_hex(8)}"

    def keep(self, layer: Layer, draft: Path, facts: LayerFacts) -> None:
        """Keep what was found out about a layer, and its tar-split."""
        draft.replace(self._split(layer.id))
        reach("view.split")
        replace_file(self._facts_of(layer.id), msgspec.json.encode(facts), sync=False)
        self.written = True

    def put_layers(self, layers: Sequence[Layer]) -> None:
        """Make what a mount needs of a stack of layers. Repetition mends what is not as it should be."""
        below = lowers(layers)
        for layer in layers:
            place = self._overlay / layer.id
            place.mkdir(exist_ok=True)
            self._link(place / "diff", str(self._layout.tree(layer.chain_id).absolute()))
            self._link(self._overlay / "l" / layer.link, f"../{layer.id}/diff")
            self._write(place / "link", layer.link.encode())
            if below[layer.id]:
                self._write(place / "lower", below[layer.id].encode())

    def put_image(self, image: Image) -> None:
        """Make the documents of an image."""
        place = self._images / image.id
        place.mkdir(exist_ok=True)
        for key, content in image.documents.items():
            self._write(place / file_name(key), content)

    def publish(self, layers: Listed, images: Iterable[Image], say: Say) -> None:
        """List these layers and images and no others, and remove what belongs to none of them.

        Raises:
            ViewLocked: somebody goes on reading it.
        """
        images = list(images)
        new = {name: layer_record(*each) for name, each in layers.items()}
        images_text, layers_text = msgspec.json.encode([*map(image_record, images)]), msgspec.json.encode([*new.values()])
        before = self._known()
        if _says(self._images_list, images_text) and _says(self._layers_list, layers_text):
            self._prune(layers, images)
            return
        with writing(self._locks, say) as stamp:
            stamp()
            if not before.keys() <= new.keys():
                replace_file(self._layers_list, msgspec.json.encode([*{**before, **new}.values()]))
            else:
                replace_file(self._layers_list, layers_text)
            reach("view.layers")
            replace_file(self._images_list, images_text)
            reach("view.images")
            if not before.keys() <= new.keys():
                replace_file(self._layers_list, layers_text)
            reach("view.listed")
            self._prune(layers, images)

    def _known(self) -> dict[str, object]:
        """The records of layers that are listed now."""
        try:
            listed = msgspec.json.decode(self._layers_list.read_bytes(), type=list[dict[str, object]])
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}
        return {str(each.get("id")): each for each in listed}

    def _prune(self, layers: Listed, images: Sequence[Image]) -> None:
        links = {layer.link for layer, _ in layers.values()}
        names = {image.id for image in images}
        for path in (self._overlay / "l").iterdir():
            if path.name not in links:
                _remove(path)
        for path in self._overlay.iterdir():
            if path.name not in layers and path.name != "l":
                _remove(path)
        for path in self._images.iterdir():
            if path.is_dir() and path.name not in names:
                _remove(path)
        for path in (*self._layers.glob(f"*{_SPLIT}"), *self._layers.glob(".*"), *self._facts.iterdir()):
            if path.name.partition(".")[0] not in layers:
                _remove(path)

    def _link(self, path: Path, target: str) -> None:
        """Have a link lead there, at every moment to the old or to the new."""
        try:
            if str(path.readlink()) == target:
                return
        except OSError:
            pass
        draft = path.with_name(f".{secrets.token_hex(8)}")
        draft.symlink_to(target)
        draft.replace(path)
        self.written = True

    def _write(self, path: Path, content: bytes) -> None:
        """Have a file say this. It is synced with all others before it is listed."""
        if not _says(path, content):
            replace_file(path, content, sync=False)
            self.written = True

    def _split(self, layer_id: str) -> Path:
        return self._layers / f"{layer_id}{_SPLIT}"

    def _facts_of(self, layer_id: str) -> Path:
        return self._facts / f"{layer_id}.json"


def _says(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    """Remove what is not needed any more; what somebody has mounted in it stays until the next time."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
