"""A client of the CRI's image service, with as much of its protocol as tests need: the messages are made here, by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel, UnaryUnaryMethod

_STRING, _MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_ONE, _MANY = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
_PACKAGE = "pullonce.tests.cri"
_MESSAGES: dict[str, dict[str, tuple[int, str, int]]] = {
    "ImageSpec": {"image": (1, "", _ONE)},
    "PullImageRequest": {"image": (1, "ImageSpec", _ONE)},
    "PullImageResponse": {"image_ref": (1, "", _ONE)},
    "RemoveImageRequest": {"image": (1, "ImageSpec", _ONE)},
    "RemoveImageResponse": {},
    "ListImagesRequest": {},
    "Image": {"id": (1, "", _ONE), "repo_tags": (2, "", _MANY), "repo_digests": (3, "", _MANY)},
    "ListImagesResponse": {"images": (1, "Image", _MANY)},
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="pullonce/tests/cri.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, label) in fields.items():
            made = message.field.add(name=field, number=number, label=label, type=_MESSAGE if kind else _STRING)
            if kind:
                made.type_name = f".{_PACKAGE}.{kind}"
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str, **fields: Any) -> Any:
    """A message of the CRI."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))(**fields)


class Cri:
    """`async with Cri(socket) as cri`: calls of the image service, `runtime.v1`."""

    def __init__(self, socket: Path) -> None:
        self._channel = Channel(path=str(socket))

    async def pull(self, reference: str) -> str:
        """Pull an image; what the runtime calls it."""
        return str((await self._call("PullImage", image=message("ImageSpec", image=reference))).image_ref)

    async def remove(self, reference: str) -> None:
        await self._call("RemoveImage", image=message("ImageSpec", image=reference))

    async def images(self) -> list[str]:
        """The tags of all images."""
        return [
            tag for image in (await self._call("ListImages", answer="ListImagesResponse")).images for tag in image.repo_tags
        ]

    async def _call(self, method: str, answer: str = "", **fields: Any) -> Any:
        asks = message(f"{method}Request", **fields)
        said = type(message(answer or f"{method}Response"))
        return await UnaryUnaryMethod(self._channel, f"/runtime.v1.ImageService/{method}", type(asks), said)(asks)

    async def __aenter__(self) -> Cri:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._channel.close()
