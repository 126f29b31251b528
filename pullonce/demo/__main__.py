"""`./dev demo`: the main job, shown. One pull into a fresh home, twenty at once into another, and what each of them cost.

Every pull is a process of its own, as it would be from twenty jobs. The services are those of `pullonce up`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pullonce.config import store_root
from pullonce.demo.registry import RATE, DemoImage, DemoRegistry
from pullonce.errors import PullonceError
from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID

MANY = 20
WORK = {
    "pull.resolved": "references resolved",
    "blob.fetched": "blobs fetched",
    "layer.unpacked": "layers unpacked",
    "pull.completed": "endings",
}
"""Events that say that something was done, and what the table calls it: of each, many pulls must cause as many as one."""


class DemoFailed(PullonceError):
    """A part of the demonstration did not work; the message says which."""


@dataclass(slots=True)
class Run:
    """What some pulls at once cost."""

    clients: int
    wall: float = 0.0
    """Seconds from the start of the first client to the end of the last."""
    cpu: float = 0.0
    """Processor seconds of all clients together."""
    requests: Counter[str] = field(default_factory=Counter)
    """Of the registry, by kind; empty where it is not ours to count."""
    events: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    image_id: str = ""
    chain_id: str = ""
    snapshot: str = ""


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration and print its table."""
    parser = argparse.ArgumentParser(prog="./dev demo", description="Pull an image once, and twenty times at once.")
    parser.add_argument("reference", metavar="REF", nargs="?", help="a real image (default: one from a registry of our own)")
    parser.add_argument("--home", metavar="DIR", type=Path, required=True, help="where it all goes; emptied first")
    args = parser.parse_args(argv)
    try:
        if args.reference:
            runs = _runs(args.home.absolute(), args.reference, Counter())
        else:
            image = DemoImage()
            print(f"an image of {image.layers} layers, {image.size / 1e6:.1f} MB, served at {RATE / 1e6:.0f} MB/s", flush=True)
            with DemoRegistry(image) as registry:
                runs = _runs(args.home.absolute(), registry.reference, registry.counts)
    except PullonceError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    print("\n" + "\n".join(table(runs)))
    alike = runs[0].requests == runs[1].requests and all(runs[0].events[kind] == runs[1].events[kind] for kind in WORK)
    if alike:
        print(f"\n{MANY} pulls cost exactly the work of one.")
    elif not _same_content(runs):
        print(f"\n{MANY} pulls cost other work than one: this is a defect.")
    elif late := runs[1].events["pull.completed"] - runs[0].events["pull.completed"]:
        print(f"\nsome of the {MANY} clients came when the image was there already, in {late} later flights:")
        print("each asks the registry once what the tag names now (HEAD), and fetches nothing.")
    return 0 if alike or _same_content(runs) else 1


def _same_content(runs: list[Run]) -> bool:
    """Whether as much was fetched and unpacked in all runs, however many flights there were."""
    return len({(run.events["blob.fetched"], run.events["layer.unpacked"]) for run in runs}) == 1


def _runs(home: Path, reference: str, counts: Counter[str]) -> list[Run]:
    """One pull and many, each into a home of its own, so that nothing is there before."""
    runs = []
    for clients in (1, MANY):
        base = home / f"{clients}"
        shutil.rmtree(base, ignore_errors=True)
        print(f"pulling {reference} {'once' if clients == 1 else f'{clients} times at once'} into {base}", flush=True)
        counts.clear()
        runs.append(_run(base, reference, clients))
        runs[-1].requests = Counter(counts)
    return runs


def _run(home: Path, reference: str, clients: int) -> Run:
    run = Run(clients)
    with _services(home) as environ:
        _pull_at_once(run, reference, environ)
        listed = _pullonce("events", "--json", environ=environ)
    for line in listed.splitlines():
        event = json.loads(line).get("event", {})
        run.events[str(event.get("type"))] += 1
    run.snapshot = str(Snapshots(store_root(home, "default")).path(ChainID(run.chain_id))) if run.chain_id else "none"
    return run


def _pull_at_once(run: Run, reference: str, environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pullonce.cli.main", "pull", "--json", reference]
    before, started = os.times(), time.monotonic()
    processes = [
        subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(run.clients)
    ]
    answers = [(*process.communicate(), process.returncode) for process in processes]
    run.wall = time.monotonic() - started
    after = os.times()
    run.cpu = after.children_user + after.children_system - before.children_user - before.children_system
    for said, complaint, code in answers:
        if code != 0:
            raise DemoFailed(f"a pull ended with exit code {code}: {complaint.strip() or said.strip()}")
        ending = json.loads(said)
        run.answered += 1
        run.image_id, run.chain_id = ending["image_id"], ending.get("chain_id", "")


@contextmanager
def _services(home: Path) -> Iterator[dict[str, str]]:
    """`pullonce up` for one home, ready; yields the environment in which clients find it."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")}
    environ["PULLONCE_HOME"] = str(home)
    log = home / "up.log"
    home.mkdir(parents=True)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "pullonce.cli.main", "up"],
            env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise DemoFailed(f"the services do not start; {log} ends with:\n{log.read_text()[-2000:]}")
        yield environ
    finally:
        process.terminate()
        process.wait()


def _pullonce(*arguments: str, environ: dict[str, str]) -> str:
    command = [sys.executable, "-m", "pullonce.cli.main", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoFailed(f"pullonce {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def table(runs: list[Run]) -> list[str]:
    """The runs side by side."""
    rows = [("", [f"{run.clients} pull{'s' if run.clients > 1 else ''}" for run in runs])]
    rows.append(("wall time", [f"{run.wall:.2f} s" for run in runs]))
    rows.append(("processor time of the clients", [f"{run.cpu:.2f} s" for run in runs]))
    rows.append(("answered", [str(run.answered) for run in runs]))
    kinds = sorted({kind for run in runs for kind in run.requests})
    rows += [(f"registry: {kind}", [str(run.requests[kind]) for run in runs]) for kind in kinds]
    rows += [(name, [str(run.events[kind]) for run in runs]) for kind, name in WORK.items()]
    lines = [f"{name:<32}" + "".join(f"{cell:>12}" for cell in cells) for name, cells in rows]
    return [*lines, "", f"image id  {runs[-1].image_id}", f"snapshot  {runs[-1].snapshot}"]


if __name__ == "__main__":
    sys.exit(main())
