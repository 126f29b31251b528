"""`python -m pullonce.demo.push HOST:PORT`: put the demonstration's image into a registry, as `demo/app:1`.

Source: distribution-spec 1.1, "Pushing blobs" (POST, then PUT) and "Pushing manifests".
"""

import http.client
import sys
from urllib.parse import urlencode, urlsplit

from pullonce.demo.registry import MANIFEST, DemoImage

NAME, TAG = "demo/app", "1"


def push(host: str, image: DemoImage) -> str:
    """Upload everything and return the image's reference. Repetition is harmless."""
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        for digest, content in image.blobs.items():
            location = _request(connection, "POST", f"/v2/{NAME}/blobs/uploads/").headers["Location"]
            parts = urlsplit(location)
            query = "&".join(filter(None, (parts.query, urlencode({"digest": digest}))))
            _request(connection, "PUT", f"{parts.path}?{query}", content, "application/octet-stream")
        _request(connection, "PUT", f"/v2/{NAME}/manifests/{TAG}", image.manifest, MANIFEST)
    finally:
        connection.close()
    return f"{host}/{NAME}:{TAG}"


def _request(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", media_type: str = ""
) -> http.client.HTTPResponse:
    connection.request(method, path, body, {"Content-Type": media_type} if media_type else {})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {said.decode(errors='replace')[:200]}")
    return answer


if __name__ == "__main__":
    print(push(sys.argv[1], DemoImage()))
