"""The published language: derived files are up to date, examples are true, readers are lenient where they promise it."""

import json
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from schemas import claims, events, ledger, orders, progress, subjects
from schemas.derive import asyncapi, core_channels, export
from schemas.derive.json_schema import Json, answer_kind, file_name
from schemas.derive.samples import SAMPLES
from schemas.roles import QUESTIONS, ROLES, Message
from schemas.routing import event_subject, order_subject
from schemas.subjects import flight_of

PROGRESS = {
    "blob.progress": progress.BlobProgress,
    "layer.progress": progress.LayerProgress,
    "pull.progress": progress.PullProgress,
}
MESSAGES = {**events.EVENTS, **orders.ORDERS, **PROGRESS}
STORED = sorted(events.EVENTS.keys() | orders.ORDERS.keys())


def read(kind: str, body: bytes) -> Message:
    """A message of some kind, as its reader takes it."""
    match SAMPLES[kind]:
        case events.Event() as event:
            return events.decode(event_subject(event), body)
        case orders.Order() as order:
            return orders.decode(order_subject(order), body)
        case _:
            return progress.decode(body)


def example(kind: str) -> bytes:
    return (export.HERE / "examples" / f"{kind}.json").read_bytes()


def schema(kind: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((export.HERE / "json" / file_name(kind)).read_bytes())
    return found


# -- what is derived ---------------------------------------------------------------------------------------------------


def test_the_committed_files_are_what_is_derived() -> None:
    assert export.differences() == []


def test_export_writes_what_is_missing_and_removes_what_is_derived_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "blob.eaten.schema.json").write_text("{}")
    assert "json/blob.eaten.schema.json: derived from nothing" in export.differences(tmp_path)
    assert "asyncapi.yaml: missing" in export.differences(tmp_path)
    export.write(tmp_path)
    assert export.differences(tmp_path) == []
    (tmp_path / "asyncapi.yaml").write_text("asyncapi: 2.6.0\n")
    assert export.differences(tmp_path) == ["asyncapi.yaml: changed"]


def test_export_checks_from_the_command_line() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "schemas.derive.export", "--check"],
        cwd=export.HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_every_message_has_one_example() -> None:
    assert {kind: type(sample) for kind, sample in SAMPLES.items()} == MESSAGES


