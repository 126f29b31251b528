"""What happens now, and what happened: flights and stored events."""

import argparse

from pullonce.cli.commands.arguments import Command, count


def _status(status: argparse.ArgumentParser) -> None:
    status.add_argument("--json", action="store_true", help="print JSON")


def _events(events: argparse.ArgumentParser) -> None:
    events.add_argument("-f", "--follow", action="store_true", help="go on with new ones until interrupted")
    events.add_argument("--since", metavar="SEQ", type=count, default=1, help="begin at this sequence number (default 1)")
    events.add_argument("--json", action="store_true", help="one JSON object a line")


COMMANDS = {
    "status": Command("show the flights in flight, and what each waits for", "status:status", _status),
    "events": Command("print the stored events", "status:events", _events),
}
