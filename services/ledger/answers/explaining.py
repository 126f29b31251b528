"""Collects from the tables what is known of one pull, and has it explained."""

from __future__ import annotations

import duckdb

from schemas.ledger import Explanation, Piece, State
from services.ledger.answers.explain import Kind, Story, Work, advice, critical_path
from services.ledger.answers.live import Live, LiveProgress, flight_name
from services.ledger.answers.queries import NoAnswer, Row, normal, pull, rows, seconds_of

_FLIGHT = "SELECT * FROM flights WHERE opened = ? AND flight = ?"


def explain(reader: duckdb.DuckDBPyConnection, wanted: str, live: Live, now: float) -> Explanation:
    """Where the time of one pull went.

    Args:
        wanted: position of a request, name of a flight, or a reference.
        live: what was heard of work under way.
        now: seconds since the epoch.

    Raises:
        NoAnswer: `pull.unknown`, `reference.invalid`.
    """
    flight, request = _find(reader, wanted)
    begin = request["time"] if request and request["time"] > flight["opened_at"] else flight["opened_at"]
    ended = flight["ended"] is not None
    end = seconds_of(flight["ended_at"]) if ended else max(now, seconds_of(begin))
    story = _story(reader, flight, seconds_of(begin), end)
    parts = critical_path(story)
    works = [story.resolve, *story.blobs.values(), *story.layers.values(), *([story.record] if story.record else [])]
    return Explanation(
        pull=pull(flight),
        request=request["sequence"] if request else None,
        wall=story.end - story.begin,
        parts=parts,
        pieces=tuple(_Pieces(reader, flight, story.begin, live).piece(work) for work in works),
        advice=advice(parts),
    )


def _find(reader: duckdb.DuckDBPyConnection, wanted: str) -> tuple[Row, Row | None]:
    """The flight that is meant, and the request, where one is."""
    if wanted.isdecimal() and len(wanted) < 16:
        asked = rows(reader, "SELECT * FROM requests WHERE sequence = ?", int(wanted))
        if asked:
            return rows(reader, _FLIGHT, asked[0]["opened"], asked[0]["flight"])[0], asked[0]
        found = rows(reader, "SELECT * FROM flights WHERE opened = ?", int(wanted))
    elif len(wanted) == 16 and all(c in "0123456789abcdef" for c in wanted):
        found = rows(reader, "SELECT * FROM flights WHERE flight = ? ORDER BY opened DESC LIMIT 1", wanted)
    else:
        latest = "SELECT max(opened) FROM flights WHERE reference = ?"
        reference = normal(wanted)
        found = rows(reader, f"SELECT * FROM flights WHERE opened = ({latest}) AND reference = ?", reference, reference)
    if not found:
        raise NoAnswer(f"the ledger knows no pull {wanted}", code="pull.unknown")
    return found[0], None


def _story(reader: duckdb.DuckDBPyConnection, flight: Row, begin: float, end: float) -> Story:
    names = (flight["opened"], flight["flight"])
    until = flight["ended"] or 1 << 62
    story = Story(begin=begin, end=end, ended=flight["ended"] is not None, resolve=Work("resolve"))
    resolved = rows(
        reader,
        "SELECT * FROM resolutions WHERE opened = ? AND flight = ? AND sequence > opened ORDER BY sequence LIMIT 1",
        *names,
    )
    if not resolved:
        _mark_failure(reader, story.resolve, "pull.unresolved", names, until)
        return story
    at = resolved[0]["sequence"]
    story.resolve = _done("resolve", "", resolved[0])
    needs = rows(
        reader, "SELECT * FROM flight_layers WHERE sequence = ? AND opened = ? AND flight = ? ORDER BY position", at, *names
    )
    facts = _Facts(reader, flight["store"], at, until)
    parent = ""
    for need in needs:
        story.blobs[need["digest"]] = facts.work("fetch", need["digest"], present=need["fetched"])
        if need["chain_id"] and flight["snapshots"]:
            layer = facts.work("unpack", need["chain_id"], present=need["unpacked"])
            layer.blob, layer.parent = need["digest"], parent
            story.layers[need["chain_id"]] = layer
            parent = need["chain_id"]
    if not resolved[0]["recorded"]:
        recorded = rows(reader, "SELECT * FROM records WHERE opened = ? AND flight = ? AND sequence > opened LIMIT 1", *names)
        story.record = _done("record", "", recorded[0]) if recorded else Work("record")
        if not recorded:
            _mark_failure(reader, story.record, "pull.unrecorded", names, until)
    return story


def _done(kind: Kind, name: str, row: Row) -> Work:
    return Work(kind, name, end=seconds_of(row["time"]), steps=dict(row["seconds"] or {}))


def _mark_failure(reader: duckdb.DuckDBPyConnection, work: Work, kind: str, names: tuple[int, str], until: int) -> None:
    query = "SELECT time FROM failures WHERE kind = ? AND opened = ? AND flight = ? AND sequence BETWEEN opened AND ? LIMIT 1"
    if failed := rows(reader, query, kind, *names, until):
        work.end, work.failed = seconds_of(failed[0]["time"]), True


