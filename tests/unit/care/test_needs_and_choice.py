"""Which images may go, which uses count, and which snapshots are mounted: tables."""

import time

import pytest

from pullonce.care.choice import Listed, Retention, to_go
from pullonce.care.flights import ActiveFlights
from pullonce.care.mounted import mounted
from pullonce.store.images import ImageRecord
from pullonce.store.layout import short_name
from pullonce.store.uses import Use
from schemas.oci import ChainID, Descriptor, Digest
from schemas.status import FlightStatus, Status

SIZES = {"base": 100, "a": 10, "b": 20, "c": 30, "busy": 5}


def listed(name: str, used: float, *, kept: bool = False) -> Listed[str, str]:
    return Listed(name, used, kept, frozenset({"base", name}))


IMAGES = [listed("c", 3.0), listed("a", 1.0), listed("b", 2.0)]
ALL = 160


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        (Retention(), []),
        (Retention(unused_since=1.0), []),
        (Retention(unused_since=2.5), ["a", "b"]),
        (Retention(most_bytes=ALL), []),
        (Retention(most_bytes=ALL - 1), ["a"]),
        (Retention(most_bytes=ALL - 10), ["a"]),
        (Retention(most_bytes=ALL - 11), ["a", "b"]),
        (Retention(most_bytes=130), ["a", "b"]),
        (Retention(most_bytes=0), ["a", "b", "c"]),
        (Retention(unused_since=1.5, most_bytes=ALL - 10), ["a"]),
        (Retention(unused_since=1.5, most_bytes=ALL - 11), ["a", "b"]),
    ],
)
def test_the_longest_unused_go_first(limits: Retention, gone: list[str]) -> None:
    assert [each.image for each in to_go(IMAGES, [], SIZES, limits)] == gone


def test_what_is_kept_stays_and_counts() -> None:
    images = [listed("a", 1.0, kept=True), listed("b", 2.0), listed("c", 3.0)]
    assert [each.image for each in to_go(images, [], SIZES, Retention(unused_since=9.0))] == ["b", "c"]
    assert [each.image for each in to_go(images, ["busy"], SIZES, Retention(most_bytes=145))] == ["b"]
    assert [each.image for each in to_go(images, ["busy"], SIZES, Retention(most_bytes=144))] == ["b", "c"]


RECORD = ImageRecord(
    reference="docker.io/library/redis:latest",
    platform="linux/amd64",
    digest=Digest("sha256:" + "a" * 64),
    manifest=Descriptor(media_type="m", digest=Digest("sha256:" + "a" * 64), size=1),
    image_id=Digest("sha256:" + "b" * 64),
)


@pytest.mark.parametrize(
    ("flight", "opened", "age", "in_air"),
    [
        ("f1", 10, 0.0, True),
        ("f1", 10, 1e6, True),
        ("f1", 9, 0.0, False),
        ("f2", 11, 0.0, False),
        ("f2", 21, 0.0, True),
        ("f2", 20, 0.0, False),
        ("f2", 21, 7200.0, False),
        ("other-store", 10, 0.0, False),
    ],
)
def test_a_use_counts_while_its_flight_may_be_in_the_air(flight: str, opened: int, age: float, in_air: bool) -> None:
    flights = (
        FlightStatus(reference="redis", flight="f1", opened=10),
        FlightStatus(reference="redis", flight="other-store", opened=10, store="another"),
    )
    air = ActiveFlights(Status(position=20, flights=flights), "default")
    assert air.has(Use(flight=flight, opened=opened, image=RECORD, at=time.time() - age)) is in_air


def chain(letter: str) -> ChainID:
    return ChainID("sha256:" + letter * 64)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("", set()),
        ("36 35 0:50 / /m ro - overlay overlay ro,lowerdir={a}:{b}", {"a", "b"}),
        ("36 35 0:50 / /m ro - overlay overlay rw,lowerdir+=/stores/default/l/{a},upperdir=/u", {"a"}),
        (r"36 35 0:50 / /m ro - overlay overlay ro,lowerdir=/a\040b/l/{b}:/c/l/.empty", {"b"}),
        ("36 35 8:1 /stores/default/snapshots/sha256-{letters}/fs /m rw - ext4 /dev/sda1 rw", {"a"}),
        ("36 35 0:50 / /m ro - overlay overlay ro,lowerdir=/docker/l/{a}ABCDEF", set()),
    ],
)
def test_a_mount_table_names_snapshots(table: str, found: set[str]) -> None:
    text = table.format(a=short_name(chain("a")), b=short_name(chain("b")), letters="a" * 64)
    assert mounted(map(chain, "abc"), [text]) == set(map(chain, found))
