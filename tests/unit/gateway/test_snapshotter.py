"""What the snapshotter decides without touching anything: names, labels, filters, mounts, and what it keeps in memory."""

from __future__ import annotations

import asyncio

import pytest

from pullonce.errors import PullFailed
from schemas.events import LayerUnpacked, PullResolved, ResolvedLayer, Source
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from services.gateway.rpc.serving import CallError
from services.gateway.snapshotter.answers import Encoded, relabelled
from services.gateway.snapshotter.arrivals import Arrivals, LayerMissing, Resolved, Tell, layers_below
from services.gateway.snapshotter.filters import FilterInvalid, asks_for, passes
from services.gateway.snapshotter.labels import LabelInvalid, reference_of, root_owner, target_of
from services.gateway.snapshotter.mounts import mount_of
from services.gateway.snapshotter.records import REF, Kind, Record, chain_named, name_of, variant_of
from services.gateway.snapshotter.table import RecordTable

A, B, C = (ChainID("sha256:" + digit * 64) for digit in "abc")
MANIFEST = "sha256:" + "d" * 64
IMAGE, MANIFEST_LABEL = "containerd.io/snapshot/cri.image-ref", "containerd.io/snapshot/cri.manifest-digest"
UID, GID = "containerd.io/snapshot/uidmapping", "containerd.io/snapshot/gidmapping"


def record(name: str, kind: Kind = Kind.COMMITTED, **more: object) -> Record:
    return Record(name=name, kind=kind, created=1_700_000_000_000_000_001, updated=1, **more)  # type: ignore[arg-type]


def test_a_name_says_which_layer_it_is_unless_it_is_a_variant() -> None:
    assert chain_named(name_of(A)) == A
    assert chain_named(variant_of(A, "beef")) is None and variant_of(A, "beef") != variant_of(A, "cafe")
    assert chain_named("default/3/extract-1 sha256:abc") is None


@pytest.mark.parametrize(
    ("labels", "reference"),
    [
        ({IMAGE: "redis:7", MANIFEST_LABEL: MANIFEST}, f"docker.io/library/redis@{MANIFEST}"),
        ({IMAGE: f"localhost:5000/a/b:1@{MANIFEST}", MANIFEST_LABEL: MANIFEST}, f"localhost:5000/a/b@{MANIFEST}"),
        ({IMAGE: "redis:7"}, ""),
        ({MANIFEST_LABEL: MANIFEST}, ""),
        ({IMAGE: "no image!", MANIFEST_LABEL: MANIFEST}, ""),
        ({IMAGE: "redis", MANIFEST_LABEL: "sha256:short"}, ""),
        ({}, ""),
    ],
)
def test_labels_name_an_image_by_the_digest_of_its_manifest_or_not_at_all(labels: dict[str, str], reference: str) -> None:
    assert reference_of(labels) == reference


def test_the_layer_that_is_wanted_is_a_chain_id_or_none() -> None:
    assert target_of({REF: A}) == A
    assert target_of({}) is None and target_of({REF: "../../etc"}) is None and target_of({REF: "sha256:../../etc"}) is None


@pytest.mark.parametrize(
    ("uid", "gid", "owner"),
    [("0:100000:65536", "0:200000:65536", (100000, 200000)), ("1:5:10,0:7:1", "0:0:4294967295", (7, 0))],
)
def test_root_of_a_user_namespace_is_somebody_on_this_machine(uid: str, gid: str, owner: tuple[int, int]) -> None:
    assert root_owner({UID: uid, GID: gid}) == owner


def test_without_a_mapping_root_is_root() -> None:
    assert root_owner({}) is None


@pytest.mark.parametrize("labels", [{UID: "0:1:1"}, {UID: "1:1:1", GID: "0:1:1"}, {UID: "x", GID: "0:1:1"}, {UID: "", GID: ""}])
def test_a_mapping_that_does_not_say_who_root_is_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(LabelInvalid, match="mapping"):
        root_owner(labels)


