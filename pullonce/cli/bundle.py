"""`pullonce bundle`, `unbundle` and `bundles`: images as directories that a runtime starts."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pullonce.bundle import host, image, options, users
from pullonce.bundle.bundles import Bundles
from pullonce.bundle.errors import BundleRefused, OptionInvalid
from pullonce.bundle.image import Configuration
from pullonce.bundle.inside import read_text
from pullonce.bundle.options import Isolation, Options, Process
from pullonce.bundle.record import Bundle, bundle_at, directory_of, read, state_of
from pullonce.bundle.rootfs import Rootfs
from pullonce.bundle.spec import Found, runtime_config, volumes
from pullonce.cli.bundled_image import FoundImage, find, pull_again
from pullonce.cli.columns import columns
from pullonce.cli.pull import interrupt
from pullonce.config import store_root
from pullonce.errors import PullonceError
from pullonce.oci.mappings import mappings
from pullonce.printable import printable
from pullonce.store.content import ContentStore, opened
from pullonce.store.snapshots import SnapshotMissing

_TRIES = 3
"""Pulls of what somebody else removes at the same time."""


def bundle(args: argparse.Namespace) -> int:
    """Carry out `pullonce bundle`."""
    _check_root()
    signal.signal(signal.SIGTERM, interrupt)
    if args.remount:
        return _remount(args)
    if len(args.words) != 2:
        raise OptionInvalid(
            f"bundle takes REF and DIR, {len(args.words)} words were given; arguments of the container follow `--`"
        )
    wanted = options_of(args)
    directory = directory_of(args.words[1])
    with _disk(directory):
        for attempt in range(_TRIES):
            found = find(args, args.words[0], again=attempt > 0)
            try:
                _make(found, directory, wanted)
                break
            except SnapshotMissing:
                if args.policy == "never" or attempt == _TRIES - 1:
                    raise
    print(f"{directory}: {found.record.reference} ({found.record.platform}); `runc run --bundle {directory} NAME` starts it")
    return 0


def _make(found: FoundImage, directory: Path, wanted: Options) -> None:
    record, content = found.record, found.content
    config = image.read(found.config)
    bundle = Bundle(
        directory=str(directory), store=str(content.root), reference=record.reference, platform=record.platform,
        digest=record.digest, image_id=record.image_id, chain_id=record.chain_ids[-1], read_only=wanted.read_only,
        mappings=wanted.isolation.mapping,
    )  # fmt: skip
    Bundles(content).make(bundle, lambda rootfs: _described(rootfs, config, wanted))


def _described(rootfs: Rootfs, config: Configuration, wanted: Options) -> dict[str, Any]:
    passwd, group = (read_text(rootfs.path, f"/etc/{name}") for name in ("passwd", "group"))
    user = users.resolve(wanted.process.user or config.config.user, passwd, group)
    inner = volumes(config.config) if wanted.read_only else []
    there = {path: rootfs.directory(path, wanted.isolation.mapping) for path in inner}
    found = Found(user, {path: each for path, each in there.items() if each is not None})
    return runtime_config(config, found, wanted, host.look())


def options_of(args: argparse.Namespace) -> Options:
    """What the command line asks for.

    Raises:
        OptionInvalid, MappingInvalid: it cannot be read, or contradicts itself.
    """
    process = Process(
        command=options.command_of(args.args),
        arguments=options.checked_words("the arguments", args.arguments),
        env=tuple(options.variable_of(each, os.environ) for each in args.env),
        cwd=options.absolute("--cwd", args.cwd) if args.cwd else "",
        user=args.user,
        tty=args.tty,
    )
    isolation = Isolation(
        namespaces={runtime: options.namespace_of(getattr(args, name)) for name, runtime in options.NAMESPACES.items()},
        mapping=mappings(args.uidmap, args.gidmap),
        hostname=options.hostname_of(args.hostname) if args.hostname else "",
        added=tuple(map(options.capability_of, args.cap_add)),
        dropped=tuple(map(options.capability_of, args.cap_drop)),
        new_privileges=args.new_privileges,
    )
    mounts = tuple(options.mount_of(each, str(Path.cwd())) for each in args.mount)
    missing = [each.source for each in mounts if each.is_bind and not Path(each.source).exists()]
    if missing:
        raise OptionInvalid(f"{missing[0]} is to be mounted in the container, and is not there")
    return options.consistent(Options(process, isolation, mounts, args.read_only))


def _remount(args: argparse.Namespace) -> int:
    def remount(directory: Path) -> None:
        known = bundle_at(directory)
        content = ContentStore(Path(known.store))  # none is made on the word of a bundle, but by a pull
        held = Bundles(opened(content.root) if content.layout.store.exists() else content)
        try:
            mounted = held.remount(directory)
        except SnapshotMissing:
            if args.policy == "never":
                raise
            pull_again(args, known)
            mounted = held.remount(directory)
        print(f"{directory} is mounted{'' if mounted else ' already'}")

    return _each(args.words, remount)


def unbundle(args: argparse.Namespace) -> int:
    """Carry out `pullonce unbundle`."""
    _check_root()
    return _each(args.directories, lambda place: _bundles_of(args, place).take_apart(place, force=args.force))


def _each(names: list[str], act: Callable[[Path], None]) -> int:
    """Do something with each of some directories; what goes wrong with one of several is said, and the others go on."""
    failed = 0
    for name in names:
        try:
            directory = directory_of(name)
            with _disk(directory):
                act(directory)
        except PullonceError as exc:
            if len(names) == 1:
                raise
            print(f"pullonce: {printable(str(exc))}", file=sys.stderr)
            failed = 1
    return failed


def bundles(args: argparse.Namespace) -> int:
    """Carry out `pullonce bundles`."""
    root = store_root(Path(args.home), args.store)
    found = sorted(Bundles(ContentStore(root)).all(), key=lambda each: each.directory) if root.is_dir() else []
    if args.json:
        print(json.dumps([{**msgspec.to_builtins(each), "state": state_of(each)} for each in found]))
        return 0
    rows = [("DIRECTORY", "REFERENCE", "PLATFORM", "ROOT", "STATE")]
    rows += [
        (each.directory, each.reference, each.platform, "read-only" if each.read_only else "writable", state_of(each))
        for each in found
    ]
    print("\n".join(columns(rows)))
    return 0


def _bundles_of(args: argparse.Namespace, directory: Path) -> Bundles:
    """Of the store that a bundle says, or that is asked for where it says nothing any more."""
    known = read(directory)
    root = Path(known.store) if known else store_root(Path(args.home), args.store)
    return Bundles(ContentStore(root))


def _check_root() -> None:
    """Raises BundleRefused for whoever may not mount."""
    if os.geteuid() != 0:
        raise BundleRefused(
            "a bundle's root is a mount, which needs root, or a user and a mount namespace of your own: begin a shell with "
            "`unshare --user --map-root-user --mount`, and use `pullonce bundle` and `runc` in it"
        )


@contextmanager
def _disk(directory: Path) -> Iterator[None]:
    """What the system says otherwise, in a line."""
    try:
        yield
    except OSError as exc:
        raise BundleRefused(f"{directory}: {exc.strerror or exc}{f' ({exc.filename})' if exc.filename else ''}") from exc
