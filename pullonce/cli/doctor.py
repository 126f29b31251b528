"""`pullonce gateway doctor`: what keeps other runtimes from using pullonce, and how to mend it."""

import argparse
import asyncio
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from pullonce.cli.gateway import offer_for, tree_of, wanted_of
from pullonce.client import connect
from pullonce.config import BusSettings, home
from pullonce.errors import BusForbidden, PullonceError
from pullonce.printable import printable
from pullonce.process import discovery
from pullonce.pulling.parts import missing_parts
from pullonce.runtimes import doctor as examination
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.files import FilesRefused
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plans import RUNTIMES
from pullonce.runtimes.probing import devices, doors, processes
from pullonce.runtimes.settings import bus_of
from pullonce.runtimes.tree import RootTree


def doctor(args: argparse.Namespace) -> int:
    """Carry out `pullonce gateway doctor`. The exit code is 1 where something keeps a runtime from using pullonce."""
    tree = tree_of(args)
    offer = offer_for(args, tree)
    facts = _facts(tree, offer)
    runtimes = examination.present(tree, facts) if args.runtime == "all" else [args.runtime]
    wanted = wanted_of(args, tree)
    if len(runtimes) == 1 and not wanted.config:
        wanted = dataclasses.replace(wanted, config=examination.config_of(facts.processes, runtimes[0]))
    found = examination.doctor(runtimes, tree, offer, wanted, facts)
    if args.json:
        print(json.dumps({"runtimes": runtimes, "findings": [dataclasses.asdict(each) for each in found]}, indent=2))
    else:
        print("\n".join(_lines(runtimes, found)))
    return 1 if any(each.severity == "blocks" for each in found) else 0


def _lines(runtimes: list[str], found: list[Finding]) -> Iterator[str]:
    if not runtimes:
        yield f"none of {', '.join(RUNTIMES)} is here"
    for each in sorted(found, key=lambda each: ("blocks", "limits", "note").index(each.severity)):
        yield printable(f"{each.severity}: {each.runtime}: {f'{each.place}: ' if each.place else ''}{each.what}")
        yield f"    why:  {printable(each.why)}"
        yield f"    mend: {printable(each.mend)}"
    concerned = {each.runtime for each in found if each.severity == "blocks"}
    for runtime in runtimes:
        if runtime in concerned or "gateway" in concerned:
            yield f"{runtime} does not use pullonce as it is now"
        else:
            yield f"nothing keeps {runtime} from using pullonce"


def _facts(tree: RootTree, offer: Offer) -> Facts:
    if not tree.is_this_machine:
        return Facts(changed={})
    environ, lacking = bus_of(tree, os.environ, served=discovery.served(str(home())) is not None)
    bus, missing, unknown = asyncio.run(_parts(offer, environ, lacking))
    return Facts(
        live=True, root=os.geteuid() == 0, doors=doors(offer), bus=bus, unknown=unknown, missing=missing, processes=processes(),
        devices=devices((offer.home, "/var/lib/containerd")), changed=_Changed(tree),
    )  # fmt: skip


class _Changed(Mapping[str, float]):
    """When files were last written."""

    def __init__(self, tree: RootTree) -> None:
        self._tree = tree

    def __getitem__(self, path: str) -> float:
        with suppress(OSError, FilesRefused):
            return self._tree.place(path).stat().st_mtime
        raise KeyError(path)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


async def _parts(offer: Offer, environ: Mapping[str, str], lacking: str) -> tuple[str, tuple[str, ...], str]:
    """Why the bus is not there, or which parts do not answer on it, or why we cannot know."""
    try:
        async with connect(name="pullonce gateway doctor", patience=2.0, environ=environ) as client:
            pongs = await client.ping(1.0)
    except BusForbidden as exc:
        bus = BusSettings.from_env("", environ)
        return (str(exc), (), "") if bus.creds or "@" in bus.url else ("", (), lacking or str(exc))
    except PullonceError as exc:
        return ("", (), lacking) if lacking else (str(exc), (), "")
    there = {(pong.service, pong.store) for pong in pongs}
    gateway = () if ("gateway", offer.store) in there else (f"gateway for store {offer.store}",)
    return "", (*missing_parts(there, offer.store), *gateway), ""