# -- examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_an_example_is_read_and_written_without_loss(kind: str) -> None:
    message = read(kind, example(kind))
    assert message == SAMPLES[kind]
    assert json.loads(msgspec.json.encode(message)) == json.loads(example(kind))


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_an_example_fits_its_json_schema(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    validator = jsonschema.Draft202012Validator(schema(kind))
    validator.validate(json.loads(example(kind)))
    validator.validate({**json.loads(example(kind)), "a field of tomorrow": [1, {"two": None}]})
    assert not validator.is_valid({**json.loads(example(kind)), "type": "pull.imagined"})


@pytest.mark.parametrize("subject", QUESTIONS)
def test_an_answer_has_a_json_schema(subject: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(answer_kind(subject)))


@pytest.mark.parametrize("kind", sorted(MESSAGES | core_channels.KINDS))
def test_a_json_schema_is_self_contained_and_says_what_its_message_means(kind: str) -> None:
    found = schema(kind)
    definitions = found.get("$defs", {})
    assert isinstance(definitions, dict)
    inner = json.dumps(found).split('"$ref": "')[1:]
    assert {reference.partition('"')[0] for reference in inner} == {f"#/$defs/{name}" for name in definitions}
    assert found["$id"] == f"{kind}.schema.json"
    assert str(found["description"]).strip().endswith((".", "?"))


def test_the_examples_tell_one_consistent_pull() -> None:
    resolved = SAMPLES["pull.resolved"]
    assert isinstance(resolved, events.PullResolved)
    base, top = resolved.layers
    assert str(base.chain_id) == base.diff_id
    assert top.chain_id == "sha256:" + sha256(f"{base.chain_id} {top.diff_id}".encode()).hexdigest()
    assert resolved.flight == flight_of(resolved.reference, {"platform": "linux/amd64"})


# -- readers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_unknown_fields_are_skipped_at_every_depth(kind: str) -> None:
    def grown(value: Json) -> Json:
        match value:
            case dict():
                return {name: grown(inner) for name, inner in value.items()} | {"of_tomorrow": [{"x": 1.5}, None]}
            case list():
                return [grown(inner) for inner in value]
            case _:
                return value

    body = json.loads(example(kind))
    # `left_out` is a map, where every name means something.
    kept = {name: body[name] for name in ("left_out",) if name in body}
    assert read(kind, json.dumps(grown(body) | kept).encode()) == SAMPLES[kind]


@pytest.mark.parametrize("kind", STORED)
def test_the_subject_stands_in_for_a_missing_type(kind: str) -> None:
    body = json.loads(example(kind))
    del body["type"]
    assert read(kind, json.dumps(body).encode()) == SAMPLES[kind]
    jsonschema.Draft202012Validator(schema(kind)).validate(body)


def test_progress_without_a_type_is_none() -> None:
    body = {"digest": DIGEST.decode(), "done": 1}
    assert not jsonschema.Draft202012Validator(schema("blob.progress")).is_valid(body)
    with pytest.raises(msgspec.MsgspecError):
        progress.decode(json.dumps(body).encode())


def test_the_shortest_request_is_enough() -> None:
    assert events.decode("pull.requested", b'{"reference": "redis:latest"}') == events.PullRequested(reference="redis:latest")


DIGEST = b"sha256:" + b"0" * 64

MALFORMED = [
    ("pull.imagined.default.x", b"{}", "no event type is called 'pull.imagined'"),
    ("pull", b"{}", "no event type is called 'pull'"),
    ("", b"{}", "no event type is called ''"),
    ("fetch.blob.default.x.1", b"{}", "no event type is called 'fetch.blob'"),
    ("pull.requested", b"", "truncated"),
    ("pull.requested", b"redis:latest", "malformed"),
    ("pull.requested", b'"redis:latest"', "Expected `object`, got `str`"),
    ("pull.requested", b"[]", "Expected `object`, got `array`"),
    ("pull.requested", b"null", "Expected `object`, got `null`"),
    ("pull.requested", b"{}", "missing required field `reference`"),
    ("pull.requested", b'{"reference": ""}', "length >= 1"),
    ("pull.requested", b'{"reference": "%s"}' % (b"x" * 513), "length <= 512"),
    ("pull.requested", b'{"reference": 7}', "Expected `str`, got `int`"),
    ("pull.requested", b'{"reference": "redis"} {}', "trailing characters"),
    ("pull.requested", b'{"reference": "\xff"}', "utf-8"),
    ("pull.requested", b'{"reference": "\\ud800 and more"}', "surrogate"),
    ("pull.requested", b'\xef\xbb\xbf{"reference": "redis"}', "malformed"),
    ("pull.requested", b'{"reference": "redis", "platform": NaN}', "malformed"),
    ("pull.requested", b'{"reference": "redis", "platform": "%s"}' % (b"x" * 65), "length <= 64"),
    ("pull.requested", b'{"reference": "redis", "store": "a.b"}', "matching regex"),
    ("pull.requested", b'{"reference": "redis", "store": "a b"}', "matching regex"),
    ("pull.requested", b'{"reference": "redis", "store": "*"}', "matching regex"),
    ("pull.requested", b'{"reference": "redis", "store": ""}', "matching regex"),
    ("pull.requested", b'{"reference": "redis", "store": "default\\n"}', "matching regex"),
    ("pull.requested", b'{"reference": "redis", "credential": "hub\\n"}', "matching regex"),
    ("pull.requested", b'{"reference": "redis", "policy": "never"}', "Invalid enum value 'never'"),
    ("pull.requested", b'{"reference": "redis", "unpack": "yes"}', "Expected `bool`"),
    ("pull.requested", b'{"reference": "redis", "type": "pull.failed"}', "Invalid value 'pull.failed'"),
    ("pull.requested", b'{"reference": "redis", "deep": %s}' % (b"[" * 8_000 + b"]" * 8_000), "recursion"),
    ("pull.requested", b'{"reference": "redis", "more": "%s"}' % (b"x" * 16_384), "it may have 16384"),
    ("pull.cancelled.default.x.y", b'{"reference": "x", "flight": "0123456789abcdef", "request": -1}', ">= 0"),
    ("pull.cancelled.default.x.y", b'{"reference": "x", "flight": "0123456789abcdef\\n", "request": 1}', "matching regex"),
    ("blob.fetched.default.x", b'{"digest": "%s", "size": 1}' % DIGEST, "missing required field `revision`"),
    ("pull.requested.default.x.y", b'{"reference": "redis", "store": "other"}', "of the store 'default', its body of 'other'"),
    ("store.opened.other", b'{"incarnation": "x"}', "of the store 'other', its body of 'default'"),
    ("blob.fetched.default.x", b'{"digest": "sha256:00", "size": 1, "revision": 1}', "matching regex"),
    ("blob.fetched.default.x", b'{"digest": "%s", "size": 1, "revision": 1%s}' % (DIGEST, b"0" * 5000), "out of range"),
]


@pytest.mark.parametrize(("subject", "body", "reason"), MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_event_is_malformed_for_a_reason_of_one_line(subject: str, body: bytes, reason: str) -> None:
    with pytest.raises(events.Malformed) as caught:
        events.decode(subject, body)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("subject", "body", "reason"),
    [
        ("blob.fetched.default.x", b"{}", "no order type is called 'blob.fetched'"),
        ("fetch.blob.default.x.1", b"{}", "missing required field `blob`"),
        ("fetch.blob.default.x.1", b"{", "truncated"),
        ("fetch.blob.default.x.1", b'{"x": %s}' % (b"[" * 200_000), "recursion"),
        ("resolve.reference.default.x.1", b'{"revision": -1}', ">= 0"),
    ],
)
def test_what_is_no_order_is_malformed(subject: str, body: bytes, reason: str) -> None:
    with pytest.raises(events.Malformed, match=reason):
        orders.decode(subject, body)


# -- the AsyncAPI document ---------------------------------------------------------------------------------------------


def test_the_yaml_says_what_the_document_says() -> None:
    text = (export.HERE / "asyncapi.yaml").read_text("utf-8")
    assert yaml.safe_load(text) == json.loads(json.dumps(asyncapi.document()))


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": {}, "b": []}, [[1, [2, {"x": [True]}]], {"y": None}], {"no": "on", "1": 'é "quoted"\n\t: # -'}, {"a": [{}]}],
)
def test_the_yaml_writer_loses_nothing(value: object) -> None:
    assert yaml.safe_load(export.yaml_text(value)) == value


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = asyncapi.document()

    def references(value: object) -> list[str]:
        match value:
            case {"$ref": str(reference)}:
                return [reference]
            case dict():
                return [found for inner in value.values() for found in references(inner)]
            case list():
                return [found for inner in value for found in references(inner)]
            case _:
                return []

    for reference in references(document):
        if reference.startswith("./"):
            assert (export.HERE / reference).is_file()
            continue
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_every_subject_has_a_channel() -> None:
    document = asyncapi.document()
    addresses = {channel["address"].partition("{")[0].rstrip(".") for channel in document["channels"].values()}
    fixed = {value for name, value in vars(subjects).items() if name.endswith("_SUBJECT")}
    streams = {each.partition(".*")[0] for name in ("EVENT", "PARKED") for each in getattr(subjects, f"{name}_SUBJECTS")}
    for subject in {each.partition("{")[0].rstrip(".>") for each in fixed | streams}:
        assert any(each == subject or each.startswith(f"{subject}.") for each in addresses), subject
    assert f"$KV.{subjects.CLAIMS_BUCKET}" in addresses
    used = {operation["channel"]["$ref"].partition("#/channels/")[2] for operation in document["operations"].values()}
    assert used == document["channels"].keys()


