"""`pullonce export`: images of a store as one archive that other tools load."""

import argparse
import os
import sys
from pathlib import Path

from pullonce.cli.store import find_images
from pullonce.config import store_root
from pullonce.errors import PullonceError
from pullonce.exchange.export import draft_of, export
from pullonce.store.content import ContentStore


def export_images(args: argparse.Namespace) -> int:
    """Carry out `pullonce export`."""
    content = ContentStore(store_root(Path(args.home), args.store))
    chosen = find_images(args, args.references)
    if args.output == "-":
        if sys.stdout.isatty():
            raise PullonceError("an archive is not for a terminal: name a file with -o, or redirect the output")
        export(content, chosen, sys.stdout.fileno(), lambda done, whole: None)
        return 0
    path = Path(args.output)
    draft = draft_of(path)
    try:
        try:
            out = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                written = export(content, chosen, out, _shower())
            finally:
                os.close(out)
            draft.replace(path)
        except OSError as exc:
            raise PullonceError(f"{path} cannot be written: {exc.strerror}") from exc
    finally:
        draft.unlink(missing_ok=True)
    print(f"{path}: {len(chosen)} image{'s' if len(chosen) > 1 else ''}, {written / 1e6:.1f} MB")
    return 0


class _shower:
    """Says how far the export is, on a terminal, each time a percent has passed."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._percent = -1

    def __call__(self, done: int, whole: int) -> None:
        percent = done * 100 // max(1, whole)
        if self._shows and percent != self._percent:
            self._percent = percent
            end = "\n" if done == whole else ""
            print(f"\r{percent:3} %  {done / 1e6:.1f} of {whole / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)
