"""TLS for the light connection: loaded only where the server or the address asks for it."""

from __future__ import annotations

import _socket
import socket
import ssl

from pullonce.bus.nats.credentials import distrusted, tls_context
from pullonce.bus.nats.greeting import Access, Address
from pullonce.errors import BusUnsuitable


class Secured:
    """A connection over TLS, with the manners of a plain socket that the light connection relies on."""

    def __init__(self, plain: _socket.socket, address: Address, access: Access, timeout: float) -> None:
        """Shake hands.

        Raises:
            BusUnsuitable: a file of ours cannot be used, or we and the server do not trust each other.
            OSError: the connection breaks.
        """
        context = tls_context(access.ca, access.cert, access.key)
        inner = socket.socket(fileno=plain.detach())
        inner.settimeout(timeout)
        try:
            self._socket: ssl.SSLSocket = context.wrap_socket(inner, server_hostname=address.host)
        except ssl.SSLCertVerificationError as exc:
            inner.close()
            raise distrusted(exc) from exc
        except ssl.SSLEOFError:
            inner.close()
            raise
        except ssl.SSLError as exc:
            inner.close()
            raise BusUnsuitable(f"TLS with {address.shown} does not come about: {exc}") from exc
        except OSError:
            inner.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def sendall(self, data: bytes | bytearray) -> None:
        self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """At most one record of TLS, of which nothing is left behind where `select` would not see it.

        Raises:
            BlockingIOError: no whole record has arrived.
            BusUnsuitable: the server says what it has against us, as for a certificate that it wants and does not get.
        """
        try:
            return self._socket.recv(max(size, 16384))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as exc:
            if "ALERT" in str(exc.reason):
                raise BusUnsuitable(f"the bus ends TLS, see PULLONCE_NATS_CERT and PULLONCE_NATS_KEY: {exc}") from exc
            raise

    def close(self) -> None:
        self._socket.close()