LAYER = record(name_of(B), parent=name_of(A), chain_id=B, labels={REF: B, "a.b/c": "d,e"})
CONTAINER = record("default/7/box", Kind.ACTIVE, parent=name_of(B), directory=4)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], [LAYER, CONTAINER]),
        ([f'labels."containerd.io/snapshot.ref"=={B},parent=="{name_of(A)}"'], [LAYER]),
        ([f'labels."containerd.io/snapshot.ref"=={B},parent==""'], []),
        (["kind==Active"], [CONTAINER]),
        (["kind!=Active"], [LAYER]),
        (["name~=^default/"], [CONTAINER]),
        (['labels."a.b/c"'], [LAYER]),
        (['labels."a.b/c"=="d,e"'], [LAYER]),
        (["name==nobody", "kind==Active"], [CONTAINER]),
    ],
)
def test_filters_let_through_what_they_say(filters: list[str], found: list[Record]) -> None:
    assert [each for each in (LAYER, CONTAINER) if passes(filters)(each)] == found


@pytest.mark.parametrize("text", ["size>3", "colour==red", "labels==x", "name~=("])
def test_a_filter_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(FilterInvalid):
        passes([text])(LAYER)


def test_what_containerd_asks_after_a_prepare_is_known_by_sight() -> None:
    assert asks_for([f'labels."containerd.io/snapshot.ref"=={B},parent=="{name_of(A)}"']) == (B, name_of(A))
    assert asks_for([f'labels."containerd.io/snapshot.ref"=={B},parent==""']) == (B, "")
    assert asks_for([]) is None and asks_for(["kind==Active"]) is None


@pytest.mark.parametrize(
    ("kind", "lower", "labels", "expected"),
    [
        (Kind.ACTIVE, [], {}, ("bind", "/own/fs", ("rw", "rbind"))),
        (Kind.VIEW, [], {}, ("bind", "/own/fs", ("ro", "rbind"))),
        (Kind.VIEW, ["/l/A"], {}, ("bind", "/l/A", ("ro", "rbind"))),
        (Kind.VIEW, ["/l/A", "/l/B"], {}, ("overlay", "overlay", ("lowerdir=/l/A:/l/B", "index=off"))),
        (
            Kind.ACTIVE,
            ["/l/A"],
            {},
            ("overlay", "overlay", ("workdir=/own/work", "upperdir=/own/fs", "lowerdir=/l/A", "index=off")),
        ),
        (
            Kind.ACTIVE,
            ["/l/A"],
            {UID: "0:1:2", GID: "0:3:4"},
            (
                "overlay",
                "overlay",
                ("uidmap=0:1:2", "gidmap=0:3:4", "workdir=/own/work", "upperdir=/own/fs", "lowerdir=/l/A", "index=off"),
            ),
        ),
    ],
)
def test_how_a_snapshot_is_mounted(
    kind: Kind, lower: list[str], labels: dict[str, str], expected: tuple[str, str, tuple[str, ...]]
) -> None:
    made = mount_of(record("x", kind, labels=labels), lower, "/own", ["index=off"])
    assert (made.type, made.source, made.options) == expected


def test_a_table_knows_children_layers_and_references() -> None:
    bottom = record(name_of(A), chain_id=A, reference="r@1")
    table = RecordTable([bottom, LAYER, CONTAINER])
    assert table.has_children(name_of(B)) and not table.has_children(CONTAINER.name)
    assert table.layer(B, name_of(A)) is LAYER and table.layer(B, "") is None
    assert table.below(CONTAINER.name) == [LAYER, bottom] and table.below(bottom.name) == []
    assert table.named_by("r@1") == 1 and table.counts() == {"layers": 2, "unpacked_by_containerd": 0, "containers": 1}
    table.drop(CONTAINER.name)
    table.drop(LAYER.name)
    assert not table.has_children(name_of(B)) and table.layer(B, name_of(A)) is None and list(table) == [bottom]
    table.drop(bottom.name)
    assert table.named_by("r@1") == 0 and len(table) == 0


def test_labels_change_as_the_mask_says() -> None:
    before = {"a": "1", "b.c": "2"}
    assert relabelled(before, {"z": "9"}, []) == {"z": "9"}
    assert relabelled(before, {"z": "9"}, ["labels"]) == {"z": "9"}
    assert relabelled(before, {"b.c": "3"}, ["labels.b.c", "labels.a"]) == {"b.c": "3"}
    with pytest.raises(CallError, match="cannot be changed"):
        relabelled(before, {}, ["parent"])