def test_every_question_of_the_ledger_and_every_claim_is_told() -> None:
    told = set(core_channels.KINDS.values())
    for module, base in ((ledger, ledger.Question), (ledger, ledger.Answer), (claims, msgspec.Struct)):
        classes = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, base)}
        assert classes - {base} <= told


def test_every_message_is_sent_by_one_part_and_read_by_another() -> None:
    # A caretaker says what others say too, of what it takes out of its store; a gateway is a client for others.
    sent = [cls for name, role in ROLES.items() if name not in ("caretaker", "gateway") for cls in role.sends]
    # A worker and a coordinator may both say that an order has failed: the one tried, the other withdrew it. That a layer is
    # lost, a fetcher may say too: whoever lists an image looks for it.
    assert Counter(sent) == Counter([*MESSAGES.values(), events.BlobFailed, events.LayerFailed, events.LayerLost])
    assert {cls for role in ROLES.values() for cls in role.receives} == set(MESSAGES.values())


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("pull.requested", "pull.requested.{store}.{image}.{flight}"),
        ("pull.completed", "pull.completed.{store}.{image}.{flight}"),
        ("blob.fetched", "blob.fetched.{store}.{digest}"),
        ("layer.unpacked", "layer.unpacked.{store}.{chain}"),
        ("store.opened", "store.opened.{store}"),
        ("resolve.reference", "resolve.reference.{store}.{flight}.{revision}"),
        ("fetch.blob", "fetch.blob.{store}.{digest}.{revision}"),
        ("unpack.layer", "unpack.layer.{store}.{chain}.{revision}"),
        ("record.image", "record.image.{store}.{flight}.{revision}"),
        ("blob.progress", "progress.{store}.{digest}"),
        ("pull.progress", "progress.{store}.{flight}"),
    ],
)
def test_an_address_has_a_hole_for_every_value(kind: str, address: str) -> None:
    assert asyncapi.address(SAMPLES[kind]) == address
