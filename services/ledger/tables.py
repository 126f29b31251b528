"""The tables of the ledger: every column with its type and meaning. Pure; the statements that make them are derived here.

What only grows is a table. What still changes while a flight is in the air lies in the small table `waiting`; the views
`requests` and `flights` show both as one.
"""

from dataclasses import dataclass

VERSION = 1
"""Of the tables. A file of another version is made anew from the log."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: an SQL type, and a meaning for people."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view; `select` is what a view shows."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    select: str = ""

    def create(self) -> str:
        """The statements that make it, comments included."""
        if self.select:
            names = ", ".join(column.name for column in self.columns)
            made = f"CREATE VIEW {self.name} ({names}) AS {self.select}"
        else:
            made = f"CREATE TABLE {self.name} ({', '.join(f'{column.name} {column.type}' for column in self.columns)})"
        said = [f"COMMENT ON {'VIEW' if self.select else 'TABLE'} {self.name} IS {_quoted(self.meaning)}"]
        said += [f"COMMENT ON COLUMN {self.name}.{column.name} IS {_quoted(column.meaning)}" for column in self.columns]
        return "".join(f"{statement};\n" for statement in (made, *said))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _columns(text: str) -> tuple[Column, ...]:
    """One column a line: name, type (without spaces), meaning."""
    return tuple(Column(*line.split(None, 2)) for line in text.strip().splitlines())


def _table(name: str, meaning: str, columns: str, select: str = "") -> Table:
    return Table(name, meaning, _columns(columns), select)


_FACT = """
    sequence      BIGINT                position of the event in the log
    time          TIMESTAMP             when the bus stored it (UTC)
    store         VARCHAR               name of the store
"""

_REQUEST = """
    sequence      BIGINT                position of the request in the log: what names it
    time          TIMESTAMP             when the bus stored it (UTC)
    store         VARCHAR               name of the store
    reference     VARCHAR               normalised reference
    platform      VARCHAR               platform that was asked for; empty: that of the store's machine
    credential    VARCHAR               name of the credential; empty: the registry's own, or none
    policy        VARCHAR               `always` or `if-not-present`
    snapshots     BOOLEAN               whether snapshots were asked for
    requester     VARCHAR               who asked, in the requester's own words
    flight        VARCHAR               name of the flight key
    opened        BIGINT                position at which its flight was opened: with `flight`, what names the flight
    cancelled_at  TIMESTAMP             when the requester left; null: did not
"""

_FLIGHT = """
    flight        VARCHAR               name of the flight key
    opened        BIGINT                position at which it was opened
    opened_at     TIMESTAMP             when
    store         VARCHAR               name of the store
    reference     VARCHAR               normalised reference
    registry      VARCHAR               host of the registry; empty where the reference could not be read
    platform      VARCHAR               the platform that was chosen; before that, the one asked for
    credential    VARCHAR               name of the credential
    policy        VARCHAR               `always` or `if-not-present`
    snapshots     BOOLEAN               whether snapshots were asked for
    requests      BIGINT                requests that it answers
    cancelled     BIGINT                of these, how many had left before the end
    requesters    VARCHAR[]             the first ten, by name
    ended         BIGINT                position of the ending; null: in the air
    ended_at      TIMESTAMP             when
    covers        BIGINT                answers every request for its key below this position
    settled_at    TIMESTAMP             when the event was stored that ended it: the last key settled, or failed
    outcome       VARCHAR               `completed` or `failed`; null: in the air
    code          VARCHAR               of a failure
    message       VARCHAR               of a failure
    digest        VARCHAR               what the reference named: an index or a manifest
    image_id      VARCHAR               digest of the config
    chain_id      VARCHAR               top layer's ChainID; empty: nothing was unpacked
    layers        BIGINT                layers of the image
    size          BIGINT                bytes of all layers as stored
    fetched       BIGINT                blobs fetched for it
    fetched_bytes BIGINT                their bytes as stored
    reused        BIGINT                blobs that were in the store already
    reused_bytes  BIGINT                their bytes
    waited        BIGINT                blobs that another flight had ordered
    waited_bytes  BIGINT                their bytes
    unpacked      BIGINT                layers unpacked for it
    unpack_reused BIGINT                layers that were unpacked already
    unpack_waited BIGINT                layers that another flight had ordered
    seconds       DOUBLE                from its opening to its end
    release       DOUBLE                from `settled_at` to `ended_at`
"""

WAITING = _table(
    "waiting",
    "Requests that are not answered yet; `requests` shows them too.",
    _REQUEST + "    opened_at     TIMESTAMP             when its flight was opened\n",
)

ANSWERED = _table(
    "answered",
    "Requests that were answered; `requests` shows them too.",
    _REQUEST
    + """
    ended         BIGINT                position of the ending that answers it
    ended_at      TIMESTAMP             when
    outcome       VARCHAR               `completed`, `failed`, or `cancelled` where the requester had left
    code          VARCHAR               of a failure
    seconds       DOUBLE                from the request to the ending
