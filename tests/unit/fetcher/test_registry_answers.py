"""What a registry's answer means: failures, waits, parts of a blob, documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pullonce.errors import Permanent, Retryable
from schemas.oci import Descriptor, DiffID, Digest, Index, Manifest
from services.fetcher.documents.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    check_descriptor,
    check_stack,
    in_oci_types,
    read_document,
    read_layers,
)
from services.fetcher.remote.failures import explain_blob, failure, redacted, retry_after
from services.fetcher.remote.notices import Notices
from services.fetcher.remote.ranges import bytes_to_skip
from tests.support.images import digest_of, image, index, layer, tar_of

NOW = 1_000_000_000.0


def told(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {"x": 1}}]}).encode()


@pytest.mark.parametrize(
    "asked, status, body, kind, code, concerns",
    [
        ("manifest", 404, told("MANIFEST_UNKNOWN", "no"), Permanent, "MANIFEST_UNKNOWN", "source"),
        ("manifest", 404, told("NAME_UNKNOWN", "no"), Permanent, "NAME_UNKNOWN", "source"),
        ("manifest", 404, told("NOT_FOUND", "no"), Permanent, "MANIFEST_UNKNOWN", "source"),
        ("blob", 404, b"<html>", Permanent, "BLOB_UNKNOWN", "source"),
        ("blob", 410, b"", Permanent, "BLOB_UNKNOWN", "source"),
        ("manifest", 401, told("UNAUTHORIZED", "no"), Permanent, "UNAUTHORIZED", "credential"),
        ("manifest", 403, b"", Permanent, "DENIED", "credential"),
        ("token", 401, b"", Permanent, "UNAUTHORIZED", "credential"),
        ("blob", 400, told("DIGEST_INVALID", "no"), Permanent, "DIGEST_INVALID", "source"),
        ("blob", 418, b"", Permanent, "registry.refused", "source"),
        ("blob", 429, b"", Retryable, "TOOMANYREQUESTS", "credential"),
        ("blob", 429, told("TOOMANYREQUESTS", "slow down"), Retryable, "TOOMANYREQUESTS", "credential"),
        ("blob", 503, b"\xff", Retryable, "registry.unavailable", "source"),
        ("manifest", 500, b'{"errors":null}', Retryable, "registry.unavailable", "source"),
        ("blob", 499, b"", Retryable, "registry.unavailable", "source"),
        ("blob", 501, b"", Retryable, "registry.unavailable", "source"),
        ("manifest", 520, b"", Retryable, "registry.unavailable", "source"),
        ("token", 530, b"", Retryable, "registry.unavailable", "source"),
        ("manifest", 504, b'{"errors":[{"message":null}]}', Retryable, "registry.unavailable", "source"),
        ("blob", 503, b'{"errors":' + b"[" * 60_000, Retryable, "registry.unavailable", "source"),
    ],
)
def test_failure(asked: Any, status: int, body: bytes, kind: type, code: str, concerns: str) -> None:
    found = failure(asked, "host/app:1", status, body, after=3.0)
    assert type(found) is kind
    assert (found.code, found.concerns) == (code, concerns)
    assert str(found).startswith(f"host/app:1: the registry answers {status}")
    if isinstance(found, Retryable):
        assert found.after == 3.0


def test_what_the_registry_says_is_passed_on_in_one_line() -> None:
    found = failure("manifest", "x", 404, told("MANIFEST_UNKNOWN", "line one\nline two " + "z" * 1000))
    assert "404: line one line two zz" in str(found) and "\n" not in str(found) and len(str(found)) < 400


@pytest.mark.parametrize(
    "header, seconds",
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        ("100000", 300.0),
        ("9" * 400, 300.0),
        ("Sun, 09 Sep 2001 01:47:00 GMT", 20.0),
        ("Sun, 09 Sep 2001 01:46:00 GMT", 0.0),
        ("Sun, 09 Sep 2029 01:46:00 GMT", 300.0),
        ("soon", None),
        ("-5", None),
        ("\u00b2", None),
        ("\u0663", None),
        ("Sun, 09 Sep 99999999999 01:46:00 GMT", None),
        ("(" * 5000, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_redacted() -> None:
    assert redacted("https://user:pw@s3.example.com/b/x?X-Amz-Signature=1#y") == "https://s3.example.com/b/x"


BLOB = Descriptor(media_type="", digest=Digest(digest_of(b"")), size=100)


@pytest.mark.parametrize(
    "status, headers, position, skip",
    [
        (200, {}, 0, 0),
        (200, {"Content-Length": "100"}, 40, 40),
        (206, {"Content-Range": "bytes 40-99/100"}, 40, 0),
        (206, {"Content-Range": "bytes 30-99/*"}, 40, 10),
        (206, {"Content-Range": "bytes 50-99/100"}, 40, None),
        (206, {"Content-Range": "nonsense"}, 40, None),
        (206, {}, 40, None),
        (416, {"Content-Range": "bytes */100"}, 40, None),
    ],
)
def test_bytes_to_skip(status: int, headers: dict[str, str], position: int, skip: int | None) -> None:
    assert bytes_to_skip(status, headers, position, BLOB) == skip


@pytest.mark.parametrize(
    "status, headers",
    [(200, {"Content-Length": "99"}), (200, {"Content-Length": "101"}), (206, {"Content-Range": "bytes 0-98/99"})],
)
def test_a_blob_of_another_size(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(Permanent, match="its manifest says 100") as failed:
        bytes_to_skip(status, headers, 0, BLOB)
    assert failed.value.code == "size.mismatch"


def test_what_is_encoded_says_nothing_of_the_blobs_size() -> None:
    told = {"Content-Encoding": "gzip", "Content-Length": "60"}
    assert bytes_to_skip(200, told, 0, BLOB, encoded=True) == 0
    assert bytes_to_skip(206, {"Content-Range": "bytes 40-59/60"}, 40, BLOB, encoded=True) is None, "a part of something else"


LAYER = layer(tar_of({"a": b"b"}))
IMAGE, DOCKER = image([LAYER]), image([LAYER], docker=True)


def without_type(content: bytes) -> bytes:
    return json.dumps({key: value for key, value in json.loads(content).items() if key != "mediaType"}).encode()


@pytest.mark.parametrize(
    "content, content_type, media_type, kind",
    [
        (IMAGE.content, OCI_MANIFEST, OCI_MANIFEST, Manifest),
        (IMAGE.content, f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST, Manifest),
        (IMAGE.content, "application/json", OCI_MANIFEST, Manifest),
        (IMAGE.content, "", OCI_MANIFEST, Manifest),
        (without_type(IMAGE.content), OCI_MANIFEST, OCI_MANIFEST, Manifest),
        (without_type(IMAGE.content), "text/plain", OCI_MANIFEST, Manifest),
        (DOCKER.content, DOCKER_MANIFEST, DOCKER_MANIFEST, Manifest),
        (without_type(DOCKER.content), DOCKER_MANIFEST, DOCKER_MANIFEST, Manifest),
        (index([IMAGE]).content, OCI_INDEX, OCI_INDEX, Index),
        (index([IMAGE], docker=True).content, DOCKER_LIST, DOCKER_LIST, Index),
        (without_type(index([IMAGE]).content), "", OCI_INDEX, Index),
        (IMAGE.content, DOCKER_MANIFEST, OCI_MANIFEST, Manifest),
        (DOCKER.content, OCI_MANIFEST, DOCKER_MANIFEST, Manifest),
    ],
)
def test_read_document(content: bytes, content_type: str, media_type: str, kind: type) -> None:
    found, document = read_document(content, content_type, "x")
    assert (found, type(document)) == (media_type, kind)


def changed(**fields: Any) -> bytes:
    return json.dumps({**IMAGE.document, **fields}).encode()


@pytest.mark.parametrize(
    "content, content_type, code, why",
    [
        (b"", "", "MANIFEST_INVALID", "no JSON"),
        (b"[]", "", "MANIFEST_INVALID", "no JSON object"),
        (b"[" * 100_000, "", "MANIFEST_INVALID", "no JSON"),
        (b"{}", "", "MANIFEST_INVALID", "names no config"),
        (changed(manifests=[]), "", "MANIFEST_INVALID", "at once"),
        (changed(fsLayers=[]), "", "manifest.schema1", "rebuild the image"),
        (changed(schemaVersion=1), "", "manifest.schema1", "rebuild the image"),
        (
            IMAGE.content,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "manifest.schema1",
            "rebuild the image",
        ),
        (changed(schemaVersion=3), "", "MANIFEST_INVALID", "schemaVersion is 3"),
        (IMAGE.content, OCI_INDEX, "MANIFEST_INVALID", "the registry says"),
        (changed(Manifests=[]), "", "MANIFEST_INVALID", "at once"),
        (changed(FsLayers=None), "", "manifest.schema1", "rebuild the image"),
        (changed(layers={}), "", "MANIFEST_INVALID", r"\$.layers is an object, expected an array"),
        (changed(layers=[{**IMAGE.document["layers"][0], "size": "1_0"}]), "", "MANIFEST_INVALID", "size is a text"),
        (changed(layers=[{**IMAGE.document["layers"][0], "size": 1.0}]), "", "MANIFEST_INVALID", "size is a number"),
        (changed(layers=[{**IMAGE.document["layers"][0], "size": 1 << 63}]), "", "MANIFEST_INVALID", "64 bits"),
        (changed(layers=[None]), "", "DIGEST_INVALID", "no digest"),
        (changed(mediaType=OCI_INDEX), OCI_INDEX, "MANIFEST_INVALID", "its fields say otherwise"),
        (changed(mediaType="image/png"), "", "MANIFEST_INVALID", "neither a manifest nor an index"),
        (changed(mediaType=7), "", "MANIFEST_INVALID", "neither a manifest nor an index"),
        (changed(config={"mediaType": "", "digest": "../../etc/passwd", "size": 1}), "", "DIGEST_INVALID", "no digest"),
        (changed(config={"mediaType": "", "digest": digest_of(b""), "size": -1}), "", "MANIFEST_INVALID", "the size -1"),
    ],
)
def test_documents_that_are_refused(content: bytes, content_type: str, code: str, why: str) -> None:
    with pytest.raises(Permanent, match=why) as failed:
        read_document(content, content_type, "x")
    assert (failed.value.code, failed.value.concerns) == (code, "source")


def odd(**fields: Any) -> bytes:
    """The image's manifest with something else in its only layer."""
    return changed(layers=[{**IMAGE.document["layers"][0], **fields}])


