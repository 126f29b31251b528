"""Under which name a client says that it has reached us. Pure."""

import ipaddress
import re

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+))(?::\d*)?")


def is_named_plainly(host: str) -> bool:
    """Whether a `Host` header is an address or `localhost`, not a name that somebody's DNS answers for.

    A page elsewhere whose name is made to lead to this machine (DNS rebinding) is by that name kept from reading what lies
    open to whoever is on this machine.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1] or found[2]
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
