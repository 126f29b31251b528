"""What opens a registry. Pure."""

import base64
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """A user and password, an identity token to trade, or a token to present as it is. It does not print itself."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The pair as `Authorization: Basic` carries it (RFC 7617)."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
