"""`pullonce expose` and `unexpose`: which images of a store podman, CRI-O, buildah and skopeo see. No service is needed."""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from pullonce.cli import units
from pullonce.cli.caretaking import served
from pullonce.cli.percent import Percent
from pullonce.client import connect
from pullonce.config import store_root
from pullonce.errors import PullonceError
from pullonce.expose.exposing import Exposer, Report
from pullonce.expose.shown import Shown, ShownImages
from pullonce.expose.users import Users, graph_roots, reads
from pullonce.oci import reference
from pullonce.oci.platform import normalise, spell
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord
from pullonce.store.layout import Layout

USAGE = 2


class ImageMissing(PullonceError):
    """The store does not hold the image."""


def expose(args: argparse.Namespace) -> int:
    """Carry out `pullonce expose`."""
    if not args.references and not args.all:
        _print(args, ShownImages(_root(args)).all())
        return 0
    if args.pull and args.references:
        _pull(args)
    content = _content(args)
    report = _exposer(content).expose(list(_listed(args, content)), leave_out=args.all)
    if args.json:
        _print(args, report.shown)
        return 0
    print("\n".join(_told(args, report)))
    view = content.layout.exposed
    if not reads(os.environ, view):
        print(
            f'podman and others see them once storage.conf says, below [storage.options]: additionalimagestores = ["{view}"]',
            file=sys.stderr,
        )
    return 0


def unexpose(args: argparse.Namespace) -> int:
    """Carry out `pullonce unexpose`."""
    wanted = normalise(args.platform) if args.platform else ""
    if args.all:
        there = ShownImages(_root(args)).all()
        chosen = [each.key for each in there if wanted in ("", each.image.platform)]
    elif args.references:
        chosen = [(str(reference.parse(each)), wanted) for each in args.references]
    else:
        print("pullonce: name what is not to be exposed any more, or say --all", file=sys.stderr)
        return USAGE
    report = _exposer(_content(args)).unexpose(chosen, force=args.force)
    for each in report.gone:
        print(f"{each.title} is not exposed any more")
    return 0


def _listed(args: argparse.Namespace, content: ContentStore) -> Iterable[ImageRecord]:
    """The images that are meant."""
    wanted = normalise(args.platform) if args.platform else ""
    if args.all:
        for each in content.images.all():
            if wanted in ("", each.platform):
                if each.chain_ids:
                    yield each
                else:
                    print(f"pullonce: {each.reference} ({each.platform}) is left out: it is not unpacked", file=sys.stderr)
        return
    for name in (str(reference.parse(each)) for each in args.references):
        found = [each for each in content.images.named(name) if wanted in ("", each.platform)]
        if not found:
            what = f"{name}{f' for {wanted}' if wanted else ''}"
            raise ImageMissing(f"{what} is not in store {args.store} of {args.home}; pull it first, or say --pull")
        yield from found


def _pull(args: argparse.Namespace) -> None:
    """Have what is not in the store pulled, and unpacked."""

    async def pull(url: str) -> None:
        async with connect(url, name="pullonce expose") as client:
            for each in args.references:
                await client.pull(
                    each, store=args.store, platform=args.platform, policy="if-not-present", requester="pullonce expose",
                    door="view",
                )  # fmt: skip

    with served(args) as url:
        asyncio.run(pull(url))


def _say(words: str) -> None:
    print(f"pullonce: {words}", file=sys.stderr)


def _exposer(content: ContentStore) -> Exposer:
    users = Users(graph_roots(os.environ), as_root=os.geteuid() == 0)
    preferred = spell(sys.platform, platform.machine())
    return Exposer(
        content, preferred, users, say=lambda words: print(f"pullonce: {words}", file=sys.stderr), tell=Percent("read")
    )


def _told(args: argparse.Namespace, report: Report) -> Iterable[str]:
    number = len(report.shown)
    yield f"{number} image{'s are' if number != 1 else ' is'} exposed in {Layout(_root(args)).exposed}"
    if report.layers:
        yield f"{report.layers} layers ({units.amount(report.blob_bytes)}) were read, so that they can be pushed and saved"
    for name, used in report.kept.items():
        yield f"replaced, and kept without a name for {', '.join(used)}: {name}"


def _print(args: argparse.Namespace, there: list[Shown]) -> None:
    shown = [each for each in there if each.state in ("shown", "replaced")]
    if args.json:
        view = str(Layout(_root(args)).exposed)
        print(json.dumps({"store": view, "images": [_as_dict(each) for each in shown]}))
        return
    for each in shown:
        print(f"{each.title}  {each.image.image_id[7:19]}{'  replaced' if each.state == 'replaced' else ''}")


def _as_dict(shown: Shown) -> dict[str, str]:
    image = shown.image
    return {
        "reference": image.reference, "platform": image.platform, "digest": image.manifest.digest,
        "image_id": image.image_id, "state": shown.state,
    }  # fmt: skip


def _root(args: argparse.Namespace) -> Path:
    return store_root(Path(args.home), args.store)


def _content(args: argparse.Namespace) -> ContentStore:
    if not Layout(_root(args)).store.exists():
        raise ImageMissing(f"there is no store {args.store} in {args.home}")
    return open_store(_root(args))