def test_a_list_that_was_encoded_is_encoded_again_only_where_a_record_changed() -> None:
    encoded = Encoded()
    first = encoded.response([LAYER, CONTAINER])
    changed = record(CONTAINER.name, Kind.ACTIVE, parent=name_of(B), directory=4, labels={"new": "1"})
    assert encoded.response([LAYER, CONTAINER]) == first and encoded.response([LAYER, changed]) != first
    encoded.forget([LAYER.name])
    assert len(encoded) == 1


# -- arrivals --------------------------------------------------------------------------------------------------------------


def resolved(*chain_ids: ChainID) -> PullResolved:
    blob = Descriptor(media_type="m", digest=Digest(MANIFEST), size=1)
    return PullResolved(
        reference="localhost:5000/a:1", flight="f" * 20, opened=1, platform="linux/amd64",
        source=Source(registry="localhost:5000", repository="a"), digest=Digest(MANIFEST), manifest=blob, config=blob,
        layers=tuple(ResolvedLayer(blob=blob, chain_id=chain_id) for chain_id in chain_ids),
    )  # fmt: skip


class Pulls:
    """One image's pull, carried on by the test."""

    def __init__(self) -> None:
        self.begun = 0
        self.withdrawn = 0
        self.left = asyncio.Event()
        self.there: set[ChainID] = set()
        self.tell: Tell = print
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def pull(self, reference: str, tell: Tell) -> None:
        self.begun += 1
        self.tell = tell
        try:
            await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.withdrawn += 1
            self.left.set()
            raise

    def unpack(self, chain_id: ChainID) -> None:
        self.there.add(chain_id)
        self.tell(LayerUnpacked(chain_id=chain_id, diff_id=DiffID(chain_id), revision=1))


def test_a_layer_is_waited_for_until_it_is_there_and_no_longer() -> None:
    async def trial() -> None:
        pulls = Pulls()
        arrivals = Arrivals(pulls.pull, pulls.there.__contains__)
        asked = asyncio.create_task(arrivals.layers("r"))
        waits = [asyncio.create_task(arrivals.wait("r", A)) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pulls.tell(resolved(A, B))
        assert await asked == {A: "", B: A}
        pulls.unpack(A)
        await asyncio.gather(*waits)
        assert pulls.begun == 1 and not pulls.end.done(), "the other layer is still on its way"
        await arrivals.close()

    asyncio.run(trial())


def test_a_pull_is_withdrawn_when_the_last_who_waits_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.snapshotter.arrivals.LEFT", 0.0)

    async def trial() -> None:
        pulls = Pulls()
        arrivals = Arrivals(pulls.pull, pulls.there.__contains__)
        waits = [asyncio.create_task(arrivals.wait("r", A)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number, each in enumerate(waits):
            assert pulls.withdrawn == 0, f"{number} had left"
            each.cancel()
            await asyncio.gather(each, return_exceptions=True)
        await asyncio.wait_for(pulls.left.wait(), 10)
        await arrivals.close()

    asyncio.run(trial())


def test_who_waits_for_what_cannot_come_is_told_why() -> None:
    async def trial() -> None:
        pulls = Pulls()
        arrivals = Arrivals(pulls.pull, pulls.there.__contains__)
        wait = asyncio.create_task(arrivals.wait("r", A))
        asked = asyncio.create_task(arrivals.layers("r"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pulls.end.set_exception(PullFailed("the registry says no", code="DENIED"))
        with pytest.raises(LayerMissing, match=r"the registry says no \(DENIED\)"):
            await wait
        assert await asked is None
        pulls.end = asyncio.get_running_loop().create_future()
        wait = asyncio.create_task(arrivals.wait("r", A))  # no failure is remembered
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pulls.begun == 2
        pulls.end.set_result(None)
        with pytest.raises(LayerMissing, match="none of its layers"):
            await wait

    asyncio.run(trial())


def test_an_image_that_is_not_resolved_in_time_is_left_to_containerd() -> None:
    async def trial() -> None:
        pulls = Pulls()
        arrivals = Arrivals(pulls.pull, pulls.there.__contains__)
        assert await arrivals.layers("r", within=0.01) is None
        await arrivals.close()

    asyncio.run(trial())


def test_the_log_tells_of_which_image_a_layer_is() -> None:
    known = Resolved()
    known.take(resolved(A, B))
    assert known.image_of(B) == f"localhost:5000/a@{MANIFEST}" and known.image_of(C) == ""
    assert known.below(B) == A and known.below(A) == "" and known.below(C) is None
    assert layers_below((A, B, C)) == {A: "", B: A, C: B}
