"""The mirror, asked as clients ask it: what it gives, to whom, and what it costs the registry."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.gateway.mirror_door import PASSWORD, USER, Answer, MirrorDoor, basic
from tests.support.images import OCI_INDEX, OCI_MANIFEST, image, index, layer, tar_of
from tests.support.registry import RegistryServer


@pytest.fixture(scope="module")
def door(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorDoor]:
    with MirrorDoor(tmp_path_factory.mktemp("home"), registry) as made:
        yield made


def same(head: Answer, got: Answer) -> None:
    """HEAD says what GET says, and nothing more."""
    assert (head.status, head.body) == (got.status, b"")
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}


def test_the_front_page(door: MirrorDoor) -> None:
    for path in ("/v2/", "/v2"):
        front = door.ask(path, ns=False)
        assert (front.status, front.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


def test_a_manifest_by_tag_and_by_digest(door: MirrorDoor) -> None:
    _, made = door.push()
    path = f"/v2/{door.repository}/manifests/"
    head, got = door.ask(f"{path}1", method="HEAD"), door.ask(f"{path}1")
    same(head, got)
    assert (got.status, got.body) == (200, made.content)
    assert got.headers["docker-content-digest"] == made.digest
    assert got.headers["content-type"] == OCI_MANIFEST
    assert got.headers["content-length"] == str(len(made.content))
    assert got.headers["etag"] == f'"{made.digest}"'
    by_digest = door.ask(f"{path}{made.digest}")
    assert (by_digest.status, by_digest.body) == (200, made.content)
    same(door.ask(f"{path}{made.digest}", method="HEAD"), by_digest)


def test_all_blobs_whole_and_in_parts(door: MirrorDoor) -> None:
    _, made = door.push()
    assert door.ask(f"/v2/{door.repository}/manifests/1").status == 200
    for digest, content in made.blobs.items():
        path = f"/v2/{door.repository}/blobs/{digest}"
        got = door.ask(path)
        assert (got.status, got.body) == (200, content)
        assert got.headers["accept-ranges"] == "bytes" and got.headers["docker-content-digest"] == digest
        same(door.ask(path, method="HEAD"), got)
        for wanted, start, end in (
            ("bytes=3-9", 3, 10),
            ("bytes=7-", 7, len(content)),
            ("bytes=-4", len(content) - 4, len(content)),
        ):
            part = door.ask(path, headers={"Range": wanted})
            assert (part.status, part.body) == (206, content[start:end])
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(content)}"
            same(door.ask(path, method="HEAD", headers={"Range": wanted}), part)
        none = door.ask(path, headers={"Range": f"bytes={len(content)}-"})
        assert (none.status, none.headers["content-range"]) == (416, f"bytes */{len(content)}")


def test_what_is_not_there_is_404_in_the_specs_form(door: MirrorDoor) -> None:
    door.push()
    nothing = "sha256:" + "0" * 64
    for path, code in (
        (f"/v2/{door.repository}/manifests/none", "MANIFEST_UNKNOWN"),
        (f"/v2/{door.repository}/manifests/{nothing}", "MANIFEST_UNKNOWN"),
        (f"/v2/{door.repository}/manifests/.INVALID", "MANIFEST_UNKNOWN"),
        (f"/v2/{door.repository}/blobs/{nothing}", "BLOB_UNKNOWN"),
        ("/v2/no/such/repository/manifests/1", "MANIFEST_UNKNOWN"),
        ("/v2/no/such/repository/tags/list", "NAME_UNKNOWN"),
    ):
        got = door.ask(path)
        assert got.status == 404, path
        assert got.headers["content-type"] == "application/json"
        assert [each["code"] for each in json.loads(got.body)["errors"]] == [code], path


def test_twenty_at_once_cost_the_registry_what_one_does(door: MirrorDoor) -> None:
    _, made = door.push(layers=4, size=200_000)

    def pull(_: int) -> dict[str, bytes]:
        manifest = door.ask(f"/v2/{door.repository}/manifests/1")
        assert manifest.body == made.content
        return {digest: door.ask(f"/v2/{door.repository}/blobs/{digest}").body for digest in made.blobs}

    with ThreadPoolExecutor(20) as clients:
        for got in clients.map(pull, range(20)):
            assert got == made.blobs
    counts = door.registry.counts()
    assert counts == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": len(made.blobs)}


def test_another_platform_by_the_digest_that_the_index_names(door: MirrorDoor) -> None:
    arm = image([layer(tar_of({"arm": b"64" * 999}))], platform="linux/arm64")
    amd = image([layer(tar_of({"amd": b"64" * 999}))])
    door.push(made=index([amd, arm]))
    top = door.ask(f"/v2/{door.repository}/manifests/1")
    assert top.headers["content-type"] == OCI_INDEX
    below = door.ask(f"/v2/{door.repository}/manifests/{arm.digest}")
    assert (below.status, below.body) == (200, arm.content)
    for digest, content in arm.blobs.items():
        assert door.ask(f"/v2/{door.repository}/blobs/{digest}").body == content


def test_a_digest_alone_opens_nothing(door: MirrorDoor) -> None:
    _, made = door.push()
    assert door.ask(f"/v2/{door.repository}/manifests/1").status == 200
    for path in (f"manifests/{made.digest}", *(f"blobs/{digest}" for digest in made.blobs)):
        assert door.ask(f"/v2/other/repository/{path}").status == 404


def test_tags_are_passed_through_page_by_page(door: MirrorDoor) -> None:
    reference, made = door.push()
    name = reference.partition("/")[2].rpartition(":")[0]
    for tag in ("2", "3", "4"):
        door.registry.push(name, tag, made)
    path, found = f"/v2/{name}/tags/list?n=2", list[str]()
    pages = 0
    while path:
        page = door.ask(path)
        assert page.status == 200 and json.loads(page.body)["name"] == name
        found += json.loads(page.body)["tags"]
        link = page.headers.get("link", "")
        path, pages = link.partition("<")[2].partition(">")[0], pages + 1
        assert not link or 'rel="next"' in link
    assert (found, pages) == (["1", "2", "3", "4"], 2)
    assert sorted(json.loads(door.ask(f"/v2/{name}/tags/list").body)["tags"]) == ["1", "2", "3", "4"]
    assert json.loads(door.ask(f"/v2/{name}/tags/list?n=0").body)["tags"] == []
    assert json.loads(door.ask(f"/v2/{name}/tags/list?last=2&n=1").body)["tags"] == ["3"]
    assert door.ask(f"/v2/{name}/tags/list?n=x").status == 400


def test_referrers_of_a_registry_without_that_api(door: MirrorDoor) -> None:
    """This one has none: what is known stands under a tag, and without that there are none."""
    reference, made = door.push()
    name = reference.partition("/")[2].rpartition(":")[0]
    path = f"/v2/{name}/referrers/{made.digest}"
    nothing = door.ask(path)
    assert (nothing.status, nothing.headers["content-type"]) == (200, OCI_INDEX)
    assert json.loads(nothing.body)["manifests"] == []
    kinds = ("application/vnd.example.sbom", "application/vnd.example.signature")
    about = [image([layer(tar_of({"about": kind.encode()}))], extra={"artifactType": kind}) for kind in kinds]
    for each in about:
        door.registry.push(name, each.digest.replace(":", "."), each)
    entries = [{**each.descriptor(), "artifactType": kind} for each, kind in zip(about, kinds, strict=True)]
    door.registry.push(name, made.digest.replace(":", "-"), index([], more=entries))
    assert json.loads(door.ask(path).body)["manifests"] == entries
    some = door.ask(f"{path}?artifactType={kinds[1]}")
    assert json.loads(some.body)["manifests"] == entries[1:]
    assert some.headers["oci-filters-applied"] == "artifactType"
    for each in about:
        assert door.ask(f"/v2/{name}/manifests/{each.digest}").body == each.content
        for digest, content in each.blobs.items():
            assert door.ask(f"/v2/{name}/blobs/{digest}").body == content


def test_a_registry_by_the_path_and_pushes(door: MirrorDoor) -> None:
    _, made = door.push()
    path = f"/v2/{door.registry.host.replace(':', '_')}/{door.repository}"
    assert door.ask(f"{path}/manifests/1", ns=False).body == made.content
    assert door.ask(f"{path}/tags/list", ns=False).status == 200
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        got = door.ask(f"{path}/manifests/1", method=method, ns=False)
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_pages_of_browsers_and_names_of_others_are_refused(door: MirrorDoor) -> None:
    door.push()
    path = f"/v2/{door.repository}/manifests/1"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "rebound.example"}):
        assert door.ask(path, headers=headers).status == 403
    assert door.registry.counts() == {}


def test_blobs_of_which_no_manifest_is_known(door: MirrorDoor) -> None:
    """The registry says how large they are, and that they may be had; then they come like all others."""
    _, made = door.push(size=300_000)
    for digest, content in made.blobs.items():
        path = f"/v2/{door.repository}/blobs/{digest}"
        assert door.ask(path, method="HEAD").headers["content-length"] == str(len(content))
        assert door.ask(path).body == content
        part = door.ask(path, headers={"Range": "bytes=1-2"})
        assert (part.status, part.body) == (206, content[1:3])


def test_after_a_restart_blobs_are_known_by_the_manifests_on_the_disk(door: MirrorDoor) -> None:
    _, made = door.push()
    assert door.ask(f"/v2/{door.repository}/manifests/1").status == 200
    for digest, content in made.blobs.items():
        assert door.ask(f"/v2/{door.repository}/blobs/{digest}").body == content
    door.registry.forget()
    door.kill()
    for digest, content in made.blobs.items():
        path = f"/v2/{door.repository}/blobs/{digest}"
        assert door.ask(path, method="HEAD").headers["content-length"] == str(len(content))
        assert door.ask(path, headers={"Range": "bytes=5-"}).body == content[5:]
    assert door.ask(f"/v2/{door.repository}/manifests/{made.digest}").body == made.content
    assert door.registry.counts() == {}, "the store knows it all, and anybody may have it"


def test_a_client_that_leaves_withdraws(door: MirrorDoor) -> None:
    """A pull that nobody waits for any more is withdrawn: here, since the registry never answers."""
    with door.silent_registry() as host:
        connection = http.client.HTTPConnection(door.host, timeout=20)
        connection.request("GET", f"/v2/a/b/manifests/1?ns={host}")
        door.until(lambda: any(flight["reference"] == f"{host}/a/b:1" for flight in door.flights()))
        connection.close()
        door.until(lambda: not any(flight["reference"] == f"{host}/a/b:1" for flight in door.flights()))


def test_a_fetcher_that_has_the_mirror_for_a_mirror_goes_on(door: MirrorDoor) -> None:
    """`PULLONCE_HOSTS_DIR` may be the directory that containerd reads."""
    _, made = door.push()
    hosts = door.home / "hosts" / "_default"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{door.host}"]\ncapabilities = ["pull", "resolve"]\n')
    try:
        assert door.ask(f"/v2/{door.repository}/manifests/1").body == made.content
        for digest, content in made.blobs.items():
            assert door.ask(f"/v2/{door.repository}/blobs/{digest}").body == content
    finally:
        shutil.rmtree(hosts)


def test_private_images_by_the_login_that_is_shown(door: MirrorDoor, tmp_path_factory: pytest.TempPathFactory) -> None:
    with door.private_registry(tmp_path_factory.mktemp("private")) as private:
        made = private.image
        path = f"/v2/secret/app/manifests/1?ns={private.host}"
        refused = door.ask(path, ns=False)
        assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Basic ")
        wrong = door.ask(path, ns=False, headers=basic(USER, "wrong"))
        assert wrong.status == 404, "who has shown a wrong one goes on without us"
        right = door.ask(path, ns=False, headers=basic(USER, PASSWORD))
        assert (right.status, right.body) == (200, made.content)
        for digest, content in made.blobs.items():
            blob = f"/v2/secret/app/blobs/{digest}?ns={private.host}"
            assert door.ask(blob, ns=False, headers=basic(USER, PASSWORD)).body == content
            assert door.ask(blob, ns=False).status == 401
            assert door.ask(blob, ns=False, headers=basic(USER, "wrong")).status == 404
        assert door.ask(f"/v2/secret/app/manifests/{made.digest}?ns={private.host}", ns=False).status == 401
        assert PASSWORD not in door.told()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a certificate of 127.0.0.1, and of its key."""
    place = tmp_path_factory.mktemp("tls")
    cert, key = place / "cert.pem", place / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=mirror", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_with_tls_and_a_password_as_beyond_loopback(
    registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> None:
    """What lies isolated is given all the same, to who may have it."""
    cert, key = certificate
    settings = {
        "PULLONCE_GATEWAY_MIRROR_CERT": str(cert),
        "PULLONCE_GATEWAY_MIRROR_KEY": str(key),
        "PULLONCE_CONTENT": "isolated",
    }
    home = tmp_path_factory.mktemp("home")
    with MirrorDoor(home, registry, **settings, PULLONCE_GATEWAY_MIRROR_PASSWORD=PASSWORD) as door:
        _, made = door.push(size=3_000_000)
        path = f"/v2/{door.repository}/manifests/1?ns={registry.host}"
        trusted = ssl.create_default_context(cafile=str(cert))

        def ask(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
            connection = http.client.HTTPSConnection(door.host, timeout=30, context=trusted)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

        for headers in ({}, basic("any", "wrong")):
            assert ask("/v2/", headers)[0] == ask(path, headers)[0] == 401
        assert registry.counts() == {}
        known = basic("any", PASSWORD)
        assert ask("/v2/", known)[0] == 200
        assert ask(path, known) == (200, made.content)
        for digest, content in made.blobs.items():
            assert ask(f"/v2/{door.repository}/blobs/{digest}?ns={registry.host}", known) == (200, content)
        assert ask(f"/v2/{door.repository}/manifests/{made.digest}?ns={registry.host}", known) == (200, made.content)
        assert PASSWORD not in door.told()
