"""What configures a deployment's bus: the server's file, a key for each role, certificates. `pullonce bus init` writes it.

server/nats.conf  server.pem  server.key        for the machine of the nats-server
ca/ca.pem  ca.key                               the authority that vouches for it; the key stays where it is
<role>/nkey  env  ca.pem                        for whoever has that role; `env` is for systemd and shells
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pullonce.bus.nats.nkeys import BusIdentity, make_identity, read_identity
from pullonce.bus.nats.permissions import ADMIN, CLIENTS, EVERY_STORE, asks_of, permissions
from pullonce.errors import PullonceError
from schemas.roles import ROLES

SYNC_INTERVAL = "10s"
MAX_FILE_STORE = "1TB"
"""Said in so many words: a server that starts on a full disk would derive from the free room that it may store nothing."""
ROUTES_PORT = 6222
MONITORING = "127.0.0.1:8222"
CA_DAYS, SERVER_DAYS = 3650, 825

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Plan:
    """A bus that is to be configured."""

    directory: Path
    urls: tuple[str, ...]
    """Addresses that everybody is told: `tls://…` with, `nats://…` without TLS; several make a cluster."""
    stores: tuple[str, ...] = ("default",)
    """Each has users of its own; `EVERY_STORE` alone makes users that may serve any."""
    names: tuple[str, ...] = ()
    """Further names and addresses of the server, for its certificate."""
    at: str = ""
    """Where the files will lie when they are used; empty: where they are written."""
    data: str = ""
    """Directory of the server's streams; empty: `server/data`."""
    monitoring: str = MONITORING
    """Where the server tells of itself by HTTP; empty: nowhere."""
    users: dict[str, tuple[str, str]] = field(init=False, default_factory=dict)
    """Directory of a user → its role and, where that is held to one, its store."""

    def __post_init__(self) -> None:
        self.users[ADMIN] = (ADMIN, "")
        for role in ROLES:
            for store in self.stores if ROLES[role].of_a_store else ("",):
                self.users[f"{role}-{store}" if store not in ("", "default", EVERY_STORE) else role] = (role, store)

    @property
    def tls(self) -> bool:
        return self.urls[0].startswith("tls://")

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(urlsplit(url).hostname or "127.0.0.1" for url in self.urls)

    def used_at(self, *parts: str) -> str:
        return str(Path(self.at or self.directory.absolute(), *parts))


def inbox(user: str) -> str:
    """Prefix of a user's answers. Clients have that of every NATS client, so that any will do; all others their own."""
    return CLIENTS if user == "client" else f"_INBOX_{user}"


def write(plan: Plan) -> None:
    """Write everything. Keys that are there already stay as they are, so repeating it changes nobody's credentials.

    Raises:
        OSError, KeyInvalid: a file cannot be written, or an old one cannot be read.
        PullonceError: certificates cannot be made.
    """
    if plan.tls:
        _certify(plan)
    identities = {user: _identity(plan.directory / user) for user in plan.users}
    for user, (role, store) in plan.users.items():
        _put(plan.directory / user / "env", _environment(plan, user, role, store))
        if plan.tls:
            _put(plan.directory / user / "ca.pem", (plan.directory / "ca" / "ca.pem").read_text(), 0o644)
    _put(plan.directory / "server" / "nats.conf", configuration(plan, identities))


def _identity(directory: Path) -> BusIdentity:
    path = directory / "nkey"
    if not path.exists():
        _put(path, make_identity().seed + "\n", 0o400)
    return read_identity(path)


