"""Which parts of pullonce a pull needs. Pure, and light to import."""


def missing_parts(present: "set[tuple[str, str]]", store: str, unpack: bool = True) -> "list[str]":
    """Names of the parts without which no pull for this store can end; `present`: (service, store) of all who answered."""
    needed = [("coordinator", "")] + [(each, store) for each in ("fetcher", "unpacker")[: 2 if unpack else 1]]
    return [f"the {part}{' of store ' + of if of else ''}" for part, of in needed if (part, of) not in present]


def listed(parts: "list[str]") -> str:
    """Several parts as people say it: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
