"""Drills: reloads, upgrades of the program and restarts while clients of every kind keep coming.

Not one request and not one handshake may fail, and afterwards the gateway holds no more than before.
"""

import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import time

import system
from gateway import DRAIN_SECONDS
from system import Failed, Process

# Between two reloads.
PAUSE_SECONDS = 0.05
# The load before and after each drill, so that what it holds is compared like with like.
SETTLE_SECONDS = 2
# The first reloads need memory that the later ones use again.
FIRST_RELOADS = 10
# Holding this much more than before is not flat.
MORE_FILES = 2
MORE_MEMORY = 0.15

# systemd passes sockets from descriptor 3 on, to the process whose number is in LISTEN_PID.
ACTIVATE = (
    "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=edge; "
    'exec "$0" "$@"'
)


@dataclasses.dataclass(frozen=True)
class Drill:
    """A gateway and its clients."""

    site: object
    steady: str  # the load generator, compiled
    load_core: int
    clients: int
    period: int  # milliseconds

    @contextlib.contextmanager
    def load(self, report):
        """Clients of every kind, until the `with` block is left; what became of them is put into `report`."""
        command = [self.steady, "--address", f"127.0.0.1:{self.site.port}", "--cert", self.site.pki.certificate("sensor-1"),
                   "--key", self.site.pki.key("sensor-1"), "--ca", self.site.pki.certificate("ca"),
                   "--clients", self.clients, "--period", self.period]  # fmt: skip
        log = self.site.directory / "steady.log"
        with Process(command, {self.load_core}, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tool:
            if system.read_line(tool, 60).strip() != "ready":
                raise Failed(f"the load does not start: {tool.output()}")
            yield
            if not tool.alive():
                raise Failed(f"the load ended early: {tool.output()}")
            tool.child.stdin.close()
            report.update(json.loads(system.read_line(tool, 60)))

    def held(self, process):
        """What the gateway holds under no load, after some."""
        with self.load({}):
            time.sleep(SETTLE_SECONDS)
        system.await_quiet(process, 5)
        # How many connections to the origin are kept for later depends on how many answers were slow at once.
        files = len(process.files()) - process.connections_to(self.site.origin.telemetry_port)
        return {"files": files, "pss_kib": process.memory_kib()}


def reloads(drill, count):
    """The configuration is read anew, in turn by SIGHUP and by POST /reload."""
    site = drill.site
    site.configure(f"127.0.0.1:{site.port}")
    with site.start("reloads") as process:
        site.await_ready(process)
        _reload(site, process, FIRST_RELOADS)
        before, report = drill.held(process), {}
        with drill.load(report):
            _reload(site, process, count)
        return _result(count, report, before, drill.held(process))


def _reload(site, process, count):
    before = _generation(site)
    for number in range(count):
        if number % 2:
            process.child.send_signal(signal.SIGHUP)
        else:
            status, text = site.admin("POST", "/reload")
            if status != 200:
                raise Failed(f"reload {number + 1} was refused: {text}")
        time.sleep(PAUSE_SECONDS)
    deadline = time.monotonic() + 10
    while (reloaded := _generation(site) - before) < count:
        if time.monotonic() > deadline:
            raise Failed(f"of {count} reloads {reloaded} came to something")
        time.sleep(PAUSE_SECONDS)


def _generation(site):
    return json.loads(site.admin("GET", "/status")[1])["configuration"]["generation"]


def upgrades(drill, count):
    """The sockets go from process to process: the new one is started with --upgrade, then the old one told by SIGQUIT."""
    site = drill.site
    site.configure(f"127.0.0.1:{site.port}")
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(site.start("upgrade-0"))
        site.await_ready(process)
        before, report = drill.held(process), {}
        with drill.load(report):
            for number in range(1, count + 1):
                successor = stack.enter_context(site.start(f"upgrade-{number}", "--upgrade"))
                _await_path(site.directory / "upgrade.sock", successor)
                process.child.send_signal(signal.SIGQUIT)
                _await_end(process)
                process = successor
                site.await_ready(process)
        return _result(count, report, before, drill.held(process))


def restarts(drill, count):
    """Somebody else holds the listening socket, as systemd does: the old process ends, then the new one starts."""
    site = drill.site
    site.configure("systemd:edge")
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", site.port))
        listening.listen(4096)

        def start(number):
            return site.start(f"restart-{number}", before=["sh", "-c", ACTIVATE], stdin=listening)

        with contextlib.ExitStack() as stack:
            process = stack.enter_context(start(0))
            site.await_ready(process)
            before, report, gaps = drill.held(process), {}, []
            with drill.load(report):
                for number in range(1, count + 1):
                    stopped = time.monotonic()
                    process.child.send_signal(signal.SIGTERM)
                    _await_end(process)
                    process = stack.enter_context(start(number))
                    site.await_ready(process)
                    gaps.append(time.monotonic() - stopped)
                    time.sleep(0.5)
            return {**_result(count, report, before, drill.held(process)), "longest_gap_seconds": max(gaps)}


def _await_path(path, process):
    deadline = time.monotonic() + 20
    while not path.exists():
        if not process.alive() or time.monotonic() > deadline:
            raise Failed(f"the new process does not wait for the sockets:\n{process.output()}")
        time.sleep(0.01)


def _await_end(process):
    try:
        status = process.child.wait(DRAIN_SECONDS + 20)
    except subprocess.TimeoutExpired:
        raise Failed(f"the old process does not end:\n{process.output()}") from None
    if status != 0:
        raise Failed(f"the old process ended with status {status}:\n{process.output()}")


def _result(count, report, before, after):
    kinds = report["kinds"].values()
    return {
        "times": count,
        "requests": sum(kind["done"] for kind in kinds),
        "connections": sum(kind["opened"] for kind in kinds),
        "failed": sum(kind["failed"] for kind in kinds),
        "slowest_ms": max(kind["slowest_ms"] for name, kind in report["kinds"].items() if "slow" not in name),
        "kinds": report["kinds"],
        "failures": report["failures"],
        "before": before,
        "after": after,
        "is_flat": after["files"] <= before["files"] + MORE_FILES
        and after["pss_kib"] <= before["pss_kib"] * (1 + MORE_MEMORY),
    }


DRILLS = {"reloads": reloads, "upgrades": upgrades, "restarts": restarts}
