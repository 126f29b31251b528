"""The fold as SQL: rows staged from the log → rows of the tables. Pure: only statements are made here.

However the log is cut into batches, the tables come out the same. Facts are appended as they are; what a flight is made of
comes from its requests that wait (the table `waiting`) and those of the batch together.
"""

from dataclasses import dataclass

STAGE = "CREATE TEMP TABLE stage (sequence BIGINT, micros BIGINT, kind VARCHAR, body JSON)"
"""Where a batch lies while it is folded."""

DOORS = "histogram(door) FILTER (door IS NOT NULL)::MAP(VARCHAR, BIGINT)"
"""Of some requests: door → how many came by it; null where none said."""

_STRUCTURES = {"SECONDS": '"MAP(VARCHAR,DOUBLE)"', "COUNTS": '"MAP(VARCHAR,BIGINT)"'}
_STRUCTURES["SOURCE"] = '{"registry":"VARCHAR","repository":"VARCHAR","credential":"VARCHAR"}'
_STRUCTURES["DESCRIPTOR"] = '{"digest":"VARCHAR","size":"BIGINT"}'
_STRUCTURES["LAYERS"] = (
    '[{"blob":{"digest":"VARCHAR","size":"BIGINT"},"diff_id":"VARCHAR","chain_id":"VARCHAR",'
    '"fetched":"BOOLEAN","unpacked":"BOOLEAN"}]'
)
_SHARED = (
    *("requests", "fetched", "fetched_bytes", "reused", "reused_bytes", "waited", "waited_bytes"),
    *("unpacked", "unpack_reused", "unpack_waited"),
)
_STRUCTURES["SHARING"] = "{" + ",".join(f'"{name}":"BIGINT"' for name in _SHARED) + "}"
_DEFAULTS = {"VARCHAR": "''", "BIGINT": "0", "BOOLEAN": "false", "SECONDS": "MAP {}", "COUNTS": "MAP {}"}


@dataclass(frozen=True, slots=True)
class FoldStep:
    """Statements that are carried out where the batch holds any of these kinds; all batches, where none are named."""

    kinds: frozenset[str]
    statements: tuple[str, ...]

    def concerns(self, kinds: set[str]) -> bool:
        """Whether a batch of these kinds needs it."""
        return not self.kinds or not self.kinds.isdisjoint(kinds)


def _facts(kinds: str, fields: str) -> str:
    """A query for the staged events of some kinds: `sequence, time, kind, store` and the named fields of their bodies.

    Args:
        kinds: with spaces between.
        fields: `name TYPE, …`; left out of a body, a field takes the default of its type.
    """
    named = [("store", "VARCHAR")] + [
        (name, kind) for name, _, kind in (each.strip().partition(" ") for each in fields.split(","))
    ]
    structure = "{" + ",".join(f'"{name}":' + _STRUCTURES.get(kind, f'"{kind}"') for name, kind in named) + "}"
    defaults = {**{name: _DEFAULTS.get(kind, "NULL") for name, kind in named}, "store": "'default'"}
    columns = ", ".join(
        f"coalesce(body.{name}, {defaults[name]}) AS {name}" if defaults[name] != "NULL" else f"body.{name} AS {name}"
        for name, _ in named
    )
    among = ", ".join(f"'{kind}'" for kind in kinds.split())
    return (
        f"SELECT sequence, make_timestamp(micros) AS time, kind, {columns} FROM "
        f"(SELECT sequence, micros, kind, from_json(body, '{structure}') AS body FROM stage WHERE kind IN ({among}))"
    )


def _append(table: str, columns: str, kinds: str, fields: str) -> FoldStep:
    """Append one row a fact."""
    statement = f"INSERT INTO {table} SELECT {columns} FROM ({_facts(kinds, fields)})"
    return FoldStep(frozenset(kinds.split()), (statement,))


_EVENTS = FoldStep(
    frozenset(),
    ("INSERT INTO events SELECT sequence, make_timestamp(micros), kind FROM stage",),
)