def _put(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file; nobody sees it half-written, or with a wider mode than its own."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.replace(path)


def _environment(plan: Plan, user: str, role: str, store: str) -> str:
    lines = {
        "PULLONCE_NATS_URL": ",".join(plan.urls),
        "PULLONCE_NATS_CREDS": plan.used_at(user, "nkey"),
        "PULLONCE_NATS_INBOX": inbox(user),
        "PULLONCE_NATS_SETUP": "yes" if role == ADMIN else "no",
    }
    if plan.tls:
        lines["PULLONCE_NATS_CA"] = plan.used_at(user, "ca.pem")
    if store not in ("", EVERY_STORE):
        lines["PULLONCE_STORE"] = store
    if len(plan.urls) > 1:
        lines |= {"PULLONCE_REPLICAS": str(min(len(plan.urls), 5)), "PULLONCE_ACK_WAIT": "20"}
    return "".join(f"{name}={value}\n" for name, value in lines.items())


# -- the server's file -------------------------------------------------------------------------------------------------


def configuration(plan: Plan, identities: dict[str, BusIdentity]) -> str:
    """nats.conf: TLS, JetStream, one account, one user a role with its permissions."""
    host, port = plan.hosts[0], urlsplit(plan.urls[0]).port or 4222
    listen = f"127.0.0.1:{port}" if len(plan.urls) == 1 and host in _LOOPBACK else f"0.0.0.0:{port}"
    data = plan.data or plan.used_at("server", "data")
    blocks = [
        "# Written by `pullonce bus init`, which writes it anew: it keeps the keys, and nothing else that was changed here.",
        f"listen: {_quoted(listen)}\nmax_payload: 1MB",
        f"jetstream {{ store_dir: {_quoted(data)}, sync_interval: {SYNC_INTERVAL}, max_file_store: {MAX_FILE_STORE} }}",
    ]
    if plan.monitoring:
        blocks.append(f"http: {_quoted(plan.monitoring)}")
    if plan.tls:
        blocks.append(f"tls {{ {_certificate(plan)} }}")
    if len(plan.urls) > 1:
        blocks.append(_cluster(plan))
    users = "\n".join(_user(identities[user].public, user, *plan.users[user], _askers(plan, user)) for user in plan.users)
    blocks.append(f"accounts {{\n  pullonce {{\n    jetstream: enabled\n    users: [\n{users}\n    ]\n  }}\n}}")
    return "\n\n".join(blocks) + "\n"


def _certificate(plan: Plan) -> str:
    pem, key = (_quoted(plan.used_at("server", name)) for name in ("server.pem", "server.key"))
    return f"cert_file: {pem}, key_file: {key}"


def _cluster(plan: Plan) -> str:
    """Servers know one another by certificates of our own authority; without TLS, the network must keep others away."""
    routes = ", ".join(_quoted(f"nats://{host}:{ROUTES_PORT}") for host in plan.hosts)
    lines = ["name: pullonce", f'listen: "0.0.0.0:{ROUTES_PORT}"', f"routes: [{routes}]"]
    if plan.tls:
        lines.append(f"tls {{ {_certificate(plan)}, ca_file: {_quoted(plan.used_at('server', 'ca.pem'))}, verify: true }}")
    return "# Each server needs a name of its own.\nserver_name: $NATS_SERVER_NAME\ncluster {\n  " + "\n  ".join(lines) + "\n}"


def _user(public: str, user: str, role: str, store: str, askers: Sequence[str]) -> str:
    allowed = permissions(role, inbox(user), store, askers)
    publish, subscribe = (_subjects(each) for each in (allowed.publish, allowed.subscribe))
    return (
        f"      # {user}\n      {{ nkey: {public}, permissions: {{\n        publish: {{ allow: [{publish}] }},\n"
        f"        subscribe: {{ allow: [{subscribe}] }}\n      }} }}"
    )


def _askers(plan: Plan, user: str) -> list[str]:
    """Inboxes of the users that ask something which this one answers."""
    role, store = plan.users[user]
    if role == ADMIN:
        return []
    return [inbox(other) for other, (asker, of) in plan.users.items() if asks_of(asker, of, role, store)]


def _subjects(subjects: Sequence[str]) -> str:
    return "".join(f"\n          {_quoted(each)}" for each in subjects) + "\n        "


def _quoted(text: str) -> str:
    return json.dumps(text)


# -- certificates ------------------------------------------------------------------------------------------------------


def _certify(plan: Plan) -> None:
    """An authority of our own, made once, and a certificate for the servers, made anew each time."""
    ca, server = plan.directory / "ca", plan.directory / "server"
    for directory in (ca, server):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = dict.fromkeys((*plan.hosts, *plan.names, "localhost", "127.0.0.1"))
    with tempfile.TemporaryDirectory() as scratch:
        config, request = Path(scratch, "openssl.cnf"), Path(scratch, "server.csr")
        config.write_text(_OPENSSL.format(names=",".join(map(_alternative, names))))
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", str(config)]
        if not (ca / "ca.pem").exists():
            subject = ["-subj", "/CN=pullonce bus authority", "-extensions", "authority", "-days", str(CA_DAYS)]
            _openssl("req", "-x509", *key, *subject, "-keyout", str(ca / "ca.key"), "-out", str(ca / "ca.pem"))
        _openssl("req", "-new", *key, "-subj", "/CN=pullonce bus", "-keyout", str(server / "server.key"), "-out", str(request))
        by = ["-CA", str(ca / "ca.pem"), "-CAkey", str(ca / "ca.key"), "-CAserial", f"{scratch}/serial", "-CAcreateserial"]
        made = ["-days", str(SERVER_DAYS), "-extfile", str(config), "-extensions", "server"]
        _openssl("x509", "-req", "-in", str(request), *by, *made, "-out", str(server / "server.pem"))
    _put(server / "ca.pem", (ca / "ca.pem").read_text(), 0o644)


_OPENSSL = """\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = pullonce
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def _alternative(name: str) -> str:
    try:
        return f"IP:{ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True, umask=0o077)
    except FileNotFoundError:
        raise PullonceError("certificates are made by openssl, which is not installed; or use a nats:// address") from None
    except subprocess.CalledProcessError as exc:
        raise PullonceError(f"openssl cannot make the certificates: {exc.stderr.strip()}") from exc
