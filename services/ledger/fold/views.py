"""The views of the ledger: what has ended and what is in the air as one, and sums. Pure."""

from services.ledger.fold.statements import DOORS
from services.ledger.fold.table import TableDefinition, table
from services.ledger.fold.tables import ANSWERED, ENDED, TABLES, VERSION

REQUESTS = TableDefinition(
    "requests",
    "One row a request, answered or not.",
    ANSWERED.columns,
    "SELECT * FROM answered UNION ALL BY NAME SELECT * EXCLUDE (opened_at) FROM waiting",
)

FLIGHTS = TableDefinition(
    "flights",
    "One row a flight, ended or in the air.",
    ENDED.columns,
    f"""SELECT * FROM ended_flights UNION ALL BY NAME
    SELECT flight, opened, min(opened_at) AS opened_at, min(store) AS store, min(reference) AS reference,
        min(split_part(reference, '/', 1)) AS registry, min(platform) AS platform, min(credential) AS credential,
        min(policy) AS policy, bool_or(snapshots) AS snapshots, count(*) AS requests, count(cancelled_at) AS cancelled,
        list_slice(list_sort(list_distinct(list(requester) FILTER (requester <> ''))), 1, 10) AS requesters,
        {DOORS} AS doors
    FROM waiting GROUP BY flight, opened""",
)

REGISTRIES = table(
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

VIEWS = (REQUESTS, FLIGHTS, REGISTRIES)
"""What shows the rows of others."""


def create_all() -> str:
    """The statements that make an empty ledger at position 0."""
    made = [each.create() for each in (*TABLES, *VIEWS)]
    return "\n".join([*made, f"INSERT INTO position VALUES ({VERSION}, 0, NULL, NULL);"])