_RESOLVED = (
    "flight VARCHAR, opened BIGINT, reference VARCHAR, platform VARCHAR, source SOURCE, digest VARCHAR, manifest DESCRIPTOR, "
    "config DESCRIPTOR, layers LAYERS, recorded BOOLEAN, revision BIGINT, seconds SECONDS"
)

_RESOLUTIONS = FoldStep(
    frozenset({"pull.resolved"}),
    (
        f"CREATE OR REPLACE TEMP TABLE resolved AS {_facts('pull.resolved', _RESOLVED)}",
        "INSERT INTO resolutions SELECT sequence, time, store, flight, opened, reference, platform, source.registry, "
        "source.repository, coalesce(source.credential, ''), digest, manifest.digest, config.digest, coalesce(len(layers), 0), "
        "coalesce(list_sum(list_transform(layers, lambda layer: layer.blob.size)), 0)::BIGINT, recorded, revision, seconds "
        "FROM resolved",
        "INSERT INTO flight_layers SELECT sequence, time, store, flight, opened, position, layer.blob.digest, "
        "layer.blob.size, coalesce(layer.diff_id, ''), coalesce(layer.chain_id, ''), coalesce(layer.fetched, false), "
        "coalesce(layer.unpacked, false) FROM (SELECT sequence, time, store, flight, opened, "
        "generate_subscripts(layers, 1) AS position, unnest(layers) AS layer FROM resolved)",
    ),
)

_APPENDS = (
    _append("malformed", "sequence, time, subject, reason", "malformed", "subject VARCHAR, reason VARCHAR"),
    _append(
        "records",
        "sequence, time, store, flight, opened, reference, revision, seconds",
        "pull.recorded",
        "flight VARCHAR, opened BIGINT, reference VARCHAR, revision BIGINT, seconds SECONDS",
    ),
    _append(
        "blobs",
        "sequence, time, store, digest, size, reused, revision, seconds",
        "blob.fetched",
        "digest VARCHAR, size BIGINT, reused BOOLEAN, revision BIGINT, seconds SECONDS",
    ),
    _append(
        "layers",
        "sequence, time, store, chain_id, diff_id, reused, entries, size, left_out, revision, seconds",
        "layer.unpacked",
        "chain_id VARCHAR, diff_id VARCHAR, reused BOOLEAN, entries BIGINT, size BIGINT, left_out COUNTS, revision BIGINT, "
        "seconds SECONDS",
    ),
    _append(
        "claims",
        "sequence, time, store, split_part(kind, '.', 1), digest || chain_id, revision, holder",
        "blob.claimed layer.claimed",
        "digest VARCHAR, chain_id VARCHAR, revision BIGINT, holder VARCHAR",
    ),
    _append(
        "losses",
        "sequence, time, store, split_part(kind, '.', 1), digest || chain_id, reason",
        "blob.lost layer.lost",
        "digest VARCHAR, chain_id VARCHAR, reason VARCHAR",
    ),
    _append("openings", "sequence, time, store, incarnation", "store.opened", "incarnation VARCHAR"),
    _append(
        "failures",
        "sequence, time, store, kind, flight, opened, reference, digest || blob, chain_id, coalesce(source.registry, ''), "
        "coalesce(source.repository, ''), coalesce(source.credential, ''), concerns, code, message, revision",
        "pull.unresolved pull.unrecorded pull.failed blob.failed layer.failed",
        "flight VARCHAR, opened BIGINT, reference VARCHAR, digest VARCHAR, blob VARCHAR, chain_id VARCHAR, source SOURCE, "
        "concerns VARCHAR, code VARCHAR, message VARCHAR, revision BIGINT",
    ),
)

_REQUEST = "sequence, time, store, reference, platform, credential, policy, snapshots, requester, flight"