@pytest.mark.parametrize(
    "content",
    [
        changed(annotations=None),
        changed(annotations={"a": None}),
        changed(mediaType=None),
        changed(artifactType=None),
        changed(subject=None, unheard_of=[{}]),
        changed(schemaVersion=None),
        IMAGE.content.replace(b'"schemaVersion":2,', b""),
        odd(annotations=None),
        odd(urls=None),
        odd(urls=[None]),
        odd(data=None, platform=None),
        changed(annotations={"a": "X"}).replace(b"X", b"\xff\xfe"),
        changed(annotations={"a": "X"}).replace(b"X", b"\\ud800"),
        IMAGE.content.replace(b'"layers"', b'"Layers"').replace(b'"size"', b'"SIZE"'),
        IMAGE.content.replace(b'"layers"', '"layer\u017f"'.encode()),
    ],
)
def test_documents_that_others_take(content: bytes) -> None:
    assert content != IMAGE.content
    _, document = read_document(content, OCI_MANIFEST, "x")
    assert isinstance(document, Manifest)
    assert [layer.digest for layer in document.layers] == [LAYER.digest]
    assert document.config.size == IMAGE.document["config"]["size"]
    assert in_oci_types(content) is None


def test_an_index_is_read_though_one_of_its_entries_is_of_the_future() -> None:
    entry = index([IMAGE]).document["manifests"][0]
    content = json.dumps({"schemaVersion": 2, "manifests": [{**entry, "digest": "blake3:00"}, None, entry]}).encode()
    _, document = read_document(content, OCI_INDEX, "x")
    assert isinstance(document, Index)
    good = [each for each in document.manifests if each.digest == IMAGE.digest]
    assert len(document.manifests) == 3 and len(good) == 1
    check_descriptor(good[0], "x")
    with pytest.raises(Permanent, match="no digest"):
        check_descriptor(document.manifests[0], "x")


