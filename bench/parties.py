"""Those who take part in a soak besides the well-behaved: each does its round again and again, and knows what must come of it."""

import contextlib
import dataclasses
import random
import socket
import ssl
import struct
import threading
import time

import propagation
from propagation import Ended
from system import Failed

# How long anybody waits for the gateway before that is a failure: other work may keep the machine busy.
PATIENCE_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class World:
    site: object
    revoked: object
    origin: object

    def __post_init__(self):
        # One file is written by several.
        object.__setattr__(self, "lock", threading.Lock())

    def context(self, client, protocol="http/1.1"):
        pki = self.site.pki
        context = ssl.create_default_context(cafile=str(pki.certificate("ca")))
        if client is not None:
            context.load_cert_chain(str(pki.certificate(client)), str(pki.key(client)))
        context.set_alpn_protocols([protocol])
        return context

    def tcp(self):
        return socket.create_connection(("127.0.0.1", self.site.port), timeout=PATIENCE_SECONDS)

    def connect(self, context):
        plain = self.tcp()
        try:
            return context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise


class Wrong(Exception):
    """Something else came of a round than must."""


class Party:
    """One who does `round` again and again. `pause` is in seconds."""

    name, pause, is_many = "", 0.1, True
    client = "sensor-1"

    def __init__(self, world):
        self.world, self.rounds, self.failed, self.first = world, 0, 0, None
        self.context = world.context(self.client)

    def run(self, stop):
        while not stop.is_set():
            try:
                self.round()
            except (Wrong, Failed, Ended, OSError) as failure:
                self.failed += 1
                self.first = self.first or f"{type(failure).__name__} {failure}"
            self.rounds += 1
            stop.wait(self.pause * random.uniform(0.5, 1.5))

    def round(self):
        raise NotImplementedError

    def ask(self, connection, head, body=b""):
        """Sends a request; returns the status and what came with it of the body."""
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        return _status(_head(connection))

    def expect(self, found, *expected):
        if found not in expected:
            raise Wrong(f"{found} instead of {' or '.join(map(str, expected))}")


def _head(connection):
    """Up to the empty line; nothing where the connection ended before."""
    read = b""
    while b"\r\n\r\n" not in read:
        part = connection.recv(4096)
        if not part:
            return b""
        read += part
    return read


def _status(head):
    return int(head.split(b" ")[1]) if head.startswith(b"HTTP/1.1 ") else 0


class WebSockets(Party):
    name, pause = "WebSocket: bytes back as they went", 0.5

    def round(self):
        with self.world.connect(self.context) as connection:
            propagation._upgrade(connection)
            for number in range(20):
                sent = f"{number}:{random.random()}".encode()
                connection.sendall(sent)
                if (came := connection.recv(4096)) != sent:
                    raise Wrong(f"{came} came back of {sent}")
                time.sleep(0.01)


