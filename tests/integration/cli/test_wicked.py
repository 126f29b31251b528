"""What strangers wrote into the log commands no terminal, in any view of the command."""

from __future__ import annotations

import json

import msgspec

from schemas.events import Event, PullRequested
from tests.integration.cli.test_pull import run
from tests.support.scripted import failed, scripted

WICKED = "\x1b[2J\x1b]0;owned\x07 \u202egpj\n second line \x9b31m"


async def test_what_strangers_wrote_into_the_log_commands_no_terminal(nats_url: str) -> None:
    """Codes, messages and holders as any client or an older part may have written them."""

    def wicked(request: PullRequested, sequence: int) -> Event:
        return msgspec.structs.replace(failed(request, sequence), code=f"C{WICKED}", message=f"M{WICKED}")

    async with scripted(nats_url) as script:
        script.answer = wicked
        code, out, err = await run("pull", "redis", url=nats_url)
        told = await run("events", url=nats_url)
        as_json = await run("events", "--json", url=nats_url)
    assert code == 1 and len(err.splitlines()) == 1
    shown = [out, err, *told[1:], *as_json[1:]]
    assert all(each.isprintable() for text in shown for each in text.splitlines())
    assert "\\x1b[2J" in err and "\\u202egpj second line" in err and "\\x1b[2J" in told[1]
    events = [json.loads(line)["event"] for line in as_json[1].splitlines()]
    assert [event["message"] for event in events if event["type"] == "pull.failed"] == [f"M{WICKED}"]
