"""The `config.json` of a bundle: an image's config, and what was asked for on top of it. Pure.

Sources: OCI image-spec 1.1, "Conversion to OCI Runtime Configuration"; OCI runtime-spec 1.0.2, config and config-linux.
"""

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pullonce.bundle import defaults
from pullonce.bundle.errors import ConfigInvalid
from pullonce.bundle.image import Configuration, ProcessConfig, check_path, check_texts
from pullonce.bundle.options import HOST, NAMESPACES, Isolation, Mount, Options
from pullonce.bundle.users import User
from pullonce.oci.mappings import IdRange, Mappings

_PREFIX = "org.opencontainers.image."
_OBEYED = ("org.systemd.property.", "run.oci.", "io.katacontainers.", "dev.gvisor.", "org.criu.", "com.github.containers.")
"""Annotations by which runtimes are told what to do: an image, which strangers wrote, may not."""
_KERNEL = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of an image: whose it is, and whether anything is in it."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    empty: bool = True


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine is like.

    Attributes:
        unified: it has control groups of version 2 only.
        shared: of `defaults.SHARED`, the paths that it has.
        mapping: where we are in a user namespace ourselves: its ids.
        may_set_groups: a process may have further groups.
    """

    unified: bool = True
    shared: frozenset[str] = frozenset()
    mapping: Mappings | None = None
    may_set_groups: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in the image's files.

    Attributes:
        volumes: those of its directories that it names as volumes.
    """

    user: User = field(default_factory=User)
    volumes: Mapping[str, Directory] = field(default_factory=dict)


def runtime_config(image: Configuration, found: Found, options: Options, host: Host) -> dict[str, Any]:
    """The whole document.

    Raises:
        ConfigInvalid: there is nothing to start, or it does not fit into a process.
        MappingInvalid: who it runs as is nobody on this machine.
    """
    if options.isolation.mapping is not None:
        for gid in found.user.groups:
            options.isolation.mapping.owner(found.user.uid, gid)
        options.isolation.mapping.owner(found.user.uid, found.user.gid)
    config: dict[str, Any] = {
        "ociVersion": defaults.VERSION,
        "process": _process(image.config, found.user, options, host),
        "root": {"path": "rootfs", "readonly": options.read_only},
        "mounts": _mounts(image.config, found, options, host),
        "annotations": annotations(image),
        "linux": _linux(options.isolation, host),
    }
    if options.isolation.hostname:
        config["hostname"] = options.isolation.hostname
    return config


# -- the process -----------------------------------------------------------------------------------------------------------


def _process(image: ProcessConfig, user: User, options: Options, host: Host) -> dict[str, Any]:
    wanted = options.process
    args = list(wanted.command or (*image.entrypoint, *(wanted.arguments or image.cmd)))
    if not args or not args[0]:
        raise ConfigInvalid("the image names no program to start; say which behind `--`")
    env = environment(image.env, wanted.env, user, tty=wanted.tty)
    check_texts("arguments and environment", [*args, *env])
    groups = {"additionalGids": list(user.groups)} if host.may_set_groups and user.groups else {}
    return {
        "terminal": wanted.tty,
        "user": {"uid": user.uid, "gid": user.gid, **groups},
        "args": args,
        "env": env,
        "cwd": wanted.cwd or image.working_dir or "/",
        "capabilities": capabilities(options.isolation, root=user.uid == 0),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": not options.isolation.new_privileges,
    }


def environment(image: Iterable[str], wanted: Iterable[str], user: User, *, tty: bool) -> list[str]:
    """Each variable once: what was asked for before the image's, and of two the last. What nobody said is added."""
    given: dict[str, str] = {}
    for each in (*image, *filter(None, wanted)):
        given[each.partition("=")[0]] = each
    more = [defaults.PATH, f"HOME={user.home}", *(["TERM=xterm"] if tty else [])]
    return [*given.values(), *(each for each in more if each.partition("=")[0] not in given)]


def capabilities(isolation: Isolation, *, root: bool) -> dict[str, list[str]]:
    """Sets of capabilities. Who is not root has those alone that were asked for: programs it starts keep no others.

    None is inheritable for root: files with inheritable ones would give them to whoever runs them (CVE-2022-24769).
    """
    every = set(defaults.CAPABILITIES)
    added = every if "ALL" in isolation.added else set(isolation.added)
    bounding = added if "ALL" in isolation.dropped else (added | defaults.GIVEN) - set(isolation.dropped)
    asked = bounding & added
    held = bounding if root else asked
    kept = set() if root else asked
    sets = {"bounding": bounding, "effective": held, "permitted": held, "inheritable": kept, "ambient": kept}
    return {name: [each for each in defaults.CAPABILITIES if each in those] for name, those in sets.items()}


# -- mounts ----------------------------------------------------------------------------------------------------------------


