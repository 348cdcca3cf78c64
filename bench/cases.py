"""What is measured: each case puts one kind of work on a freshly started server and returns what one unit cost."""

import contextlib
import dataclasses
import json
import re
import subprocess
import time

import system
from peers import BODIES, Job, Scale
from system import Failed, Process

# The one TLS 1.3 suite every client here offers, so that all servers do the same cryptography.
SUITE = "TLS_AES_128_GCM_SHA256"
# Until connections are open, upstream connections kept and caches warm.
WARM_UP_SECONDS = 0.5
# So many turns each of the cases that are compared has in one repetition.
SLICES = 4
# What a tool may take beyond the time it was told to run.
GRACE_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every measurement needs: tools, cores, amounts."""

    handshakes: str  # our load generators, compiled
    latency: str
    preload: str  # the library that gives h2load and wrk a certificate, compiled
    directory: object
    server_core: int
    load_core: int
    seconds: float
    connections: int
    origin: object

    def server_cores(self, case):
        """One of its own, or both where what two threads cost is asked."""
        return {self.server_core, self.load_core} if case.shared else {self.server_core}

    def load_cores(self, case):
        return self.server_cores(case) if case.shared else {self.load_core}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement. `value` is in the case's unit; the rest helps to judge it."""

    value: float
    work: int
    per_second: float
    busy: float  # share of its core that the server used
    upstream_connections: int  # opened meanwhile
    details: dict = dataclasses.field(default_factory=dict)  # further figures of the case, in its unit


class Meter:
    """CPU time of the server, work done by the origin and wall time, since it was made."""

    def __init__(self, server, origin):
        self._server, self._origin = server, origin
        self._accepts, self._requests = origin.counters()
        self._cpu, self._time = server.cpu_seconds(), time.monotonic()

    def read(self, work=None):
        """The sample, of `work` units or else of as many as the origin answered requests."""
        seconds, cpu = time.monotonic() - self._time, self._server.cpu_seconds() - self._cpu
        accepts, requests = self._origin.counters()
        # Each question to the origin is a request over a connection of its own.
        work = requests - self._requests - 1 if work is None else work
        if work <= 0 or cpu <= 0:
            raise Failed(f"nothing was done: {work} units of work in {cpu:.2f} s of CPU time")
        return Sample(cpu / work * 1e6, work, work / seconds, cpu / seconds, accepts - self._accepts - 1)


@dataclasses.dataclass(frozen=True)
class Handshakes:
    """Handshake, one GET, close; with `resume` on a session of an earlier connection."""

    name: str
    title: str
    keys: str
    tls: str
    resume: bool = False
    strangers: bool = False  # each client was never seen before: it has a certificate of its own
    burst: int = 0  # open so many at once, then as many again when all are done
    unit: str = "µs"
    peers: tuple = ()
    compared_with: str = ""
    scale: Scale = Scale()
    shared: bool = False  # the server and the load may use both cores
    sessions = True  # where the server keeps sessions matters

    def measure(self, bench, server, port, pki):
        arguments = ["--tls", self.tls, "--seconds", f"{bench.seconds}", "--count", "1000000", "--wait"]
        if self.resume:
            arguments.append("--resume")
        if self.strangers:
            arguments += ["--strangers", pki.key("ca")]
        if self.burst:
            arguments += ["--burst", "--concurrency", str(self.burst)]
        with _handshakes(bench, port, pki, arguments, bench.load_cores(self)) as tool:
            system.read_line(tool, GRACE_SECONDS)
            system.await_quiet(server)
            meter = Meter(server, bench.origin)
            tool.child.stdin.write(b"\n")
            tool.child.stdin.flush()
            result = json.loads(system.read_line(tool, bench.seconds + GRACE_SECONDS))
            system.await_quiet(server)
            sample = meter.read(result["done"])
        _none_failed(result)
        if result["resumed"] != (result["done"] if self.resume else 0):
            raise Failed(f"{result['resumed']} of {result['done']} handshakes were resumed")
        return dataclasses.replace(sample, per_second=result["done"] / result["seconds"])


