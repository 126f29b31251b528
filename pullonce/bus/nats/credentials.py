"""Who we are on the bus and whom we trust: what the settings name, read from its files.

The link of services and the light connection both come in by this, so that they say the same of what is wrong.
"""

from pullonce.errors import BusForbidden, BusUnsuitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext

    from pullonce.bus.nats.nkeys import BusIdentity


def identity(path: str) -> "BusIdentity":
    """Read anew for each connection: credentials may be exchanged while a service runs.

    Raises:
        BusUnsuitable: the file cannot be read, or holds no seed.
    """
    from pullonce.bus.nats.nkeys import KeyInvalid, read_identity

    try:
        return read_identity(path)
    except OSError as exc:
        raise BusUnsuitable(f"the credentials of PULLONCE_NATS_CREDS cannot be read: {exc}") from exc
    except KeyInvalid as exc:
        raise BusUnsuitable(f"PULLONCE_NATS_CREDS: {exc}") from exc


def tls_context(ca: str, cert: str, key: str) -> "SSLContext":
    """Trust the authority in `ca`, or those of the system, and show our certificate where there is one.

    Raises:
        BusUnsuitable: a file cannot be used.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as exc:
        named = f"PULLONCE_NATS_CA={ca}, PULLONCE_NATS_CERT={cert}, PULLONCE_NATS_KEY={key}"
        raise BusUnsuitable(f"TLS cannot be set up with {named}: {exc}") from exc
    return context


def distrusted(error: Exception) -> BusForbidden:
    """The server's certificate is none that we trust."""
    return BusForbidden(f"the certificate of the bus is not one to trust, see PULLONCE_NATS_CA: {error}")


def refused(said: object) -> BusForbidden:
    """The server does not let us in."""
    return BusForbidden(f"the bus refuses these credentials: {said}")


def not_permitted(said: object) -> BusUnsuitable:
    """The server lets us in, and not do this."""
    return BusUnsuitable(f"the bus does not permit what pullonce needs: {said}")
