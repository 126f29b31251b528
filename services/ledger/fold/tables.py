"""The tables of the ledger: every column with its type and meaning. Pure.

What only grows is a table. What still changes while a flight is in the air lies in the small table `waiting`; the views of
`views.py` show both as one.
"""

from services.ledger.fold.table import table

VERSION = 3
"""Of the tables. A file of an earlier version is migrated (`migrations`); one of a later version is not touched."""


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

_DOOR = "    door          VARCHAR               by which door it came; null: it was not said\n"

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
    doors         MAP(VARCHAR,BIGINT)   door → requests that came by it; null: none was said
"""

WAITING = table(
    "waiting",
    "Requests that are not answered yet; `requests` shows them too.",
    _REQUEST + "    opened_at     TIMESTAMP             when its flight was opened\n" + _DOOR,
)

ANSWERED = table(
    "answered",
    "Requests that were answered; `requests` shows them too.",
    _REQUEST
    + """
    ended         BIGINT                position of the ending that answers it
    ended_at      TIMESTAMP             when
    outcome       VARCHAR               `completed`, `failed`, or `cancelled` where the requester had left
    code          VARCHAR               of a failure
    seconds       DOUBLE                from the request to the ending
""".lstrip("\n")
    + _DOOR,
)

ENDED = table("ended_flights", "Flights that have ended; `flights` shows them too.", _FLIGHT)

RESOLUTIONS = table(
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

FLIGHT_LAYERS = table(
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

RECORDS = table(
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

BLOBS = table(
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

LAYERS = table(
    "layers",
    "One row each time a layer was said to be unpacked: now, or before.",
    _FACT
    + """    chain_id      VARCHAR               ChainID of the snapshot
    diff_id       VARCHAR               diffID of the layer
    reused        BOOLEAN               it was there already
    entries       BIGINT                entries of the archive
    size          BIGINT                bytes of file content, holes left out
    left_out      MAP(VARCHAR,BIGINT)   what an unprivileged unpacker could not make: kind → how many
    revision      BIGINT                revision of the claim
    seconds       MAP(VARCHAR,DOUBLE)   step → seconds: bytes, slot, unpack, blob, parent, complete, commit
""",
)

CLAIMS = table(
    "claims",
    "One row each time a coordinator won the claim of a blob or a layer, and its order was queued.",
    _FACT
    + """    noun          VARCHAR               `blob` or `layer`
    name          VARCHAR               digest or ChainID
    revision      BIGINT                revision of the claim; the fact that ends the work carries the same
    holder        VARCHAR               the coordinator
""",
)

FAILURES = table(
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

LOSSES = table(
    "losses",
    "One row each time a blob or a snapshot was found to be gone.",
    _FACT
    + """    noun          VARCHAR               `blob` or `layer`
    name          VARCHAR               digest or ChainID
    reason        VARCHAR               why, where that is known
""",
)

OPENINGS = table(
    "openings",
    "One row a life of a store: a new incarnation holds nothing of what an earlier one held.",
    _FACT + "    incarnation   VARCHAR               its name\n",
)

MALFORMED = table(
    "malformed",
    "One row a message in the log that is no event.",
    """
    sequence      BIGINT                position in the log
    time          TIMESTAMP             when the bus stored it (UTC)
    subject       VARCHAR               its subject
    reason        VARCHAR               why it is no event
""",
)

EVENTS = table(
    "events",
    "One row an event, whatever it is: the log's own order and time.",
    """
    sequence      BIGINT                position in the log
    time          TIMESTAMP             when the bus stored it (UTC)
    kind          VARCHAR               its type; `malformed` for what is no event
""",
)

DAYS = table(
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

POSITION = table(
    "position",
    "One row: how far the log is folded, written in the same transaction as the rows.",
    """
    version       BIGINT                of the tables
    sequence      BIGINT                position of the last folded event
    time          TIMESTAMP             when the bus stored it (UTC)
    first         BIGINT                position of the first event that the tables tell of, as detail or rolled up
""",
)

GAPS = table(
    "gaps",
    "One row a stretch of the log that was gone before it was read: what happened in it is in no other table.",
    """
    sequence      BIGINT                position of the first event behind it
    time          TIMESTAMP             when the bus stored that
    after         BIGINT                position of the last event before it
    after_time    TIMESTAMP             when the bus stored that
    missing       BIGINT                positions between them
""",
)

TABLES = (
    *(EVENTS, WAITING, ANSWERED, ENDED, RESOLUTIONS, FLIGHT_LAYERS, RECORDS, BLOBS, LAYERS, CLAIMS, FAILURES),
    *(LOSSES, OPENINGS, MALFORMED, GAPS, DAYS, POSITION),
)
"""What holds rows."""