""".lstrip("\n"),
)

ENDED = _table("ended_flights", "Flights that have ended; `flights` shows them too.", _FLIGHT)

_OUTCOME = "NULL::BIGINT, NULL::TIMESTAMP, NULL::VARCHAR, NULL::VARCHAR, NULL::DOUBLE"

REQUESTS = Table(
    "requests",
    "One row a request, answered or not.",
    ANSWERED.columns,
    f"SELECT * FROM answered UNION ALL SELECT * EXCLUDE (opened_at), {_OUTCOME} FROM waiting",
)

FLIGHTS = Table(
    "flights",
    "One row a flight, ended or in the air.",
    ENDED.columns,
    """SELECT * FROM ended_flights UNION ALL BY NAME
    SELECT flight, opened, min(opened_at) AS opened_at, min(store) AS store, min(reference) AS reference,
        min(split_part(reference, '/', 1)) AS registry, min(platform) AS platform, min(credential) AS credential,
        min(policy) AS policy, bool_or(snapshots) AS snapshots, count(*) AS requests, count(cancelled_at) AS cancelled,
        list_slice(list_sort(list_distinct(list(requester) FILTER (requester <> ''))), 1, 10) AS requesters
    FROM waiting GROUP BY flight, opened""",
)

RESOLUTIONS = _table(
    "resolutions",
    "One row each time a reference was resolved.",
    _FACT
    + """    flight        VARCHAR               flight it was resolved for
    opened        BIGINT                position at which that was opened
    reference     VARCHAR               normalised reference
    platform      VARCHAR               platform that was chosen
    registry      VARCHAR               where it was asked
    repository    VARCHAR               and in which repository
    credential    VARCHAR               with which credential
    digest        VARCHAR               what the reference names
    manifest      VARCHAR               digest of the platform's manifest
    config        VARCHAR               digest of the config
    layers        BIGINT                layers of the image
    size          BIGINT                bytes of all layers as stored
    recorded      BOOLEAN               the store's index listed it already
    revision      BIGINT                revision of the claim
    seconds       MAP(VARCHAR,DOUBLE)   step → seconds: token, head, manifest, config, store
""",
)

FLIGHT_LAYERS = _table(
    "flight_layers",
    "One row a layer of each resolution: what the flight needs, and what the disk held of it.",
    _FACT
    + """    flight        VARCHAR               flight that needs it
    opened        BIGINT                position at which that was opened
    position      BIGINT                1 is the lowest layer
    digest        VARCHAR               digest of the blob
    size          BIGINT                its bytes as stored
    diff_id       VARCHAR               diffID; empty: no file-system layer
    chain_id      VARCHAR               ChainID of the snapshot
    fetched       BOOLEAN               the blob was in the store
    unpacked      BOOLEAN               the snapshot was there
""",
)

RECORDS = _table(
    "records",
    "One row each time the store's index came to list an image.",
    _FACT
    + """    flight        VARCHAR               flight it was recorded for
    opened        BIGINT                position at which that was opened
    reference     VARCHAR               normalised reference
    revision      BIGINT                revision of the claim
    seconds       MAP(VARCHAR,DOUBLE)   step → seconds: record
""",
)

BLOBS = _table(
    "blobs",
    "One row each time a blob was said to be in the store: fetched, or found there.",
    _FACT
    + """    digest        VARCHAR               digest of the blob
    size          BIGINT                its bytes
    reused        BOOLEAN               it was there already
    revision      BIGINT                revision of the claim
    seconds       MAP(VARCHAR,DOUBLE)   step → seconds: look, slot, token, answer, transfer, verify
""",
)

LAYERS = _table(
    "layers",
    "One row each time a layer was said to be unpacked: now, or before.",
    _FACT
    + """    chain_id      VARCHAR               ChainID of the snapshot
    diff_id       VARCHAR               diffID of the layer
    reused        BOOLEAN               it was there already
    entries       BIGINT                entries of the archive
    size          BIGINT                bytes of file content
    left_out      MAP(VARCHAR,BIGINT)   what an unprivileged unpacker could not make: kind → how many
    revision      BIGINT                revision of the claim
    seconds       MAP(VARCHAR,DOUBLE)   step → seconds: bytes, slot, unpack, blob, parent, complete, commit
""",
)

CLAIMS = _table(
    "claims",
    "One row each time a coordinator won the claim of a blob or a layer, and its order was queued.",
    _FACT
    + """    noun          VARCHAR               `blob` or `layer`
    name          VARCHAR               digest or ChainID
    revision      BIGINT                revision of the claim; the fact that ends the work carries the same
    holder        VARCHAR               the coordinator
