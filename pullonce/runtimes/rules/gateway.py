"""The gateway itself: whether it is there and can do what others ask of it. Pure."""

from collections.abc import Iterator, Sequence

from pullonce.runtimes.facts import DoorState, Facts
from pullonce.runtimes.finding import Finding
from pullonce.runtimes.offer import Offer

NAME = "gateway"

UNFIT = ",:\\"
"""What mount options have no way to say in a path."""

_STATES: dict[DoorState, tuple[str, str]] = {
    "absent": ("nothing is at {place}", "start pullonce (`pullonce up`, or pullonce-gateway@.service), with this door on"),
    "refused": ("nobody listens at {place}", "the gateway ended there: start it again, and see its log"),
    "forbidden": ("{place} may not be used by this user", "run this as root; runtimes do run so"),
    "silent": (
        "what listens at {place} is no gateway",
        "see which process it is (ss -lxp, ss -ltp), and give one of both another address",
    ),
}


def examine(offer: Offer, doors: Sequence[str], facts: Facts) -> Iterator[Finding]:
    """What concerns every runtime.

    Args:
        doors: those that the runtimes use which are looked at.
    """
    if "snapshotter" in doors and any(character in offer.home for character in UNFIT):
        why = (
            "containerd mounts layers by their paths, and its mount options have no way to say a comma, a colon or a backslash"
        )
        yield Finding(NAME, "blocks", f"the store lies below {offer.home}", why, "move the home (PULLONCE_HOME)")
    if offer.hosts_dir and offer.mirror:
        why = (
            "the fetcher finds our own mirror there among the hosts of a registry; the mirror refuses it, which costs a request"
        )
        yield Finding(
            NAME,
            "note",
            f"PULLONCE_HOSTS_DIR is {offer.hosts_dir}",
            why,
            "give the fetcher a directory without this mirror",
            offer.hosts_dir,
        )
    if not facts.live:
        return
    if not facts.root:
        yield Finding(
            NAME, "note", "this is not run by root", "some files and sockets cannot be looked at", "run it as root to see all"
        )
    for door in doors:
        state, place = facts.doors.get(door, "answers"), getattr(offer, door)
        if state != "answers":
            what, mend = _STATES[state]
            why = f"the {door} is how runtimes reach pullonce here"
            yield Finding(NAME, "note" if state == "forbidden" else "blocks", what.format(place=place), why, mend)
    if facts.unknown:
        why = "the bus lets nobody in without a key, and this command has none"
        mend = "run this as root where the key of clients is, or with its settings: set -a; . /etc/pullonce/bus/client/env"
        yield Finding(NAME, "note", f"whether the bus answers is not known: {facts.unknown}", why, mend)
    elif facts.bus:
        why = "the gateway gives what is on the disk, and declines the rest: runtimes pull by themselves"
        yield Finding(NAME, "blocks", f"the bus does not answer: {facts.bus}", why, "start pullonce, or set PULLONCE_NATS_URL")
    elif facts.missing:
        why = "the gateway asks for pulls, and nobody carries them out"
        yield Finding(
            NAME,
            "blocks",
            f"these parts do not answer: {', '.join(facts.missing)}",
            why,
            "`pullonce ping` tells more; start them",
        )
