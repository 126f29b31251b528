"""Make tar-split of layers that have none, and keep it in the view."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from pullonce.expose.records import Layer, LayerFacts
from pullonce.expose.splitting import Splitters
from pullonce.expose.view import View
from pullonce.store.layout import Layout
from pullonce.store.splits import SplitDone, SplitJob


def make(layout: Layout, view: View, layers: Iterable[Layer], tell: Callable[[int, int], None]) -> dict[str, str]:
    """Read layers from their blobs; returns those that failed: layer id → why.

    Args:
        tell: called with the bytes of blobs that were read, and all there are to read.
    """
    ordered = sorted(layers, key=lambda each: -each.blob.size)
    jobs = [_job(layout, view, layer) for layer in ordered]
    read, whole = 0, sum(layer.blob.size for layer in ordered)
    failed: dict[str, str] = {}

    def done(number: int, what: SplitDone) -> None:
        view.keep(ordered[number], Path(jobs[number].target), _facts(ordered[number], what))

    def broken(number: int, why: str) -> None:
        failed[ordered[number].id] = f"the layer {ordered[number].blob.digest} cannot be shown: {why}"

    def progress(more: int) -> None:
        nonlocal read
        read += more
        tell(read, whole)

    if jobs:
        with Splitters() as splitters:
            splitters.make(jobs, done, broken, progress)
    return failed


def _job(layout: Layout, view: View, layer: Layer) -> SplitJob:
    return SplitJob(
        blob=str(layout.blob(layer.blob.digest)), media_type=layer.blob.media_type, diff_id=layer.diff_id,
        tree=str(layout.tree(layer.chain_id)), target=str(view.draft()),
    )  # fmt: skip


def _facts(layer: Layer, done: SplitDone) -> LayerFacts:
    return LayerFacts(
        diff_id=layer.diff_id, blob=layer.blob.digest, blob_size=layer.blob.size, size=done.size,
        compression=done.compression, uids=done.uids, gids=done.gids,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )  # fmt: skip