@dataclasses.dataclass(frozen=True)
class Requests:
    """Requests on connections that stay open, by wrk (HTTP/1.1) or h2load (HTTP/2).

    The CPU time is read while the tool is in full swing, and the requests are counted by the origin
    between the same two moments: the tool's own handshakes and its start and end are not in the figure.
    """

    name: str
    title: str
    protocol: str
    download: int = 0  # bytes, instead of the usual 64
    upload: int = 0
    keys: str = "p256"
    unit: str = "µs"
    peers: tuple = ()
    compared_with: str = ""
    scale: Scale = Scale()
    shared: bool = False  # the server and the load may use both cores
    sessions = False

    def command(self, bench, port, seconds):
        path = f"bodies/{self.download}" if self.download else "upload" if self.upload else ""
        url = f"https://127.0.0.1:{port}/{path}"
        if self.protocol == "h2":
            # Fewer streams where each carries much: not to measure how it is to hold hundreds of megabytes.
            streams = 4 if self.download or self.upload else 32
            command = ["h2load", "-t1", "-c16", f"-m{streams}", f"--duration={seconds:.0f}", f"--tls13-ciphers={SUITE}"]
            if self.upload:
                body = bench.directory / f"upload-{self.upload}"
                body.write_bytes(b"x" * self.upload)
                command += ["-d", body]
        else:
            command = ["wrk", "-t1", "-c64", f"-d{seconds:.0f}s", "--timeout", "10s"]
            if self.upload:
                script = bench.directory / f"upload-{self.upload}.lua"
                script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {self.upload})\n')
                command += ["-s", script]
        return [*command, url]

    def measure(self, bench, server, port, pki):
        # Both tools take whole seconds.
        seconds = int(bench.seconds + 2 * WARM_UP_SECONDS + 0.999)
        environment = {
            "LD_PRELOAD": bench.preload,
            "MTLS_CERT": str(pki.certificate("sensor-1")),
            "MTLS_KEY": str(pki.key("sensor-1")),
            "MTLS_CIPHERSUITES": SUITE,
        }
        _, before = bench.origin.counters()
        log = bench.directory / f"{self.name}.log"
        with Process(self.command(bench, port, seconds), bench.load_cores(self), log, environment) as tool:
            time.sleep(WARM_UP_SECONDS)
            meter = Meter(server, bench.origin)
            time.sleep(bench.seconds)
            if not tool.alive():
                raise Failed(f"{tool.name} ended early:\n{tool.output()}")
            sample = meter.read()
            try:
                status = tool.child.wait(seconds + GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                raise Failed(f"{tool.name} does not end") from None
            report = log.read_text(errors="replace")
        if status != 0:
            raise Failed(f"{tool.name} ended with status {status}:\n{tool.output()}")
        _, after = bench.origin.counters()
        _all_answered(tool.name, report, after - before)
        return sample


@dataclasses.dataclass(frozen=True)
class Memory:
    """Connections that made one request and are idle since: growth of the server's PSS per connection."""

    name: str
    title: str
    protocol: str = "http/1.1"
    keys: str = "p256"
    unit: str = "KiB"
    peers: tuple = ()
    compared_with: str = ""
    scale: Scale = Scale()
    shared: bool = False  # the server and the load may use both cores
    sessions = True  # a session in a cache is memory too

    def measure(self, bench, server, port, pki):
        with _handshakes(bench, port, pki, ["--count", "200", "--wait"], bench.load_cores(self)) as warm_up:
            system.read_line(warm_up, GRACE_SECONDS)
            warm_up.child.stdin.close()
            _none_failed(json.loads(system.read_line(warm_up, GRACE_SECONDS)))
        system.await_quiet(server)
        before = server.memory_kib()
        meter = Meter(server, bench.origin)
        arguments = ["--hold", str(bench.connections), "--seconds", "120"]
        if self.protocol == "h2":
            arguments.append("--http2")
        with _handshakes(bench, port, pki, arguments, bench.load_cores(self)) as holder:
            result = json.loads(system.read_line(holder, 120 + GRACE_SECONDS))
            _none_failed(result)
            sample = meter.read(result["done"])
            system.await_quiet(server)
            grown = server.memory_kib() - before
            holder.child.stdin.close()
            lost = json.loads(system.read_line(holder, GRACE_SECONDS))["lost"]
        if result["done"] != bench.connections or lost:
            raise Failed(f"{result['done'] - lost} of {bench.connections} connections stayed open")
        return dataclasses.replace(sample, value=grown / result["done"])


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time to an answer on 64 kept connections in an open loop, at half of what the server does when saturated.

    `rate` asks all servers for the same number of requests per second instead.
    """

    name: str
    title: str
    rate: float = 0
    keys: str = "p256"
    unit: str = "µs"
    peers: tuple = ()
    compared_with: str = ""
    scale: Scale = Scale()
    shared: bool = False
    sessions = False

    def measure(self, bench, server, port, pki):
        rate = self.rate
        if not rate:
            saturated = self._run(bench, port, pki, 0, max(1, bench.seconds / 2))
            rate = saturated["done"] / saturated["seconds"] / 2
        meter = Meter(server, bench.origin)
        result = self._run(bench, port, pki, rate, bench.seconds)
        sample = meter.read(result["done"])
        details = {name: result[name] for name in ("p50", "p99", "p999", "max")}
        return dataclasses.replace(sample, value=result["p99"], details={**details, "cpu": sample.value})

    def _run(self, bench, port, pki, rate, seconds):
        command = [bench.latency, "--address", f"127.0.0.1:{port}", "--cert", pki.certificate("sensor-1"),
                   "--key", pki.key("sensor-1"), "--ca", pki.certificate("ca"),
                   "--rate", f"{rate:.0f}", "--seconds", f"{seconds}"]  # fmt: skip
        log = bench.directory / "latency.log"
        with Process(command, bench.load_cores(self), log, stdout=subprocess.PIPE) as tool:
            return json.loads(system.read_line(tool, seconds + GRACE_SECONDS))


JOB = (
    Handshakes("full13-p256", "full TLS 1.3, P-256, 1 GET, close", "p256", "1.3"),
    Handshakes("full13-rsa", "full TLS 1.3, RSA-2048, 1 GET, close", "rsa2048", "1.3"),
    Handshakes("full12-p256", "full TLS 1.2, P-256, 1 GET, close", "p256", "1.2"),
    Handshakes("stranger13", "full TLS 1.3, P-256, client never seen before", "p256", "1.3", strangers=True),
    Handshakes("stranger12", "full TLS 1.2, P-256, client never seen before", "p256", "1.2", strangers=True),
    Handshakes("resumed13", "resumed TLS 1.3, 1 GET, close", "p256", "1.3", resume=True),
    Handshakes("resumed12", "resumed TLS 1.2, 1 GET, close", "p256", "1.2", resume=True),
    Requests("http1", "HTTP/1.1 request, 64 kept connections", "http/1.1"),
    Requests("http2", "HTTP/2 request, 16 × 32 streams", "h2"),
    Memory("memory", "memory per idle mTLS connection, HTTP/1.1"),
    Memory("memory-http2", "memory per idle mTLS connection, HTTP/2", "h2"),
)

OURS = ("portcullis",)
# What grows, from, to, and who else can be asked for the large one.
GROWTH = (
    ("anchors", 1, 1_000, ("nginx", "haproxy", "envoy")),
    ("routes", 10, 10_000, ()),
    ("identities", 10, 1_000_000, ("nginx", "haproxy")),
    ("revoked", 0, 100_000, ("nginx", "haproxy", "envoy")),
    ("revoked", 0, 1_000_000, ()),
    ("held", 100, 10_000, ("nginx", "haproxy", "envoy")),
)


def _growth():
    """A full handshake and a request, each at the small scale and at the large one."""
    cases = {}
    for what, least, most, others in GROWTH:
        for work, make in (
            ("full13", lambda name, title, **more: Handshakes(name, f"full TLS 1.3, {title}", "p256", "1.3", **more)),
            ("http1", lambda name, title, **more: Requests(name, f"HTTP/1.1 request, {title}", "http/1.1", **more)),
        ):
            small, large = f"{work}-{what}-{least}", f"{work}-{what}-{most}"
            cases[small] = make(small, f"{what}: {least:,}", peers=OURS, scale=Scale(**{what: least}))
            cases[large] = make(large, f"{what}: {most:,}", peers=OURS + others, compared_with=small,
                                scale=Scale(**{what: most}))  # fmt: skip
    return tuple(cases.values())


def _bodies():
    return tuple(
        Requests(f"{name}-{way}-{size}", f"{title}, {size // 1024:,} KiB {direction}", protocol, **{way: size})
        for name, title, protocol in (("http1", "HTTP/1.1", "http/1.1"), ("http2", "HTTP/2", "h2"))
        for way, direction in (("download", "down"), ("upload", "up"))
        for size in BODIES
    )


BURSTS = (
    Handshakes("burst13", "full TLS 1.3, bursts of 512 connections", "p256", "1.3", burst=512),
    Handshakes("burst13-resumed", "resumed TLS 1.3, bursts of 512", "p256", "1.3", resume=True, burst=512),
)

LATENCY = (
    Latency("latency-half", "answer p50/p99/p99.9, half of own saturation"),
    Latency("latency-5k", "answer p50/p99/p99.9, 5,000 requests/s", rate=5_000),
)

# The server and the load share both cores, so only what one unit costs can be compared, not how much two cores do.
THREADS = (
    Handshakes("full13-threads-1", "full TLS 1.3, 1 thread, 2 cores", "p256", "1.3", shared=True),
    Handshakes("full13-threads-2", "full TLS 1.3, 2 threads, 2 cores", "p256", "1.3", shared=True,
               scale=Scale(threads=2), compared_with="full13-threads-1"),
    Requests("http1-threads-1", "HTTP/1.1 request, 1 thread, 2 cores", "http/1.1", shared=True),
    Requests("http1-threads-2", "HTTP/1.1 request, 2 threads, 2 cores", "http/1.1", shared=True,
             scale=Scale(threads=2), compared_with="http1-threads-1"),
)  # fmt: skip

GROUPS = {"job": JOB, "growth": _growth(), "bodies": _bodies(), "latency": LATENCY, "bursts": BURSTS, "threads": THREADS}
CASES = {case.name: case for group in GROUPS.values() for case in group}


def job_of(bench, pki, scale):
    connections = max(bench.connections, scale.held)
    return Job(pki, bench.origin.telemetry_port, bench.origin.backoffice_port, connections, scale)


def measure_once(bench, peer, case, pki, look=None):
    """Starts the server afresh and measures it. `look` is shown the server before, and told how long it took to start."""
    began = time.monotonic()
    process, port = peer.serve(bench.directory / f"{peer.name}-{case.name}", job_of(bench, pki, case.scale), bench.server_cores(case))
    with process:
        if look is not None:
            look(process, time.monotonic() - began)
        with idle_connections(bench, port, pki, case.scale.held):
            sample = case.measure(bench, process, port, pki)
        if not process.alive():
            raise Failed(f"{peer.name} ended while it was measured:\n{process.output()}")
        return sample


def measure_together(bench, peer, cases, pki):
    """[[Sample, …], …], for each case as many. Those that are compared run side by side and are measured in turn, a little
    at a time: what the machine does meanwhile happens to all of them."""
    if len(cases) == 1:
        return [[measure_once(bench, peer, cases[0], pki)]]
    samples = [[] for _ in cases]
    bench = dataclasses.replace(bench, seconds=bench.seconds / SLICES)
    with contextlib.ExitStack() as stack:
        servers = []
        for case in cases:
            job = job_of(bench, pki, case.scale)
            process, port = peer.serve(bench.directory / f"{peer.name}-{case.name}", job, bench.server_cores(case))
            stack.enter_context(process)
            stack.enter_context(idle_connections(bench, port, pki, case.scale.held))
            servers.append((process, port))
        for number in range(SLICES):
            for at in list(range(len(cases)))[:: -1 if number % 2 else 1]:
                process, port = servers[at]
                samples[at].append(cases[at].measure(bench, process, port, pki))
                if not process.alive():
                    raise Failed(f"{peer.name} ended while it was measured:\n{process.output()}")
    return samples


@contextlib.contextmanager
def idle_connections(bench, port, pki, count):
    """Holds so many connections, each of which made one request, until the `with` block is left."""
    if not count:
        yield
        return
    with _handshakes(bench, port, pki, ["--hold", str(count), "--seconds", "120"], {bench.load_core}, "holder.log") as holder:
        result = json.loads(system.read_line(holder, 120 + GRACE_SECONDS))
        _none_failed(result)
        yield
        holder.child.stdin.close()
        lost = json.loads(system.read_line(holder, GRACE_SECONDS))["lost"]
        if result["done"] != count or lost:
            raise Failed(f"{result['done'] - lost} of {count} idle connections stayed open")


def _handshakes(bench, port, pki, arguments, cores, log="handshakes.log"):
    return Process(
        [bench.handshakes, "--address", f"127.0.0.1:{port}", "--cert", pki.certificate("sensor-1"),
         "--key", pki.key("sensor-1"), "--ca", pki.certificate("ca"), *arguments],
        cores, bench.directory / log, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _none_failed(result):
    if result["failed"] or not result["done"]:
        raise Failed(f"{result['failed']} connections failed, {result['done']} did not: {result['first_failure']}")


def _all_answered(tool, report, at_origin):
    """Every answer was a 200, and the origin saw each request once (but for those in flight at the end)."""
    if tool == "wrk":
        done = re.search(r"(\d+) requests in", report)
        bad = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", report)
    else:
        done = re.search(r"requests: \d+ total, \d+ started, (\d+) done", report)
        bad = re.search(r"[1-9]\d* (failed|errored|timeout|3xx|4xx|5xx)", report)
    if bad or not done:
        raise Failed(f"{tool} reports: {bad[0] if bad else report.strip()[-400:]}")
    done = int(done[1])
    if abs(at_origin - done) > 0.02 * done + 1100:
        raise Failed(f"{tool} counts {done} answers, the origin {at_origin}")
