"""What a table is made of: columns with a type and a meaning, and the statements that make it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column: an SQL type, and a meaning for people."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True, slots=True)
class TableDefinition:
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


def table(name: str, meaning: str, columns: str, select: str = "") -> TableDefinition:
    return TableDefinition(name, meaning, _columns(columns), select)