class Bodies(Party):
    name, pause = "large bodies, up and down", 0.4

    def round(self):
        with self.world.connect(self.context) as connection:
            self.expect(self.ask(connection, "POST /upload HTTP/1.1\nHost: localhost\nContent-Length: 500000\n", b"x" * 500_000), 200)
        with self.world.connect(self.context) as connection:
            connection.sendall(b"GET /bodies/1048576 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            read = 0
            while part := connection.recv(65536):
                read += len(part)
            if read < 1 << 20:
                raise Wrong(f"{read} bytes of an answer came")


class Refused(Party):
    """One who must not get in. In TLS 1.3 a client learns only by reading that it did not."""

    def round(self):
        try:
            with self.world.connect(self.context) as connection:
                found = self.ask(connection, "GET / HTTP/1.1\nHost: localhost\n")
        except (ssl.SSLError, ConnectionError):
            return
        self.expect(found, 0)


class Strangers(Refused):
    name, client = "refused: no certificate", None


class Pretenders(Refused):
    name, client = "refused: another authority", "stranger"


class Unrouted(Party):
    name, client = "403: no route", "nobody-1"

    def round(self):
        with self.world.connect(self.context) as connection:
            self.expect(self.ask(connection, "GET / HTTP/1.1\nHost: localhost\n"), 403)


class Ambiguous(Party):
    name = "400: a request with two readings"

    def round(self):
        head = random.choice(["GET / HTTP/1.1\nHost: a\nHost: b\n", "GET /../x HTTP/1.1\nHost: localhost\n",
                              "POST / HTTP/1.1\nHost: localhost\nContent-Length: 1\nTransfer-Encoding: chunked\n"])  # fmt: skip
        with self.world.connect(self.context) as connection:
            self.expect(self.ask(connection, head), 400)


class Revoked(Party):
    """Comes, is revoked, and must be out."""

    name, pause, is_many = "revoked, and out", 1.0, False

    def round(self):
        world, name = self.world, f"victim-{self.rounds}"
        serial = world.site.pki.issue_quickly(name)
        context = world.context(name)
        with world.connect(context) as connection:
            propagation._get(connection)
            with world.lock:
                world.revoked.prepare(name, serial).replace(world.revoked.file)
            # The open connection ends by itself, and nobody comes in anew.
            if connection.recv(1):
                raise Wrong("something is said to who was revoked")
        try:
            with world.connect(context) as connection:
                propagation._get(connection)
        except (ssl.SSLError, ConnectionError, Ended):
            return
        raise Wrong("who was revoked is served")


class Reloads(Party):
    """A reload that works, and now and then one that must not."""

    name, pause, is_many = "reloads", 1.0, False

    def round(self):
        site, file = self.world.site, self.world.site.directory / "gateway.yaml"
        with self.world.lock:
            self.expect(site.admin("POST", "/reload")[0], 200)
            if self.rounds % 5 == 4:
                good = file.read_text()
                beside = file.with_suffix(".next")
                try:
                    beside.write_text(good.replace("version: 1", "version: 7"))
                    beside.replace(file)
                    self.expect(site.admin("POST", "/reload")[0], 422)
                finally:
                    beside.write_text(good)
                    beside.replace(file)
                self.expect(site.admin("POST", "/reload")[0], 200)


class SlowHeads(Party):
    name, pause = "408 or the end: heads that trickle", 0.2

    def round(self):
        with self.world.connect(self.context) as connection:
            self.expect(_trickle(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000), 0, 408)


class SlowBodies(Party):
    name, pause = "408 or the end: bodies that trickle", 0.2

    def round(self):
        with self.world.connect(self.context) as connection:
            head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % random.choice([10_000, 100_000])
            connection.sendall(head)
            self.expect(_trickle(connection, b"x" * 1000), 0, 408)


def _trickle(connection, text):
    """Sends a byte at a time until the gateway has had enough; returns the status that it said."""
    connection.settimeout(0.2)
    read = b""
    for at in range(len(text)):
        try:
            connection.sendall(text[at : at + 1])
            part = connection.recv(4096)
            read += part
            if not part:
                break
        except TimeoutError:
            pass
        except (ConnectionError, ssl.SSLError):
            break
    else:
        raise Wrong("a client that trickles is not ended")
    return _status(read)


class SlowReaders(Party):
    name, pause = "answers that are not read", 0.2

    def round(self):
        plain = self.world.tcp()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with self.context.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b"GET /bodies/1048576 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4)
            time.sleep(random.uniform(0.5, 4))


class Aborts(Party):
    """Leaves with a reset at any moment, and is owed nothing."""

    name, pause = "clients that leave at any moment", 0.05

    def round(self):
        plain = self.world.tcp()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stage = random.randrange(6)
        with contextlib.ExitStack() as stack:
            stack.callback(plain.close)
            if stage == 0:
                return
            if stage == 1:
                plain.sendall(random.choice([b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.0\r\n\r\n", random.randbytes(100)]))
                return
            connection = stack.enter_context(self.context.wrap_socket(plain, server_hostname="localhost"))
            requests = {
                2: b"", 3: b"GET / HTTP/1.1\r\nHost: loc", 4: b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n",
                5: b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nhalf",
            }  # fmt: skip
            connection.sendall(requests[stage])
            time.sleep(random.uniform(0, 0.3))


class Resets(Party):
    """Takes requests back over HTTP/2, some of them while they are served, and leaves without a word."""

    name, pause = "HTTP/2 requests taken back", 0.1

    def __init__(self, world):
        super().__init__(world)
        self.context = world.context(self.client, "h2")

    def round(self):
        frame = propagation._frame
        block = b"\x82\x87\x04\x05/slow\x01\x09localhost"
        with self.world.connect(self.context) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
            for stream in range(1, 11, 2):
                connection.sendall(frame(1, 5, stream, block))
                time.sleep(random.uniform(0, 0.05))
                connection.sendall(frame(3, 0, stream, (8).to_bytes(4, "big")))


KINDS = [WebSockets, Bodies, Strangers, Pretenders, Unrouted, Ambiguous, Revoked, Reloads, SlowHeads, SlowBodies, SlowReaders,
         Aborts, Resets]  # fmt: skip


def sums(everybody):
    """{name: what became of all rounds}"""
    sums = {}
    for party in everybody:
        of = sums.setdefault(party.name, {"rounds": 0, "failed": 0, "first": None})
        of["rounds"] += party.rounds
        of["failed"] += party.failed
        of["first"] = of["first"] or party.first
    return sums


class EchoOrigin(propagation.WebSocketOrigin):
    """Says yes to every upgrade, and then whatever it hears."""

    @staticmethod
    def _serve(connection):
        with connection, contextlib.suppress(OSError, Ended):
            propagation._read_until(connection, b"\r\n\r\n")
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while heard := connection.recv(4096):
                connection.sendall(heard)
