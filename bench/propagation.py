"""How long it takes until a client that was revoked is out everywhere: what it holds open, and what it tries anew.

The clock starts when the new list is in its place in the file system. Each client to be revoked holds an idle connection
of HTTP/1.1, one of HTTP/2 and a WebSocket, and from the moment of its revocation on tries to come in every few
milliseconds, with a full handshake and on the sessions it was given before. Meanwhile others hold thousands of
connections, of which none may be lost.
"""

import contextlib
import random
import secrets
import select
import socket
import ssl
import threading
import time

from cases import idle_connections
from system import Failed

# Between two attempts of one kind.
PAUSE_SECONDS = 0.005
# A revocation that takes longer failed.
LIMIT_SECONDS = 10
# How long others may go on before the next revocation, at random: no rhythm of ours may meet one of the gateway's.
LULL_SECONDS = 0.3

NEW = ("new TLS 1.3", "new TLS 1.2", "resumed TLS 1.3", "resumed TLS 1.2")
LIVE = ("open HTTP/1.1", "open HTTP/2", "open WebSocket")


def measure(bench, site, source, count, listed, connections, progress):
    """{kind: lags in seconds}"""
    (site.directory / "lists").mkdir()
    source = SOURCES[source](site, listed)
    with WebSocketOrigin() as origin:
        site.configure(f"127.0.0.1:{site.port}", websocket_port=origin.port, **source.configuration())
        with site.start("propagation") as process:
            site.await_ready(process)
            with idle_connections(bench, site.port, site.pki, connections):
                lags = {kind: [] for kind in (*LIVE, *NEW)}
                for number in range(count):
                    progress(f"propagation: {number + 1} of {count} revocations, {connections:,} connections held")
                    name = f"victim-{number}"
                    serial = site.pki.issue_quickly(name)
                    with contextlib.closing(Victim(site.port, site.pki, name)) as victim:
                        ready = source.prepare(name, serial)
                        time.sleep(random.uniform(0, LULL_SECONDS))
                        for kind, lag in victim.revoke(lambda: ready.replace(source.file)).items():
                            lags[kind].append(lag)
    return lags


class RevocationList:
    """Of the authority, signed anew each time."""

    def __init__(self, site, listed):
        self._pki, self._beside, self._number = site.pki, site.directory / "next", 0
        self.file = site.directory / "lists" / "fleet.crl"
        self._entries = self._pki.revocation_entries(listed)
        self._sign().replace(self.file)

    def configuration(self):
        return {"lists": [self.file]}

    def prepare(self, _name, serial):
        """The next list, not in its place yet: what is written there is nobody's change."""
        self._entries += self._pki.revocation_entry(serial)
        return self._sign()

    def _sign(self):
        self._number += 1
        return self._pki.sign_revocation_list(self._entries, self._number, self._beside)


class DenyList:
    """The operator's own, in CSV."""

    def __init__(self, site, listed):
        self._pki, self._beside = site.pki, site.directory / "next"
        self.file = site.directory / "lists" / "denied.csv"
        self._lines = ["fingerprint,reason", *(f"{secrets.token_hex(32)},lost" for _ in range(listed))]
        self._write().replace(self.file)

    def configuration(self):
        return {"deny": self.file}

    def prepare(self, name, _serial):
        self._lines.append(f"{self._pki.fingerprint(name).hex()},stolen")
        return self._write()

    def _write(self):
        self._beside.write_text("\n".join([*self._lines, ""]))
        return self._beside


SOURCES = {"crl": RevocationList, "deny": DenyList}