""",
)

FAILURES = _table(
    "failures",
    "One row a failure: of a resolution, a blob, a layer, a record, and of the flights that they ended.",
    _FACT
    + """    kind          VARCHAR               type of the event: `blob.failed`, `pull.failed`…
    flight        VARCHAR               flight, where it is one's
    opened        BIGINT                position at which that was opened
    reference     VARCHAR               normalised reference, where it is a flight's
    digest        VARCHAR               digest of the blob, where it is one's or of a layer's
    chain_id      VARCHAR               ChainID, where it is a layer's
    registry      VARCHAR               where the blob was asked for
    repository    VARCHAR               and in which repository
    credential    VARCHAR               with which credential
    concerns      VARCHAR               whom: key, source, credential, nobody
    code          VARCHAR               of the distribution spec where it has one, else lower-case dotted
    message       VARCHAR               for people
    revision      BIGINT                revision of the claim
""",
)

LOSSES = _table(
    "losses",
    "One row each time a blob or a snapshot was found to be gone.",
    _FACT
    + """    noun          VARCHAR               `blob` or `layer`
    name          VARCHAR               digest or ChainID
    reason        VARCHAR               why, where that is known
""",
)

OPENINGS = _table(
    "openings",
    "One row a life of a store: a new incarnation holds nothing of what an earlier one held.",
    _FACT + "    incarnation   VARCHAR               its name\n",
)

MALFORMED = _table(
    "malformed",
    "One row a message in the log that is no event.",
    """
    sequence      BIGINT                position in the log
    time          TIMESTAMP             when the bus stored it (UTC)
    subject       VARCHAR               its subject
    reason        VARCHAR               why it is no event
""",
)

EVENTS = _table(
    "events",
    "One row an event, whatever it is: the log's own order and time.",
    """
    sequence      BIGINT                position in the log
    time          TIMESTAMP             when the bus stored it (UTC)
    kind          VARCHAR               its type; `malformed` for what is no event
""",
)

DAYS = _table(
    "days",
    "One row a day, store and image of what was rolled up: the detail of that day is gone from the other tables.",
    """
    day           DATE                  the day on which the flights ended (UTC)
    store         VARCHAR               name of the store
    reference     VARCHAR               normalised reference
    registry      VARCHAR               host of the registry
    flights       BIGINT                flights that ended
    failed        BIGINT                of these, how many failed
    requests      BIGINT                requests that they answered
    cancelled     BIGINT                of these, how many had left
    size          BIGINT                bytes that the requests would have cost without sharing and reuse
    fetched_bytes BIGINT                bytes fetched
    reused_bytes  BIGINT                bytes that were in the store already
    waited_bytes  BIGINT                bytes that another flight had ordered
    p50           DOUBLE                seconds from opening to end: median
    p95           DOUBLE                19 of 20 took at most this long
    p99           DOUBLE                99 of 100 took at most this long
""",
)

REGISTRIES = _table(
    "registries",
    "One row a registry, over all flights that are not rolled up.",
    """
    registry      VARCHAR               its host
    flights       BIGINT                flights for its images
    requests      BIGINT                requests that they answer
    failed        BIGINT                flights that failed
    fetched_bytes BIGINT                bytes fetched
    reused_bytes  BIGINT                bytes that were in the store already
    waited_bytes  BIGINT                bytes that another flight had ordered
    last          TIMESTAMP             when the last flight was opened
""",
    """SELECT registry, count(*), sum(requests)::BIGINT, count(*) FILTER (outcome = 'failed'), sum(fetched_bytes)::BIGINT,
        sum(reused_bytes)::BIGINT, sum(waited_bytes)::BIGINT, max(opened_at)
    FROM flights WHERE registry <> '' GROUP BY registry""",
)

POSITION = _table(
    "position",
    "One row: how far the log is folded, written in the same transaction as the rows.",
    """
    version       BIGINT                of the tables
    sequence      BIGINT                position of the last folded event
    time          TIMESTAMP             when the bus stored it (UTC)
    first         BIGINT                position of the first event that is in the tables
""",
)

TABLES = (
    *(EVENTS, WAITING, ANSWERED, ENDED, RESOLUTIONS, FLIGHT_LAYERS, RECORDS, BLOBS, LAYERS, CLAIMS, FAILURES),
    *(LOSSES, OPENINGS, MALFORMED, DAYS, POSITION),
)
"""What holds rows."""

VIEWS = (REQUESTS, FLIGHTS, REGISTRIES)
"""What shows the rows of others."""


def create_all() -> str:
    """The statements that make an empty ledger at position 0."""
    made = [table.create() for table in (*TABLES, *VIEWS)]
    return "\n".join([*made, f"INSERT INTO position VALUES ({VERSION}, 0, NULL, NULL);"])
