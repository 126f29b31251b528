"""`pullonce gateway config`: what to add to the configuration of others so that they use the gateway."""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from pullonce.config import store_root
from pullonce.errors import PullonceError
from pullonce.oci.platform import spell
from pullonce.printable import printable
from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Plan
from pullonce.runtimes.plans import plan_for
from pullonce.runtimes.settings import SETTINGS, VIEW, offer_of, settings_of
from pullonce.runtimes.tree import RootTree
from pullonce.runtimes.writing import apply


class VersionInvalid(PullonceError):
    """What was given as the version of containerd is none."""


def config(args: argparse.Namespace) -> int:
    """Carry out `pullonce gateway config`."""
    tree = tree_of(args)
    made = plan_for(args.runtime, tree, offer_for(args, tree), wanted_of(args, tree))
    for conflict in made.conflicts:
        print(f"pullonce: {printable(str(conflict))}", file=sys.stderr)
    if args.write:
        if made.conflicts:
            print("pullonce: nothing is written; decide that by hand, then do it again", file=sys.stderr)
            return 1
        _write(tree, made)
    else:
        _print(made)
    for note in made.notes:
        print(printable(f"# {note}"))
    if made.changes:
        for command in made.restart:
            print(f"# then: {command}")
    return 1 if made.conflicts else 0


def _print(made: Plan) -> None:
    for change in made.changes:
        print(f"# {printable(change.path)}{' (a new file)' if change.before is None else ''}")
        print(change.shown)
    if not made.changes and not made.conflicts:
        print(f"# nothing to add: {made.runtime} is set up for this gateway")


def _write(tree: RootTree, made: Plan) -> None:
    for change in made.changes:
        copy = apply(tree, change)
        kept = f"; {copy} is what it was" if copy else ""
        print(printable(f"# {change.path}: {'written' if change.before is None else 'added to'}{kept}"))
    if not made.changes:
        print(f"# nothing to do: {made.runtime} is set up for this gateway")


def tree_of(args: argparse.Namespace) -> RootTree:
    """Where the runtime's files are."""
    root = Path(args.root)
    if not root.is_dir():
        raise PullonceError(f"{root} is no directory; --root takes the root file system to look at")
    return RootTree(root)


def offer_for(args: argparse.Namespace, tree: RootTree) -> Offer:
    """What the gateway offers: by its settings in the environment, and in the file that systemd gives it."""
    told = settings_of(tree.read(SETTINGS) or "")
    environ = {**told, **os.environ}
    if args.store:
        environ["PULLONCE_STORE"] = args.store
    offer = offer_of(environ)
    # Who names a view that is not there cannot start podman any more.
    view = f"{store_root(Path(offer.home), offer.store)}/{VIEW}"
    return replace(offer, view=view) if tree.place(view).is_dir() else offer


def wanted_of(args: argparse.Namespace, tree: RootTree) -> Wanted:
    """What was asked for."""
    return Wanted(
        config=args.config or "",
        major=_major(args.containerd_version, tree) if args.runtime in ("containerd", "all") else 0,
        registries=tuple(getattr(args, "registry", ())),
        doors=tuple(getattr(args, "door", ())),
        platform=spell("linux", os.uname().machine),
    )


def _major(text: str, tree: RootTree) -> int:
    """The major version of containerd: as given, or of the one that is installed here; 0 where neither says."""
    if text:
        found = re.fullmatch(r"v?(\d{1,4})(\.\d+)*", text)
        if not found:
            raise VersionInvalid(f"{text!r} is no version of containerd; expected 1.7 or 2, for instance")
        return 1 if int(found[1]) == 1 else 2
    if not tree.is_this_machine:
        return 0
    try:
        said = subprocess.run(["containerd", "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\bv?(\d+)\.\d+\.\d+", said)
    return 0 if not found else 1 if int(found[1]) == 1 else 2
