"""Records as containerd reads them, and changes of labels as it asks for them."""

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from grpclib.const import Status

from services.gateway.protocols import snapshots_pb2 as pb
from services.gateway.rpc.serving import CallError
from services.gateway.snapshotter.records import Record


def info(record: Record) -> pb.Info:
    """What is known of a snapshot."""
    return pb.Info(
        name=record.name, parent=record.parent, kind=record.kind.name, labels=record.labels,
        created_at=_time(record.created), updated_at=_time(record.updated),
    )  # fmt: skip


def _time(nanoseconds: int) -> Timestamp:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=rest)


class Encoded:
    """Answers of List, from parts that are encoded once: containerd's collector asks for all records, with a lock held."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Record, bytes]] = {}

    def response(self, records: Iterable[Record]) -> bytes:
        """A `ListSnapshotsResponse`: the encoding of a repeated field is that of its values one after another."""
        return b"".join(map(self._part, records))

    def forget(self, known: Iterable[str]) -> None:
        """Drop what belongs to no record any more."""
        self._parts = {name: self._parts[name] for name in known if name in self._parts}

    def __len__(self) -> int:
        return len(self._parts)

    def _part(self, record: Record) -> bytes:
        kept = self._parts.get(record.name)
        if kept is None or kept[0] is not record:
            encoded = pb.ListSnapshotsResponse(info=[info(record)]).SerializeToString()
            kept = self._parts[record.name] = (record, encoded)
        return kept[1]


def relabelled(labels: dict[str, str], wanted: dict[str, str], paths: Sequence[str]) -> dict[str, str]:
    """Labels after an Update. Without a mask all are replaced; one that is named and not given goes.

    Raises:
        Refused: the mask names what cannot be changed.
    """
    if not paths:
        return wanted
    made = dict(labels)
    for path in paths:
        field, _, key = path.partition(".")
        if path == "labels":
            made = dict(wanted)
        elif field == "labels" and key:
            made.pop(key, None)
            if wanted.get(key):
                made[key] = wanted[key]
        else:
            raise CallError(
                Status.INVALID_ARGUMENT, f"{path!r} of a snapshot cannot be changed: expected labels or labels.<key>"
            )
    return made
