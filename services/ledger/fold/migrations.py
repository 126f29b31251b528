"""How the tables of an earlier version become those of this one, with all that they hold. Pure.

What is in a ledger may be nowhere else: the log keeps a month. So a change of the tables comes with the statements that carry
it out, under the version that they lead to, for good: a file may be years old.
"""

from services.ledger.fold.tables import GAPS, VERSION
from services.ledger.fold.views import VIEWS

STEPS: dict[int, tuple[str, ...]] = {
    2: (GAPS.create(),),
    3: (
        "ALTER TABLE waiting ADD COLUMN door VARCHAR;",
        "COMMENT ON COLUMN waiting.door IS 'by which door it came; null: it was not said';",
        "ALTER TABLE answered ADD COLUMN door VARCHAR;",
        "COMMENT ON COLUMN answered.door IS 'by which door it came; null: it was not said';",
        "ALTER TABLE ended_flights ADD COLUMN doors MAP(VARCHAR,BIGINT);",
        "COMMENT ON COLUMN ended_flights.doors IS 'door → requests that came by it; null: none was said';",
    ),
}
"""Version → the statements that lead to it from the one before. They name what then was, never what the tables are today."""


def migration(found: int) -> str | None:
    """The statements that lead from a version to this one, to be carried out in one transaction; None where there is no way."""
    steps = [STEPS.get(version) for version in range(found + 1, VERSION + 1)]
    if not 1 <= found < VERSION or None in steps:
        return None
    # Views hold nothing: all are made as they are now.
    views = [f"DROP VIEW IF EXISTS {each.name};\n" for each in reversed(VIEWS)] + [each.create() for each in VIEWS]
    changes = [statement for step in steps for statement in step or ()]
    return "".join([*changes, *views, f"UPDATE position SET version = {VERSION};"])