def layers_of(content: bytes, config: bytes) -> list[str]:
    _, document = read_document(content, "", "x")
    assert isinstance(document, Manifest)
    return list(read_layers(document, config, "x")[1])


def config_of(*diff_ids: str) -> bytes:
    return json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()


A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def typed(*media_types: str) -> bytes:
    """The manifest with layers of these media types; `l`: what a layer has."""
    layer = IMAGE.document["layers"][0]
    return changed(layers=[layer if each == "l" else {**layer, "mediaType": each} for each in media_types])


def with_config(media_type: str) -> bytes:
    return changed(config={**IMAGE.document["config"], "mediaType": media_type})


@pytest.mark.parametrize(
    "content, config, diff_ids",
    [
        (IMAGE.content, config_of(LAYER.diff_id), [LAYER.diff_id]),
        (DOCKER.content, config_of(LAYER.diff_id), [LAYER.diff_id]),
        (with_config("application/octet-stream"), config_of(LAYER.diff_id), [LAYER.diff_id]),
        (with_config("application/octet-stream"), b"\x7fELF", [""]),
        (with_config("application/vnd.cncf.helm.config.v1+json"), b"{}", [""]),
        (
            changed(layers=[{**IMAGE.document["layers"][0], "mediaType": "application/vnd.in-toto+json"}]),
            config_of(LAYER.diff_id),
            [""],
        ),
        (changed(layers=[]), config_of(), []),
        (changed(layers=None), b'{"rootfs":null}', []),
        (changed(layers=None), b'{"rootfs":{"type":null,"diff_ids":null}}', []),
        (
            IMAGE.content,
            json.dumps(
                {"os.features": None, "variant": None, "os.version": None, "rootfs": {"diff_ids": [LAYER.diff_id]}}
            ).encode(),
            [LAYER.diff_id],
        ),
        (changed(layers=IMAGE.document["layers"] * 2), config_of(LAYER.diff_id, LAYER.diff_id), [LAYER.diff_id] * 2),
        # What is no layer stands between two; what has no type is one where the config has a diffID for it.
        (typed("l", "application/vnd.in-toto+json", "l"), config_of(A, B), [A, "", B]),
        (typed("application/vnd.example", "l"), config_of(A), ["", A]),
        (typed("l", "application/octet-stream", "application/vnd.example", "l"), config_of(A, B, C), [A, B, "", C]),
        (typed("l", "application/octet-stream", "", "l"), config_of(A, B), [A, "", "", B]),
        (typed("application/vnd.example", "application/vnd.example"), config_of(A, B), ["", ""]),
        # Parameters and case of a media type say nothing.
        (typed("application/vnd.oci.image.layer.v1.tar+gzip; charset=utf-8"), config_of(A), [A]),
        (typed("Application/Vnd.OCI.Image.Layer.v1.tar"), config_of(A), [A]),
        (typed("application/octet-stream;x=y"), config_of(A), [A]),
        (with_config("application/vnd.oci.image.config.v1+json; charset=utf-8"), config_of(A), [A]),
        (with_config("application/vnd.oci.image.config.v1+json"), config_of("sha512:" + "5" * 128), ["sha512:" + "5" * 128]),
    ],
)
def test_read_layers(content: bytes, config: bytes, diff_ids: list[str]) -> None:
    assert layers_of(content, config) == diff_ids


