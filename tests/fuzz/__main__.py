"""`./dev fuzz [SECONDS] [SEED] [TARGET…]`: feed each parser for its share of the time; 1 where something failed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tests.fuzz import documents, layers
from tests.fuzz.running import run
from tests.fuzz.target import Target

TARGETS: Sequence[Target] = (*layers.TARGETS, *documents.TARGETS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="for all targets together")
    parser.add_argument("seed", nargs="?", type=int, default=int.from_bytes(os.urandom(4), "big"), help="of the first round")
    parser.add_argument("targets", nargs="*", choices=[[], *(each.name for each in TARGETS)], metavar="TARGET")
    args = parser.parse_args()
    chosen = [each for each in TARGETS if not args.targets or each.name in args.targets]
    return 0 if run(chosen, args.seconds, args.seed, print) else 1


if __name__ == "__main__":
    sys.exit(main())
