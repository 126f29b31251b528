"""Pulls from a real docker-registry, counted in its access log."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os

import msgspec
import pytest

from pullonce.errors import Permanent
from pullonce.oci.digest import chain_ids
from pullonce.store.snapshots import Snapshots
from pullonce.store.uses import Uses
from schemas.events import CONTENT_MISSING, BlobLost, LayerLost, PullRecorded, PullResolved, PullUnrecorded, StoreOpened
from schemas.oci import DiffID
from schemas.orders import ResolveReference
from tests.integration.fetcher.conftest import FLIGHT, Opened, record_of
from tests.support.faulty import FaultyRegistry
from tests.support.images import Layer, image, index, layer, tar_of
from tests.support.registry import RegistryServer

LAYERS = [layer(tar_of({f"file-{n}": bytes([n]) * 20_000})) for n in range(3)]
FRESH = {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 4}


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "schema2"])
async def test_a_fresh_image_costs_one_head_one_manifest_and_one_get_a_blob(
    registry: RegistryServer, fetcher: Opened, docker: bool
) -> None:
    pushed = image(LAYERS, docker=docker)
    reference = registry.push("team/app", "1", pushed)
    async with fetcher() as f:
        resolved = await f.pull(reference)
        assert registry.counts() == FRESH
        assert resolved.digest == resolved.manifest.digest == pushed.digest
        assert resolved.platform == "linux/amd64"
        assert [each.blob.digest for each in resolved.layers] == pushed.layers
        assert [each.chain_id for each in resolved.layers] == chain_ids(DiffID(each.diff_id) for each in LAYERS)
        assert (resolved.flight, resolved.opened, resolved.revision) == ("0123456789abcdef", 7, 3)
        assert not resolved.recorded and not any(each.fetched or each.unpacked for each in resolved.layers)
        for digest, blob in pushed.blobs.items():
            assert f.content.read(digest, 1 << 20) == blob  # type: ignore[arg-type]
        assert f.content.read(resolved.digest, 1 << 20) == pushed.content


async def test_what_is_there_is_asked_for_once_by_its_tag_and_never_again(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS))
    async with fetcher() as f:
        first = await f.pull(reference)
        registry.forget()
        second = await f.resolve(reference)
        assert registry.counts() == {"HEAD manifests": 1}
        assert all(each.fetched for each in second.layers)
        assert not second.recorded, "listed without snapshots, and a pull may want them"
        for layer in first.layers:
            snapshot = Snapshots(f.content.root).directory(layer.chain_id)
            snapshot.mkdir()
            Snapshots(f.content.root).path(layer.chain_id).mkdir()
            (snapshot / "snapshot.json").write_text("{}")
        await f.handlers.record_image(record_of(first, unpacked=True))
        assert (await f.resolve(reference)).recorded
        assert (await f.fetch(first, first.layers[0].blob)).reused


async def test_if_not_present_asks_nothing_while_all_is_there(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS))
    async with fetcher() as f:
        first = await f.pull(reference, policy="if-not-present")
        registry.forget()
        second = await f.resolve(reference, policy="if-not-present")
        assert registry.counts() == {}
        assert (second.digest, second.config, len(second.layers)) == (first.digest, first.config, 3)
        f.content.discard(first.layers[1].blob.digest)
        third = await f.resolve(reference, policy="if-not-present")
        assert registry.counts() == {"HEAD manifests": 1}
        assert [each.fetched for each in third.layers] == [True, False, True]


async def test_a_moved_tag_is_seen_and_shared_layers_are_not_fetched_again(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS[:2]))
    async with fetcher() as f:
        await f.pull(reference)
        moved = image(LAYERS)
        registry.push("app", "1", moved)
        resolved = await f.pull(reference)
        assert resolved.digest == moved.digest
        assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 2}
        assert [record.digest for record in f.content.images.all()] == [moved.digest]


async def test_a_digest_is_fetched_at_once_and_checked_for_permission_when_it_is_there(
    registry: RegistryServer, fetcher: Opened
) -> None:
    pushed = image(LAYERS)
    reference = registry.push("app", "1", pushed).rpartition(":")[0] + f"@{pushed.digest}"
    async with fetcher() as f:
        assert (await f.pull(reference)).digest == pushed.digest
        assert registry.counts() == {"GET manifests": 1, "GET blobs": 4}
        registry.forget()
        await f.resolve(reference)
        assert registry.counts() == {"HEAD manifests": 1}


async def test_an_index_costs_one_manifest_more_and_gives_the_wanted_platform(
    registry: RegistryServer, fetcher: Opened
) -> None:
    arm, amd = image(LAYERS[:1], platform="linux/arm64"), image(LAYERS[1:], platform="linux/amd64")
    attestation = {**amd.descriptor(), "platform": {"os": "unknown", "architecture": "unknown"}}
    both = index([arm, amd], more=[attestation])
    reference = registry.push("app", "1", both)
    async with fetcher() as f:
        resolved = await f.pull(reference, platform="linux/arm64")
        assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 2, "GET blobs": 2}
        assert (resolved.digest, resolved.manifest.digest) == (both.digest, arm.digest)
        assert resolved.platform == "linux/arm64"
        registry.forget()
        other = await f.pull(reference, platform="linux/amd64")
        assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 3}
        assert other.manifest.digest == amd.digest
        assert {record.platform for record in f.content.images.all()} == {"linux/arm64", "linux/amd64"}
        with pytest.raises(Permanent, match=r"nothing for linux/s390x; available: linux/arm64, linux/amd64") as failed:
            await f.resolve(reference, platform="linux/s390x")
        assert failed.value.code == "platform.unavailable"


async def test_an_index_in_an_index_and_an_entry_without_a_platform(registry: RegistryServer, fetcher: Opened) -> None:
    arm, amd = image(LAYERS[:1], platform="linux/arm64"), image(LAYERS[1:], platform="linux/amd64")
    inner = index([amd])
    nameless = {**arm.descriptor()}
    outer = index([], more=[nameless, inner.descriptor()])
    registry.push("app", "inner", inner)
    registry.push("app", "arm", arm)
    reference = registry.push("app", "1", outer)
    async with fetcher() as f:
        assert (await f.resolve(reference, platform="linux/amd64")).manifest.digest == amd.digest
        assert (await f.resolve(reference, platform="linux/arm64")).manifest.digest == arm.digest
        with pytest.raises(Permanent, match="available: linux/arm64, linux/amd64"):
            await f.resolve(reference, platform="windows/amd64")


async def test_an_artifact_is_fetched_and_has_nothing_to_unpack(registry: RegistryServer, fetcher: Opened) -> None:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "", "size": 2, "data": "e30="}
    config["digest"] = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    chart = Layer(b"not a tar", "")
    entry = {"mediaType": "application/vnd.cncf.helm.chart", "digest": chart.digest, "size": len(chart.blob)}
    pushed = image([], extra={"config": config, "layers": [entry], "artifactType": "application/vnd.example"})
    pushed.blobs.clear()
    pushed.blobs.update({config["digest"]: b"{}", chart.digest: chart.blob})  # type: ignore[dict-item]
    reference = registry.push("chart", "1", pushed)
    async with fetcher() as f:
        resolved = await f.pull(reference)
        assert [(each.diff_id, each.chain_id) for each in resolved.layers] == [("", "")]
        assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 1}, "the config is in its descriptor"


async def test_an_image_without_layers_is_legal(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("empty", "1", image([]))
    async with fetcher() as f:
        assert (await f.pull(reference)).layers == ()


async def test_layers_and_diff_ids_must_go_together(registry: RegistryServer, fetcher: Opened) -> None:
    whole = image(LAYERS)
    torn = image(LAYERS, extra={"layers": whole.document["layers"][:2]})
    reference = registry.push("torn", "1", torn)
    async with fetcher() as f:
        with pytest.raises(Permanent, match="2 layers, and its config names 3") as failed:
            await f.resolve(reference)
    assert failed.value.code == "MANIFEST_INVALID"


@pytest.mark.parametrize("repository, tag", [("app", "nothing"), ("nothing", "1")])
async def test_an_unknown_manifest_is_an_answer_for_all_who_asked(
    registry: RegistryServer, fetcher: Opened, repository: str, tag: str
) -> None:
    registry.push("app", "1", image(LAYERS))
    async with fetcher() as f:
        with pytest.raises(Permanent, match=f"{repository}:{tag}.*404.*manifest unknown") as failed:
            await f.resolve(f"{registry.host}/{repository}:{tag}")
    assert (failed.value.code, failed.value.concerns) == ("MANIFEST_UNKNOWN", "source")


async def test_resolvers_and_fetches_at_once_ask_for_each_document_once(registry: RegistryServer, fetcher: Opened) -> None:
    both = index([image(LAYERS[:1], platform="linux/arm64"), image(LAYERS, platform="linux/amd64")])
    reference = registry.push("app", "1", both)
    async with fetcher() as one, fetcher() as two:
        pulls = [f.pull(reference, platform="linux/amd64") for f in (one, two) for _ in range(5)]
        await asyncio.gather(*pulls)
    assert registry.counts() == {"HEAD manifests": 10, "GET manifests": 2, "GET blobs": 4}


async def test_the_progress_of_a_fetch_begins_and_ends(registry: RegistryServer, fetcher: Opened) -> None:
    """Of a small blob only the end is said, unless it takes long (ADR 42)."""
    reference = registry.push("app", "1", image([layer(tar_of({"file": os.urandom(200_000)}))]))
    async with fetcher() as f:
        resolved = await f.pull(reference)
        said = [(each.state, each.done) for each in f.progress]
    assert said[0] == ("fetching", 0)
    assert said[-1] == ("verified", resolved.layers[0].blob.size)


async def test_a_wiped_store_begins_a_new_life(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS))
    async with fetcher() as f:
        resolved = await f.pull(reference)
        before = f.content.incarnation
        for path in sorted(f.content.root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        order = record_of(resolved)
        again = await f.pull(reference)
        assert f.content.incarnation not in ("", before)
        assert not any(each.fetched for each in again.layers)
        assert [record.reference for record in f.content.images.all()] == [order.reference]


async def test_an_image_is_listed_only_when_all_of_it_is_there(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS))
    async with fetcher() as f:
        resolved = await f.resolve(reference)
        facts = await f.handlers.record_image(record_of(resolved, unpacked=True))
        assert f.content.images.all() == []
    *lost, unrecorded = facts
    assert [type(fact) for fact in lost] == [BlobLost] * 3 + [LayerLost] * 3
    assert isinstance(unrecorded, PullUnrecorded) and unrecorded.code == CONTENT_MISSING


@pytest.mark.parametrize("what", ["manifest", "config"])
@pytest.mark.parametrize("how", ["damaged", "gone"])
async def test_documents_that_are_lost_before_the_listing_are_fetched_again(
    registry: RegistryServer, fetcher: Opened, what: str, how: str
) -> None:
    reference = registry.push("app", "1", image(LAYERS[:1]))
    async with fetcher() as f:
        resolved = await f.resolve(reference)
        await f.fetch(resolved, resolved.layers[0].blob)
        path = f.content.blob_path(getattr(resolved, what).digest)
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(b"x" * path.stat().st_size)
        order = record_of(resolved)
        facts = await f.handlers.record_image(order)
        assert [type(fact) for fact in facts] == [PullRecorded]
        assert f.content.has(getattr(resolved, what).digest)
        assert f.content.read(resolved.manifest.digest, 1 << 20), "right again"
        with_no_source = msgspec.structs.replace(order, source=None)
        f.content.blob_path(resolved.manifest.digest).unlink()
        with pytest.raises(Permanent, match="not in the store") as failed:
            await f.handlers.record_image(with_no_source)
        assert failed.value.code == "blob.missing"


async def test_a_new_life_is_told_by_the_first_order_that_does_not_fail(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS[:1]))
    async with fetcher() as f:
        resolved = await f.resolve(reference)
        for path in sorted(f.content.root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        with pytest.raises(Permanent):
            await f.handlers.record_image(msgspec.structs.replace(record_of(resolved), source=None))
        order = ResolveReference(reference=reference, flight=FLIGHT, opened=8, revision=9)
        opened, again = await f.handlers.resolve_reference(order)
        assert isinstance(opened, StoreOpened) and opened.incarnation == f.content.incarnation
        assert isinstance(again, PullResolved)
        assert len(await f.handlers.resolve_reference(order)) == 1, "once is enough"


async def test_what_a_flight_uses_is_noted_where_it_looks(registry: RegistryServer, fetcher: Opened) -> None:
    reference = registry.push("app", "1", image(LAYERS))
    async with fetcher() as f:
        resolved = await f.resolve(reference)
        (use,) = Uses(f.content.root).all()
    assert (use.flight, use.opened, use.image.manifest) == (resolved.flight, resolved.opened, resolved.manifest)
    assert use.image.chain_ids == tuple(layer.chain_id for layer in resolved.layers)


async def test_the_list_is_an_oci_index(registry: RegistryServer, fetcher: Opened) -> None:
    pushed = image(LAYERS)
    reference = registry.push("app", "1", pushed)
    async with fetcher() as f:
        await f.pull(reference)
        listed = json.loads((f.content.root / "index.json").read_bytes())
    entry = listed["manifests"][0]
    assert (listed["schemaVersion"], entry["digest"], entry["size"]) == (2, pushed.digest, len(pushed.content))
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == reference


async def test_events_stay_small_whatever_a_manifest_holds(fetcher: Opened) -> None:
    """300 layers that are offered at addresses of 2 kB, under types of 5 kB: the disk has the manifest."""
    layers = [layer(tar_of({str(number): b"x"})) for number in range(300)]
    made = image(layers)
    fields = made.document
    for each in fields["layers"]:
        each.update(urls=["https://a.example/" + "u" * 2000] * 2, mediaType=each["mediaType"] + "; " + "t" * 5000)
        each["annotations"] = {"a": "b" * 1000}
    odd = dataclasses.replace(made, content=json.dumps(fields).encode())
    async with FaultyRegistry(odd) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
    assert len(resolved.layers) == 300 and len(msgspec.json.encode(resolved)) < 200_000
    assert [each.blob.digest for each in resolved.layers] == [each.digest for each in layers]


async def test_a_failure_stays_small_whatever_an_index_holds(fetcher: Opened) -> None:
    """Ten thousand platforms, and none that is wanted: some of them are named."""
    entry = index([image([layer(tar_of({"a": b"a"}))])]).document["manifests"][0]
    entries = [{**entry, "platform": {"os": "linux", "architecture": f"a{number}"}} for number in range(10_000)]
    odd = dataclasses.replace(index([]), content=json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
    async with FaultyRegistry(odd) as registry, fetcher() as f:
        with pytest.raises(Permanent, match=r"linux/a0, .*, and 9980 more") as failed:
            await f.resolve(registry.reference, platform="linux/amd64")
        order = ResolveReference(reference=registry.reference, flight=FLIGHT, opened=7)
        assert len(msgspec.json.encode(f.handlers.give_up(order, failed.value))) < 3000
        long = Permanent("x" * 100_000 + "\x1b[2J", code="x")
        assert len(msgspec.json.encode(f.handlers.give_up(order, long))) < 3000