class Victim:
    """A client that is going to be revoked, with all that it holds."""

    def __init__(self, port, pki, name):
        self._port, self._pki, self._name = port, pki, name
        self._sockets, self._sessions, self._contexts = {}, {}, {}
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            context = self._context(version)
            self._contexts[version] = context
            with self._connect(context) as connection:
                _get(connection)
                self._sessions[version] = connection.session
        modern = self._contexts[ssl.TLSVersion.TLSv1_3]
        http1, websocket = self._connect(modern), self._connect(modern)
        http2 = self._connect(self._context(ssl.TLSVersion.TLSv1_3, "h2"))
        self._sockets = dict(zip(LIVE, (http1, http2, websocket), strict=True))
        _get(http1)
        _ask_http2(http2)
        _upgrade(websocket)
        if not all(self._try(kind) for kind in NEW):
            raise Failed(f"{name} cannot come in before it is revoked")

    def close(self):
        for connection in self._sockets.values():
            connection.close()

    def _context(self, version, protocol="http/1.1"):
        context = ssl.create_default_context(cafile=str(self._pki.certificate("ca")))
        context.load_cert_chain(str(self._pki.certificate(self._name)), str(self._pki.key(self._name)))
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols([protocol])
        return context

    def _connect(self, context, session=None):
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return context.wrap_socket(plain, server_hostname="localhost", session=session)
        except BaseException:
            plain.close()
            raise

    def _try(self, kind):
        """Whether it is let in. In TLS 1.3 a client learns only by reading that it was not."""
        version = ssl.TLSVersion.TLSv1_3 if kind.endswith("1.3") else ssl.TLSVersion.TLSv1_2
        session = self._sessions[version] if kind.startswith("resumed") else None
        try:
            with self._connect(self._contexts[version], session) as connection:
                _get(connection)
                return True
        except (ssl.SSLError, ConnectionError, Ended):
            return False

    def revoke(self, revoke):
        """{kind: seconds until it was out}."""
        lags = {}
        began = time.monotonic()
        revoke()
        attempts = threading.Thread(target=self._attempt, args=(began, lags))
        attempts.start()
        self._watch(began, lags)
        attempts.join()
        missing = [kind for kind in (*LIVE, *NEW) if kind not in lags]
        if missing:
            raise Failed(f"{self._name} is not out after {LIMIT_SECONDS} s: {', '.join(missing)}")
        return lags

    def _attempt(self, began, lags):
        left = list(NEW)
        while left and time.monotonic() < began + LIMIT_SECONDS:
            for kind in list(left):
                if not self._try(kind):
                    lags[kind] = time.monotonic() - began
                    left.remove(kind)
            time.sleep(PAUSE_SECONDS)

    def _watch(self, began, lags):
        left = {connection: kind for kind, connection in self._sockets.items()}
        for connection in left:
            connection.setblocking(False)
        while left and time.monotonic() < began + LIMIT_SECONDS:
            for connection in select.select(list(left), [], [], 0.1)[0]:
                if _has_ended(connection):
                    lags[left.pop(connection)] = time.monotonic() - began


class Ended(Exception):
    """The connection ended before the answer did."""


def _has_ended(connection):
    try:
        while connection.recv(4096):
            pass
        return True
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    except OSError:
        return True


def _read_until(connection, end):
    read = b""
    while end not in read:
        part = connection.recv(4096)
        if not part:
            raise Ended
        read += part
    return read


def _get(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = _read_until(connection, b"64 bytes long\n")
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Failed(f"a client is answered {answer[:40]}")


def _upgrade(connection):
    connection.sendall(b"GET /websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                       b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")  # fmt: skip
    answer = _read_until(connection, b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise Failed(f"a WebSocket is answered {answer[:40]}")


def _ask_http2(connection):
    """RFC 9113 and 7541: the preface, empty settings, their acknowledgement, and GET / on stream 1."""
    block = b"\x82\x87\x84\x01\x09localhost"
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0) + _frame(1, 5, 1, block) + _frame(4, 1, 0))
    _read_until(connection, b"64 bytes long\n")


def _frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class WebSocketOrigin:
    """Says yes to every upgrade, and nothing after it."""

    def __enter__(self):
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listening.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection):
        with connection, contextlib.suppress(OSError, Ended):
            _read_until(connection, b"\r\n\r\n")
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while connection.recv(4096):
                pass