@pytest.mark.parametrize(
    "content, config, why",
    [
        (IMAGE.content, config_of(), "1 layers, and its config names 0"),
        (IMAGE.content, b"nonsense", "its config cannot be read"),
        (IMAGE.content, b'{"x":' * 100_000, "its config cannot be read"),
        (IMAGE.content, b'{"rootfs":null}', "1 layers, and its config names 0"),
        (IMAGE.content, config_of("sha256:../x"), "no digest"),
        (typed("l", "application/vnd.example", "l"), config_of(A, B, C), "2 layers, and its config names 3"),
        (changed(layers=IMAGE.document["layers"] * 1001), config_of(), "1001 layers, more than 1000"),
    ],
)
def test_layers_that_are_refused(content: bytes, config: bytes, why: str) -> None:
    with pytest.raises(Permanent, match=why):
        layers_of(content, config)


def test_what_the_kernel_cannot_mount_is_refused_before_it_is_fetched() -> None:
    check_stack([DiffID(LAYER.diff_id)] * 500, "x")
    check_stack([DiffID("")] * 501, "an artifact")
    check_stack([DiffID(LAYER.diff_id), DiffID("")] * 500, "an image with attestations")
    with pytest.raises(Permanent, match="501 layers, and the kernel mounts 500") as failed:
        check_stack([DiffID(LAYER.diff_id)] * 501, "x")
    assert failed.value.code == "image.layers"