_ASKED = (
    "reference VARCHAR, platform VARCHAR, credential VARCHAR, policy VARCHAR, snapshots BOOLEAN, requester VARCHAR, "
    "flight VARCHAR, door VARCHAR"
)

_ENDING = (
    "reference VARCHAR, flight VARCHAR, opened BIGINT, covers BIGINT, platform VARCHAR, digest VARCHAR, image_id VARCHAR, "
    "chain_id VARCHAR, layers BIGINT, size BIGINT, sharing SHARING, code VARCHAR, message VARCHAR"
)

# An ending that was stored twice counts once. Whatever a forged one says, it answers no request that came after it.
_TAKE_ENDINGS = f"""
CREATE OR REPLACE TEMP TABLE endings AS
SELECT * REPLACE (least(covers, sequence) AS covers) FROM ({_facts("pull.completed pull.failed", _ENDING)}) AS e
WHERE NOT EXISTS (FROM ended_flights AS f WHERE f.opened = e.opened AND f.flight = e.flight)
QUALIFY row_number() OVER (PARTITION BY flight, opened ORDER BY sequence) = 1
"""

_TAKE_REQUESTS = f"""
CREATE OR REPLACE TEMP TABLE asked AS
SELECT {_REQUEST}, NULL::BIGINT AS opened, NULL::TIMESTAMP AS cancelled_at, NULL::TIMESTAMP AS opened_at,
    nullif(door, '') AS door
FROM ({_facts("pull.requested", _ASKED)})
"""

_TAKE_CANCELS = f"""
CREATE OR REPLACE TEMP TABLE cancels AS
SELECT sequence, time, flight, request FROM ({_facts("pull.cancelled", "flight VARCHAR, request BIGINT")})
"""

# Requests that wait and those of the batch, each with the first ending that answers it. An ending that covers no more than
# one before it answers nobody.
_POOL = """
CREATE OR REPLACE TEMP TABLE pool AS
WITH unanswered AS (
    FROM waiting WHERE flight IN
        (SELECT flight FROM endings UNION SELECT flight FROM cancels UNION SELECT flight FROM asked)
    UNION ALL FROM asked
), answers AS (
    SELECT flight, opened AS answered, sequence AS ended, time AS ended_at, covers, code,
        CASE kind WHEN 'pull.completed' THEN 'completed' ELSE 'failed' END AS outcome
    FROM endings QUALIFY covers > coalesce(max(covers) OVER (
        PARTITION BY flight ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)
)
SELECT unanswered.*, answered, ended, ended_at, code, outcome FROM unanswered
ASOF LEFT JOIN answers ON unanswered.flight = answers.flight AND unanswered.sequence < answers.covers
"""

_LEAVE = """
UPDATE pool SET cancelled_at = c.time FROM (
    SELECT p.sequence, min(c.time) AS time FROM cancels AS c JOIN pool AS p ON p.sequence = c.request AND p.flight = c.flight
    WHERE c.sequence > p.sequence AND (p.ended IS NULL OR c.sequence < p.ended) GROUP BY p.sequence
) AS c WHERE pool.sequence = c.sequence AND cancelled_at IS NULL
"""

_ANSWER = f"""
INSERT INTO answered SELECT {_REQUEST}, answered, cancelled_at, ended, ended_at,
    CASE WHEN cancelled_at IS NULL THEN outcome ELSE 'cancelled' END, code, epoch(ended_at - time), door
FROM pool WHERE ended IS NOT NULL
"""

