"""The tables as the Markdown of docs/ledger.md: `python -m services.ledger.describe` writes that part of it anew."""

import re
from pathlib import Path

from services.ledger.fold.table import TableDefinition
from services.ledger.fold.tables import TABLES
from services.ledger.fold.views import VIEWS

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def described() -> str:
    """All tables and views, the views first, since those are what most questions want."""
    return "\n".join(_table(table) for table in (*VIEWS, *TABLES))


def written_into(document: str) -> str:
    """A document with the part between the two marks made anew."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{described()}\n{END}", document)


def _table(table: TableDefinition) -> str:
    rows = (f"| `{column.name}` | {column.type} | {column.meaning} |" for column in table.columns)
    return "\n".join((f"### {table.name}", "", table.meaning, "", "| column | type | |", "|---|---|---|", *rows, ""))


if __name__ == "__main__":
    path = Path("docs/ledger.md")
    path.write_text(written_into(path.read_text("utf-8")), "utf-8")
