"""JSON as Go reads it: what is taken, what is refused, and that nothing else can happen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pullonce.oci import go_json
from schemas.oci import Descriptor, ImageConfig, Index, Manifest, RootFS

NOTHING = Descriptor(media_type="", digest="", size=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{}", ImageConfig(rootfs=RootFS(type=""))),
        (b"null", ImageConfig(rootfs=RootFS(type=""))),
        (b'{"os":null,"os.features":null,"rootfs":null}', ImageConfig(rootfs=RootFS(type=""))),
        (b'{"OS":"linux","Architecture":"arm"}', ImageConfig(os="linux", architecture="arm", rootfs=RootFS(type=""))),
        (b'{"os":"a","os":"b"}', ImageConfig(os="b", rootfs=RootFS(type=""))),
        (b'{"os":"a","Os":"b"}', ImageConfig(os="b", rootfs=RootFS(type=""))),
        (b'{"os":"\xff"}', ImageConfig(os="\ufffd", rootfs=RootFS(type=""))),
        (b'{"os":"\\udc00x"}', ImageConfig(os="\ufffdx", rootfs=RootFS(type=""))),
        (b'{"os":"\\ud83d\\ude00"}', ImageConfig(os="\U0001f600", rootfs=RootFS(type=""))),
        (b'{"os.features":["a",null]}', ImageConfig(os_features=("a", ""), rootfs=RootFS(type=""))),
    ],
)
def test_what_go_takes(content: bytes, found: ImageConfig) -> None:
    assert go_json.decode(content, ImageConfig) == found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b'{"os":NaN}', "NaN"),
        (b'{"os":-Infinity}', "Infinity"),
        (b'{"os":"a\nb"}', "no JSON"),
        (b'{"os":"a",}', "no JSON"),
        (b"{} x", "no JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"os":' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"os":5}', r"\$.os is a whole number, expected a text"),
        (b'{"os":{}}', r"\$.os is an object, expected a text"),
        (b'{"os.features":"a"}', r"\$.os.features is a text, expected an array"),
        (b'{"rootfs":{"diff_ids":[5]}}', r"\$.rootfs.diff_ids\[0\] is a whole number"),
        (b"[]", r"\$ is an array, expected an object"),
    ],
)
def test_what_go_refuses(content: bytes, why: str) -> None:
    with pytest.raises(go_json.NoDocument, match=why):
        go_json.decode(content, ImageConfig)


@pytest.mark.parametrize("size", ["1_0", "1e3", "1.0", "true", '"1"', "9223372036854775808", "-9223372036854775809", "0x10"])
def test_sizes_stay_strict(size: str) -> None:
    with pytest.raises(go_json.NoDocument):
        go_json.decode(f'{{"config":{{"size":{size}}}}}'.encode(), Manifest)


def test_names_in_a_map_are_data() -> None:
    found = go_json.decode(b'{"annotations":{"A":"1","a":"2","b":null}}', Manifest)
    assert found.annotations == {"A": "1", "a": "2", "b": ""}
    assert (found.config, found.layers) == (NOTHING, ())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("config", "Layers", "manifests", "digest", "size", "annotations", "x")), inner)
    ),
    max_leaves=20,
)


@given(_VALUES)
def test_any_json_is_read_or_refused(value: object) -> None:
    for kind in (Manifest, Index, ImageConfig, Descriptor):
        try:
            go_json.decode(json.dumps(value).encode(), kind)
        except go_json.NoDocument as exc:
            assert "\n" not in str(exc) and len(str(exc)) < 400


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        go_json.decode(content, Manifest)
    except go_json.NoDocument:
        pass