class _Facts:
    """What the log says of blobs and layers between a flight's resolution and its end."""

    def __init__(self, reader: duckdb.DuckDBPyConnection, store: str, after: int, until: int) -> None:
        self._reader = reader
        self._about = (store, after, until)

    def work(self, kind: Kind, name: str, *, present: bool) -> Work:
        table, column = ("blobs", "digest") if kind == "fetch" else ("layers", "chain_id")
        if present:
            return Work(kind, name, present=True)
        among = f"store = ? AND sequence BETWEEN ? AND ? AND {column} = ?"
        found = rows(self._reader, f"SELECT * FROM {table} WHERE {among} ORDER BY sequence LIMIT 1", *self._about, name)
        if not found:
            return self._unfinished(kind, name, among)
        work = _done(kind, name, found[0])
        claim = "SELECT sequence, time FROM claims WHERE revision = ? AND name = ?"
        return self._claimed(work, rows(self._reader, claim, found[0]["revision"], name))

    def _claimed(self, work: Work, claim: list[Row]) -> Work:
        """A piece of work with what the claim behind it says, where one was announced."""
        if claim:
            work.ordered = seconds_of(claim[0]["time"])
            work.others = claim[0]["sequence"] < self._about[1]
        return work

    def _unfinished(self, kind: Kind, name: str, among: str) -> Work:
        noun = "blob" if kind == "fetch" else "layer"
        query = f"SELECT time FROM failures WHERE kind = '{noun}.failed' AND {among} ORDER BY sequence DESC LIMIT 1"
        failed = rows(self._reader, query, *self._about, name)
        if failed:
            return Work(kind, name, end=seconds_of(failed[0]["time"]), failed=True)
        claim = "store = ? AND noun = ? AND name = ? AND sequence < ? ORDER BY sequence DESC LIMIT 1"
        about = (self._about[0], noun, name, self._about[2])
        return self._claimed(Work(kind, name), rows(self._reader, f"SELECT sequence, time FROM claims WHERE {claim}", *about))


class _Pieces:
    """Work as it is shown, with who holds it and what went wrong."""

    def __init__(self, reader: duckdb.DuckDBPyConnection, flight: Row, begin: float, live: Live) -> None:
        self._reader = reader
        self._flight = flight
        self._begin = begin
        self._live = live

    def piece(self, work: Work) -> Piece:
        heard = self._heard(work)
        claim = self._claim(work)
        failures = self._failures(work)
        ordered = work.ordered if work.ordered is not None else seconds_of(claim["time"]) if claim else None
        return Piece(
            work=work.kind,
            name=work.name,
            state=self._state(work, ordered=bool(claim or heard.worker)),
            holder=claim["holder"] if claim else "",
            ordered=self._after(ordered),
            begin=self._after(work.begin),
            end=self._after(work.end),
            steps=work.steps,
            others=work.others,
            size=heard.size,
            progress=heard.done,
            doing=heard.state,
            worker=heard.worker,
            working=self._after(heard.since or None),
            attempts=len(failures) + heard.attempts,
            error=failures[-1]["message"] if failures and not heard.error else heard.error,
        )

    def _after(self, moment: float | None) -> float | None:
        return None if moment is None else round(moment - self._begin, 6)

    def _state(self, work: Work, *, ordered: bool) -> State:
        if work.present:
            return "present"
        if work.failed:
            return "failed"
        return "done" if work.end is not None else "ordered" if ordered else "waiting"

    def _heard(self, work: Work) -> LiveProgress:
        if work.end is not None or work.present:
            return LiveProgress()
        name = work.name or flight_name(self._flight["flight"], self._flight["opened"])
        return self._live.of(work.kind, self._flight["store"], name)

    def _claim(self, work: Work) -> Row | None:
        """The last claim that was announced before the flight ended."""
        if not work.name or work.present:
            return None
        noun = "blob" if work.kind == "fetch" else "layer"  # an uncompressed lowest layer has one name for both
        among = "store = ? AND noun = ? AND name = ? AND sequence < ?"
        about = (self._flight["store"], noun, work.name, self._flight["ended"] or 1 << 62)
        found = rows(self._reader, f"SELECT * FROM claims WHERE {among} ORDER BY sequence DESC LIMIT 1", *about)
        return found[0] if found else None

    def _failures(self, work: Work) -> list[Row]:
        between = "sequence BETWEEN ? AND ?"
        ends = (self._flight["opened"], self._flight["ended"] or 1 << 62)
        if not work.name:
            kind = "pull.unresolved" if work.kind == "resolve" else "pull.unrecorded"
            query = f"SELECT message FROM failures WHERE {between} AND kind = ? AND opened = ? AND flight = ? ORDER BY sequence"
            return rows(self._reader, query, *ends, kind, self._flight["opened"], self._flight["flight"])
        column = "digest" if work.kind == "fetch" else "chain_id"
        kind = "blob.failed" if work.kind == "fetch" else "layer.failed"
        query = f"SELECT message FROM failures WHERE {between} AND store = ? AND kind = ? AND {column} = ? ORDER BY sequence"
        return rows(self._reader, query, *ends, self._flight["store"], kind, work.name)