def test_dockers_types_in_ocis() -> None:
    assert in_oci_types(IMAGE.content) is None
    translated = in_oci_types(DOCKER.content)
    assert translated is not None and json.loads(translated) == IMAGE.document
    told = json.loads(DOCKER.content)
    for descriptor in (told["config"], *told["layers"]):
        descriptor["mediaType"] += "; version=1"
    translated = in_oci_types(json.dumps(told).encode())
    assert translated is not None and json.loads(translated) == IMAGE.document


# -- layers that registries do not pass on ---------------------------------------------------------------------------------

UNKNOWN = Permanent("host/app@sha256:00: the registry answers 404", code="BLOB_UNKNOWN")
DIGEST = Digest("sha256:" + "0" * 64)
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.mark.parametrize(
    ("media_type", "urls", "offered"),
    [
        (FOREIGN, ("https://store.example/layer?signature=s3cret",), "It is offered at https://store.example/layer."),
        (FOREIGN, (), ""),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", (), ""),
        (PLAIN, ("http://169.254.169.254/x",), "It is offered at http://169.254.169.254/x."),
        (PLAIN, ("http://[bad",), ""),
        (PLAIN, ("http://a.example/\x1b[2Jx", "x"), ""),
    ],
)
def test_a_layer_that_may_not_be_passed_on_says_so_when_it_is_missing(
    media_type: str, urls: tuple[str, ...], offered: str
) -> None:
    found = explain_blob(Descriptor(media_type=media_type, digest=DIGEST, size=1, urls=urls), UNKNOWN)
    assert isinstance(found, Permanent) and (found.code, found.concerns) == ("layer.foreign", "source")
    assert str(found).startswith(str(UNKNOWN)) and "s3cret" not in str(found) and "\n" not in str(found)
    assert ("offered" in str(found)) == bool(offered) and offered in str(found)


def test_other_failures_stay_what_they_are() -> None:
    assert explain_blob(Descriptor(media_type=PLAIN, digest=DIGEST, size=1), UNKNOWN) is UNKNOWN
    busy = Retryable("host: the registry answers 503", code="registry.unavailable")
    assert explain_blob(Descriptor(media_type=FOREIGN, digest=DIGEST, size=1), busy) is busy


# -- what is said beside the answer ------------------------------------------------------------------------------------------


def test_a_warning_is_told_once_a_host() -> None:
    notices = Notices()
    header = '299 - "This repository moves on \\"Friday\\"",  299 registry.example "Two"'
    assert notices.heard("a.example", "", {}, [header]) == [
        'a.example warns: This repository moves on "Friday"',
        "a.example warns: Two",
    ]
    assert notices.heard("a.example", "", {}, [header, '299 - "Two"']) == []
    assert notices.heard("b.example", "", {}, ['299 - "Two"']) == ["b.example warns: Two"]


@pytest.mark.parametrize("header", ["", "299", "299 -", '199 - "other"', '299 - "unclosed', '299 - ""', '"299 - x"'])
def test_what_is_no_warning_of_a_registry_is_passed_over(header: str) -> None:
    assert Notices().heard("a.example", "", {}, [header]) == []


def test_warnings_without_end_are_not_remembered_without_end() -> None:
    notices = Notices()
    lines = [line for number in range(1000) for line in notices.heard("a.example", "", {}, [f'299 - "{number}{"x" * 9000}"'])]
    assert len(lines) == 100 and max(map(len, lines)) < 400


def test_a_limit_is_told_when_less_than_a_tenth_is_left() -> None:
    notices = Notices()

    def at(remaining: str, limit: str = "100;w=21600", credential: str = "") -> list[str]:
        return notices.heard("docker.io", credential, {"RateLimit-Limit": limit, "RateLimit-Remaining": remaining})

    assert at("100;w=21600") == at("10;w=21600") == []
    assert at("9;w=21600") == ["docker.io lets us pull 9 more times of 100 in 21600 s; a login may have a higher limit"]
    assert at("8;w=21600") == [] and at("0") == []
    assert at("3", "200", credential="team") == ["docker.io lets us pull 3 more times of 200"]
    assert at("99") == [] and len(at("1")) == 1, "the window is over, and the next one is nearly used up"
    assert at("x") == at("1", "0") == at("1", "many") == at("") == []