def _mounts(image: ProcessConfig, found: Found, options: Options, host: Host) -> list[dict[str, Any]]:
    isolation = options.isolation
    own = isolation.mapping or host.mapping
    mounts = defaults.mounts(terminals=own is None or _has(own.gids, 5))
    if own is not None and not isolation.is_private("network"):
        # Who does not own the network may not mount what shows it.
        flags = ("nosuid", "noexec", "nodev", "ro")
        mounts = [_shared(each, "/sys", options=flags) for each in mounts if each["destination"] != "/sys/fs/cgroup"]
    if isolation.namespaces.get("ipc") == HOST:
        mounts = [_shared(each, *host.shared.intersection(defaults.QUEUES)) for each in mounts]
        # Who does not own the queues may not mount what shows them.
        mounts = [each for each in mounts if own is None or each["type"] != "mqueue"]
    if isolation.namespaces.get("network") == HOST:
        mounts += [defaults.bound(each, each, "ro") for each in sorted(host.shared.intersection(defaults.NETWORK_FILES))]
    if options.read_only:
        taken = {each["destination"] for each in mounts}
        mounts += [_volume(path, found.volumes.get(path), own) for path in volumes(image) if path not in taken]
    replaced = {mount.destination for mount in options.mounts}
    kept = [each for each in mounts if each["destination"] not in replaced]
    return kept + [_wished(each) for each in options.mounts]


def volumes(image: ProcessConfig) -> list[str]:
    """The image's volumes as paths, those above others first, for a root that is read-only: each has to be mounted there.

    Those where the kernel shows something are left out: every container has its own there.

    Raises:
        ConfigInvalid: one is no path, or would hide the image.
    """
    for each in image.volumes:
        check_path("a volume of the image", each)
    paths = sorted({"/" + posixpath.normpath(each).lstrip("/") for each in image.volumes})
    if "/" in paths:
        raise ConfigInvalid("the image has a volume at /, where none can be in a root that is read-only; leave out --read-only")
    return [path for path in paths if path not in _KERNEL and not path.startswith(tuple(f"{each}/" for each in _KERNEL))]


def _volume(path: str, directory: Directory | None, mapping: Mappings | None) -> dict[str, Any]:
    """A place to write in a root that is read-only: in memory, and what the image has there is copied into it."""
    there = directory or Directory()
    options = ["nosuid", "nodev", f"mode={there.mode:o}"]
    if mapping is None or (_has(mapping.uids, there.uid) and _has(mapping.gids, there.gid)):
        options += [f"uid={there.uid}", f"gid={there.gid}"]
    return defaults.mount(path, "tmpfs", "tmpfs", *options, *([] if there.empty else ["tmpcopyup"]))


def _shared(mount: dict[str, Any], *paths: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """A mount, or the machine's own in its place where it is at one of some paths."""
    path = mount["destination"]
    return defaults.bound(path, path, *options) if path in paths else mount


def _wished(mount: Mount) -> dict[str, Any]:
    return defaults.mount(mount.destination, mount.type, mount.source, *mount.options)


def _has(ranges: Iterable[IdRange], number: int) -> bool:
    return any(each.container <= number < each.container + each.size for each in ranges)


# -- Linux -----------------------------------------------------------------------------------------------------------------


def _linux(isolation: Isolation, host: Host) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": list(_namespaces(isolation, host)),
        "maskedPaths": list(defaults.MASKED),
        "readonlyPaths": list(defaults.READ_ONLY),
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    }
    if isolation.mapping is not None:
        linux["uidMappings"] = [_mapped(each) for each in isolation.mapping.uids]
        linux["gidMappings"] = [_mapped(each) for each in isolation.mapping.gids]
    return linux


def _namespaces(isolation: Isolation, host: Host) -> Iterable[dict[str, str]]:
    if isolation.mapping is not None:
        yield {"type": "user"}
    yield {"type": "mount"}
    for name in NAMESPACES.values():
        where = isolation.namespaces.get(name, "")
        if where != HOST:
            yield {"type": name, **({"path": where} if where else {})}
    if host.unified:
        yield {"type": "cgroup"}


def _mapped(each: IdRange) -> dict[str, int]:
    return {"containerID": each.container, "hostID": each.host, "size": each.size}


# -- annotations -----------------------------------------------------------------------------------------------------------


def annotations(image: Configuration) -> dict[str, str]:
    """What the image says of itself. Its labels come before what is derived; those that runtimes obey are left out."""
    derived = {
        "os": image.os,
        "architecture": image.architecture,
        "variant": image.variant,
        "os.version": image.os_version,
        "os.features": ",".join(image.os_features),
        "author": image.author,
        "created": image.created,
        "stopSignal": image.config.stop_signal,
        "exposedPorts": ",".join(sorted(image.config.exposed_ports)),
    }
    labels = {name: value for name, value in image.config.labels.items() if name and not name.startswith(_OBEYED)}
    return {**{_PREFIX + name: value for name, value in derived.items() if value}, **labels}
