"""A client of the CRI, with as much of its protocol as tests need: the messages are made here, by number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "bool": _Field.TYPE_BOOL, "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64, "uint32": _Field.TYPE_UINT32, "uint64": _Field.TYPE_UINT64,
}  # fmt: skip
_PACKAGE = "pullonce.tests.cri"
_MESSAGES: dict[str, str] = {
    "ImageSpec": "string image=1",
    "Int64Value": "int64 value=1",
    "UInt64Value": "uint64 value=1",
    "Image": "string id=1, *string repo_tags=2, *string repo_digests=3, uint64 size=4, Int64Value uid=5, string username=6, "
    "bool pinned=8",
    "Pair": "string key=1, string value=2",
    "ImageFilter": "ImageSpec image=1",
    "AuthConfig": "string username=1, string password=2, string auth=3, string server_address=4, string identity_token=5, "
    "string registry_token=6",
    "PullImageRequest": "ImageSpec image=1, AuthConfig auth=2",
    "PullImageResponse": "string image_ref=1",
    "RemoveImageRequest": "ImageSpec image=1",
    "RemoveImageResponse": "",
    "ListImagesRequest": "ImageFilter filter=1",
    "ListImagesResponse": "*Image images=1",
    "StreamImagesRequest": "ImageFilter filter=1",
    "StreamImagesResponse": "*Image images=1",
    "ImageStatusRequest": "ImageSpec image=1, bool verbose=2",
    "ImageStatusResponse": "Image image=1, *Pair info=2",
    "ImageFsInfoRequest": "",
    "FilesystemIdentifier": "string mountpoint=1",
    "FilesystemUsage": "int64 timestamp=1, FilesystemIdentifier fs_id=2, UInt64Value used_bytes=3, UInt64Value inodes_used=4",
    "ImageFsInfoResponse": "*FilesystemUsage image_filesystems=1",
    "VersionRequest": "string version=1",
    "VersionResponse": "string version=1, string runtime_name=2, string runtime_version=3, string runtime_api_version=4",
    "StatusRequest": "bool verbose=1",
    "RuntimeCondition": "string type=1, bool status=2, string reason=3, string message=4",
    "RuntimeStatus": "*RuntimeCondition conditions=1",
    "StatusResponse": "RuntimeStatus status=1, *Pair info=2",
    "NamespaceOption": "int32 network=1, int32 pid=2, int32 ipc=3",
    "LinuxSandboxSecurityContext": "NamespaceOption namespace_options=1",
    "LinuxPodSandboxConfig": "LinuxSandboxSecurityContext security_context=2",
    "PodSandboxMetadata": "string name=1, string uid=2, string namespace=3, uint32 attempt=4",
    "PodSandboxConfig": "PodSandboxMetadata metadata=1, LinuxPodSandboxConfig linux=8",
    "RunPodSandboxRequest": "PodSandboxConfig config=1",
    "RunPodSandboxResponse": "string pod_sandbox_id=1",
    "ContainerMetadata": "string name=1",
    "LinuxContainerSecurityContext": "NamespaceOption namespace_options=3",
    "LinuxContainerConfig": "LinuxContainerSecurityContext security_context=2",
    "ContainerConfig": "ContainerMetadata metadata=1, ImageSpec image=2, *string command=3, LinuxContainerConfig linux=15",
    "CreateContainerRequest": "string pod_sandbox_id=1, ContainerConfig config=2, PodSandboxConfig sandbox_config=3",
    "CreateContainerResponse": "string container_id=1",
    "StartContainerRequest": "string container_id=1",
    "StartContainerResponse": "",
    "ExecSyncRequest": "string container_id=1, *string cmd=2, int64 timeout=3",
    "ExecSyncResponse": "bytes stdout=1, bytes stderr=2, int32 exit_code=3",
    "StopPodSandboxRequest": "string pod_sandbox_id=1",
    "StopPodSandboxResponse": "",
    "RemovePodSandboxRequest": "string pod_sandbox_id=1",
    "RemovePodSandboxResponse": "",
    "NoSuchRequest": "",
    "NoSuchResponse": "",
}
"""Message → its fields, as `kind name=number`; a star stands before what is repeated, and maps are lists of pairs."""
_OF_NODE = 2
"""The namespace of the machine: NamespaceMode.NODE."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="pullonce/tests/cri.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for each in filter(None, fields.split(", ")):
            kind, field, number = each.replace("=", " ").split()
            label = _Field.LABEL_REPEATED if kind.startswith("*") else _Field.LABEL_OPTIONAL
            simple = _KINDS.get(kind := kind.removeprefix("*"))
            made = message.field.add(name=field, number=int(number), label=label, type=simple or _Field.TYPE_MESSAGE)
            if not simple:
                made.type_name = f".{_PACKAGE}.{kind}"
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str, **fields: Any) -> Any:
    """A message of the CRI."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))(**fields)


def pod(name: str) -> Any:
    """A pod in the namespaces of the machine."""
    options = message("NamespaceOption", network=_OF_NODE, pid=_OF_NODE, ipc=_OF_NODE)
    linux = message("LinuxPodSandboxConfig", security_context={"namespace_options": options})
    return message("PodSandboxConfig", metadata={"name": name, "uid": name, "namespace": "tests"}, linux=linux)


class Cri:
    """`async with Cri(socket) as cri`: calls of `runtime.v1`."""

    def __init__(self, socket: Path) -> None:
        self._channel = Channel(path=str(socket))

    async def pull(self, reference: str, auth: Mapping[str, str] | None = None, *, timeout: float | None = None) -> str:
        """Pull an image, with credentials or without; what the runtime calls it."""
        fields = {"image": {"image": reference}} | ({"auth": dict(auth)} if auth else {})
        return str((await self.image("PullImage", timeout=timeout, **fields)).image_ref)

    async def remove(self, reference: str) -> None:
        await self.image("RemoveImage", image={"image": reference})

    async def images(self) -> list[str]:
        """The tags of all images."""
        return [tag for image in (await self.image("ListImages")).images for tag in image.repo_tags]

    async def status(self, reference: str, *, verbose: bool = False) -> Any:
        """What is said of an image; its `image` is not set where it is not there."""
        return await self.image("ImageStatus", image={"image": reference}, verbose=verbose)

    async def streamed(self) -> AsyncIterator[Any]:
        """All images, as a stream."""
        asks, said = message("StreamImagesRequest"), type(message("StreamImagesResponse"))
        method = UnaryStreamMethod(self._channel, "/runtime.v1.ImageService/StreamImages", type(asks), said)
        async with method.open() as stream:
            await stream.send_message(asks, end=True)
            async for each in stream:
                for image in each.images:
                    yield image

    async def container(self, sandbox: str, config: Any, image: str, name: str = "box") -> str:
        """Make and start a container that sleeps; its ID."""
        made = message(
            "ContainerConfig", metadata={"name": name}, image={"image": image}, command=["/bin/sh", "-c", "sleep 99"]
        )
        made.linux.security_context.namespace_options.CopyFrom(config.linux.security_context.namespace_options)
        asked = await self.runtime("CreateContainer", pod_sandbox_id=sandbox, config=made, sandbox_config=config)
        await self.runtime("StartContainer", container_id=asked.container_id)
        return str(asked.container_id)

    async def run(self, container: str, *command: str) -> bytes:
        """What a command within a container says."""
        done = await self.runtime("ExecSync", container_id=container, cmd=command, timeout=30)
        assert done.exit_code == 0, done.stderr
        return bytes(done.stdout)

    async def image(self, method: str, *, timeout: float | None = None, **fields: Any) -> Any:
        """A call of the image service."""
        return await self._call("ImageService", method, fields, timeout)

    async def runtime(self, method: str, **fields: Any) -> Any:
        """A call of the runtime service."""
        return await self._call("RuntimeService", method, fields, None)

    async def _call(self, service: str, method: str, fields: dict[str, Any], timeout: float | None) -> Any:
        asks, said = message(f"{method}Request", **fields), type(message(f"{method}Response"))
        call = UnaryUnaryMethod(self._channel, f"/runtime.v1.{service}/{method}", type(asks), said)
        return await call(asks, timeout=timeout)

    async def __aenter__(self) -> Cri:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._channel.close()