# `settled_at`: an ending says `covers` = one more than the position of the event that brought it about.
_END = f"""
INSERT INTO ended_flights BY NAME
WITH asked AS (
    SELECT ended, count(*) AS requests, count(cancelled_at) AS cancelled, min(time) AS first, min(credential) AS credential,
        min(policy) AS policy, bool_or(snapshots) AS snapshots, min(platform) AS platform,
        list_slice(list_sort(list_distinct(list(requester) FILTER (requester <> ''))), 1, 10) AS requesters,
        {DOORS} AS doors
    FROM pool WHERE ended IS NOT NULL GROUP BY ended
)
SELECT e.flight, e.opened, coalesce(o.time, a.first) AS opened_at, e.store, e.reference,
    CASE WHEN e.code = 'reference.invalid' THEN '' ELSE split_part(e.reference, '/', 1) END AS registry,
    coalesce(nullif(e.platform, ''), a.platform) AS platform, a.credential, a.policy, a.snapshots,
    coalesce(a.requests, 0) AS requests, coalesce(a.cancelled, 0) AS cancelled, a.requesters,
    e.sequence AS ended, e.time AS ended_at, e.covers, s.time AS settled_at,
    CASE e.kind WHEN 'pull.completed' THEN 'completed' ELSE 'failed' END AS outcome, e.code, e.message,
    e.digest, e.image_id, e.chain_id, e.layers, e.size,
    {", ".join(f"coalesce(e.sharing.{name}, 0) AS {name}" for name in _SHARED[1:])},
    epoch(e.time - coalesce(o.time, a.first)) AS seconds, epoch(e.time - s.time) AS release,
    a.doors
FROM endings AS e LEFT JOIN asked AS a ON a.ended = e.sequence
LEFT JOIN events AS o ON o.sequence = e.opened LEFT JOIN events AS s ON s.sequence = e.covers - 1
"""

# A request that came too late for an ending belongs to the flight that opens where that ending lies; else its flight opened
# with the first request that waits.
_WAIT = f"""
DELETE FROM waiting WHERE flight IN (SELECT flight FROM pool);
INSERT INTO waiting
WITH late AS (
    SELECT p.sequence, max(e.sequence) AS opened, max(e.time) AS opened_at FROM pool AS p JOIN endings AS e
    ON e.flight = p.flight AND e.sequence > p.sequence WHERE p.ended IS NULL GROUP BY p.sequence
), known AS (
    SELECT p.*, coalesce(late.opened, p.opened) AS o, coalesce(late.opened_at, p.opened_at) AS t
    FROM pool AS p LEFT JOIN late ON late.sequence = p.sequence WHERE p.ended IS NULL
)
SELECT {_REQUEST}, coalesce(max(o) OVER flights, min(sequence) OVER flights), cancelled_at,
    coalesce(max(t) OVER flights, min(time) OVER flights), door
FROM known WINDOW flights AS (PARTITION BY flight) ORDER BY sequence
"""

_FLIGHTS = FoldStep(
    frozenset({"pull.requested", "pull.completed", "pull.failed", "pull.cancelled"}),
    (_TAKE_REQUESTS, _TAKE_ENDINGS, _TAKE_CANCELS, _POOL, _LEAVE, _ANSWER, _END, _WAIT),
)

_POSITION = FoldStep(
    frozenset(),
    (
        "UPDATE position SET sequence = s.last, time = make_timestamp(s.time), first = coalesce(position.first, s.first) FROM "
        "(SELECT max(sequence) AS last, arg_max(micros, sequence) AS time, min(sequence) AS first FROM stage) AS s",
    ),
)

# Each position of the log holds something until it is cut off, or cannot be read any more.
_GAPS = FoldStep(
    frozenset(),
    (
        "INSERT INTO gaps SELECT sequence, time, after, after_time, sequence - after - 1 FROM ("
        "SELECT sequence, time, lag(sequence) OVER log AS after, lag(time) OVER log AS after_time FROM ("
        "SELECT sequence, make_timestamp(micros) AS time FROM stage "
        "UNION ALL SELECT sequence, time FROM position WHERE sequence > 0) WINDOW log AS (ORDER BY sequence)"
        ") WHERE sequence - after > 1",
    ),
)

STEPS = (_EVENTS, *_APPENDS, _RESOLUTIONS, _FLIGHTS, _GAPS, _POSITION)
"""The fold of one staged batch, to be carried out in one transaction."""
