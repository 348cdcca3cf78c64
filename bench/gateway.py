"""A Portcullis that is not compared but watched: started, asked through its admin socket, reloaded."""

import contextlib
import dataclasses
import http.client
import socket
import time

from peers import KEEP_SECONDS
from system import Failed, Process

# What a drain may take: longer than the slow answers of the origin.
DRAIN_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a gateway lives, and all that it needs."""

    binary: str
    directory: object
    pki: object
    origin: object
    port: int
    cores: set

    def configure(self, address, threads=2, lists=(), deny=None, watch=True, websocket_port=None, state_directory=None,
                  limits="", only=""):
        """Everybody of our authority who is on none of the lists is sent to one pool, WebSockets to another; `only` narrows that."""
        route, pool = "", ""
        if websocket_port is not None:
            route = "  - { name: websocket, client: { trust: fleet }, request: { path: /websocket }, pool: websocket }\n"
            pool = f'  websocket: {{ endpoints: ["127.0.0.1:{websocket_port}"] }}\n'
        more = "".join(f", {limit}" for limit in [limits] if limit)
        denied = "" if deny is None else f", deny: {deny}"
        state = "" if state_directory is None else f"  state_directory: {state_directory}\n"
        (self.directory / "gateway.yaml").write_text(f"""
version: 1
listeners:
  - name: edge
    address: "{address}"
    protocols: [h2, http/1.1]
    tls: {{ certificates: [{{ chain: {self.pki.certificate("server")}, key: {self.pki.key("server")} }}] }}
    client_auth: {{ mode: require, trust: [fleet] }}
    limits: {{ keepalive_timeout: {KEEP_SECONDS}s, connections: 60000{more} }}
trust:
  fleet: {{ anchors: {self.pki.certificate("ca")}{denied}, revocation: {{ lists: [{", ".join(map(str, lists))}] }} }}
pools:
  main: {{ endpoints: ["127.0.0.1:{self.origin.telemetry_port}"] }}
{pool}routes:
{route}  - {{ name: all, client: {{ trust: fleet{only} }}, pool: main }}
identity_headers: [plain]
admin: {{ address: "unix:{self.directory}/admin.sock" }}
logging: {{ level: info, access: {{ requests: false, connections: false }} }}
server:
  threads: {threads}
  drain_timeout: {DRAIN_SECONDS}s
  upgrade_socket: {self.directory}/upgrade.sock
  watch: {str(watch).lower()}
{state}""")

    def start(self, name, *arguments, before=(), **pipes):
        command = [*before, self.binary, "run", "-c", self.directory / "gateway.yaml", *arguments]
        return Process(command, self.cores, self.directory / f"{name}.log", **pipes)

    def admin(self, method, path):
        """Status and body of an answer of the admin socket."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.directory / "admin.sock"))
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def await_ready(self, process):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if not process.alive():
                raise Failed(f"the gateway ended instead of serving:\n{process.output()}")
            with contextlib.suppress(OSError):
                if self.admin("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.01)
        raise Failed(f"the gateway is not ready after 30 s:\n{process.output()}")
