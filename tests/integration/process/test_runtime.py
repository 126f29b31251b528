"""The life of a service process: its logs, its exit code, and how it takes a signal."""

import json
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, logging, sys
from pullonce.errors import BusClosed
from pullonce.process.runtime import run

log = logging.getLogger("example")

async def fail():
    raise BusClosed("the bus is gone")

async def main():
    match sys.argv[1]:
        case "end":
            log.info("a fact", extra={"digest": "sha256:1"})
        case "known":
            await fail()
        case "group":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
        case "defect":
            raise ZeroDivisionError("one by zero")
        case "bus-dies":
            print("up", flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(fail())
        case "wait":
            print("up", flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                print("drained", flush=True)
        case "stubborn":
            print("up", flush=True)
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    print("again", flush=True)

run(main, "example")
"""


def start(case: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, case], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ or None
    )


def ended(case: str, **environ: str) -> tuple[int, list[dict[str, object]]]:
    process = start(case, **environ)
    _, err = process.communicate(timeout=30)
    return process.returncode, [json.loads(line) for line in err.splitlines()]


def test_logs_are_json_lines_with_their_fields() -> None:
    code, lines = ended("end")
    assert code == 0 and len(lines) == 1
    assert lines[0].pop("time")
    assert lines == [{"level": "info", "service": "example", "logger": "example", "message": "a fact", "digest": "sha256:1"}]


@pytest.mark.parametrize("case", ["known", "group"])
def test_an_error_raised_on_purpose_is_one_clear_line(case: str) -> None:
    code, lines = ended(case)
    assert code == 1
    assert [(line["level"], line["message"], "traceback" in line) for line in lines] == [("error", "the bus is gone", False)]


def test_a_defect_leaves_its_traceback() -> None:
    code, lines = ended("defect")
    assert code == 70
    assert lines[0]["level"] == "critical" and "ZeroDivisionError: one by zero" in str(lines[0]["traceback"])


def test_a_wrong_setting_is_named() -> None:
    code, lines = ended("end", PULLONCE_LOG_LEVEL="loud")
    assert code == 1
    assert lines[0]["message"] == "PULLONCE_LOG_LEVEL is 'loud'; expected debug, info, warning or error"


def test_who_is_told_to_stop_while_the_bus_dies_ends_well() -> None:
    process = start("bus-dies")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "stopped while the bus was away: the bus is gone" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_well(number: signal.Signals) -> None:
    process = start("wait")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "drained\n")


def test_a_second_signal_ends_at_once() -> None:
    process = start("stubborn")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "again\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
