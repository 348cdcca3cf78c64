"""Revocation lists: what it takes to load one, what it takes to hold one, and what each handshake pays for it."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import time

import system
from cases import Handshakes, measure_once
from gateway import Site
from peers import Scale
from system import Failed, Process

# Each handshake is that of a client never seen before: what is remembered of an earlier one would hide the list.
HANDSHAKE = Handshakes("stranger13", "", "p256", "1.3", strangers=True)
# So many entries for everybody.
SHARED = 100_000
LOADS = 3
# Ready to be loaded one after the other while answers are timed.
LISTS = 8


def measure(bench, peers, site, sizes, repetitions, progress):
    """A row for each size, from none on: what it costs Portcullis, and at 100,000 the others too."""
    outcomes = {}
    for repetition in range(repetitions):
        for peer in peers[:: -1 if repetition % 2 else 1]:
            for size in (sizes if peer.name == "portcullis" else [size for size in sizes if size in (0, SHARED)]):
                progress(f"revocation [{repetition + 1}/{repetitions}]: {size:,} entries: {peer.name}")
                outcomes.setdefault((size, peer.name), []).append(_handshakes(bench, peer, site.pki, size))
    rows = []
    for size in sizes:
        row = {"entries": size, "peers": {}}
        for peer in peers:
            if (size, peer.name) in outcomes:
                row["peers"][peer.name] = _summary(outcomes, size, peer.name)
        progress(f"revocation: loading {size:,} entries")
        row["load"] = load_time(site, bench.server_core, size)
        rows.append(row)
    return rows


def _handshakes(bench, peer, pki, size):
    case = dataclasses.replace(HANDSHAKE, name=f"revoked-{size}", scale=Scale(revoked=size))
    if size:
        pki.revocation_list(size)  # made before the start is timed
    seen = {}

    def look(process, seconds):
        seen.update(start_seconds=seconds, pss_kib=process.memory_kib())

    return {"us": measure_once(bench, peer, case, pki, look).value, **seen}


def _summary(outcomes, size, name):
    samples, none = outcomes[size, name], outcomes[0, name]
    return {
        "handshake_us": statistics.median(sample["us"] for sample in samples),
        # Each with the one beside it in time.
        "handshake_ratio": statistics.median(one["us"] / other["us"] for one, other in zip(samples, none, strict=True)),
        "start_seconds": statistics.median(sample["start_seconds"] for sample in samples),
        "pss_kib": statistics.median(sample["pss_kib"] for sample in samples),
        "more_pss_kib": statistics.median(one["pss_kib"] - other["pss_kib"] for one, other in zip(samples, none, strict=True)),
    }  # fmt: skip


def load_time(site, core, size):
    """A list of this size takes the place of another one of this size: wall and CPU time until it is in force."""
    pki, in_force = site.pki, site.directory / "fleet.crl"
    site = dataclasses.replace(site, cores={core})
    entries = pki.revocation_entries(size)
    pki.sign_revocation_list(entries, 1, in_force)
    site.configure(f"127.0.0.1:{site.port}", threads=1, lists=[in_force], watch=False)
    with site.start("load") as process:
        site.await_ready(process)
        walls, cpus = [], []
        for number in range(2, 2 + LOADS):
            pki.sign_revocation_list(entries, number, in_force)
            began, cpu = time.monotonic(), process.cpu_seconds()
            _reload(site)
            walls.append(time.monotonic() - began)
            cpus.append(process.cpu_seconds() - cpu)
        system.await_quiet(process)
        return {"seconds": statistics.median(walls), "cpu_seconds": statistics.median(cpus),
                "pss_kib": process.memory_kib(), "peak_rss_kib": process.peak_kib()}  # fmt: skip


def _reload(site):
    status, text = site.admin("POST", "/reload")
    if status != 200:
        raise Failed(f"a list was refused: {text}")


def serving(bench, site, size, rate, seconds, progress):
    """Answer times at a steady rate before, while and after lists of this size are loaded, one after the other.

    The gateway has one serving thread and both cores: the load and the origin are on one of them.
    """
    pki, in_force = site.pki, site.directory / "fleet.crl"
    progress("serving: signing lists")
    entries = pki.revocation_entries(size)
    pki.sign_revocation_list(entries, 1, in_force)
    # Made before: to make one takes the load's core.
    lists = [pki.sign_revocation_list(entries, number, site.directory / f"{number}.crl") for number in range(2, 2 + LISTS)]
    site.configure(f"127.0.0.1:{site.port}", threads=1, lists=[in_force], watch=False)
    result = {}
    with site.start("serving") as process:
        site.await_ready(process)
        for phase in ("before", "during", "after"):
            progress(f"serving: {phase} loading")
            with _latency(bench, pki, site.port, rate, seconds) as (tool, report):
                loads = 0
                while phase == "during" and lists and tool.alive():
                    # A new one each time: nothing of the one before may be used again.
                    lists.pop(0).replace(in_force)
                    _reload(site)
                    loads += 1
            result[phase] = {**report, "loads": loads}
    return result


@contextlib.contextmanager
def _latency(bench, pki, port, rate, seconds):
    """The load, and what it reports when the `with` block is left."""
    command = [bench.latency, "--address", f"127.0.0.1:{port}", "--cert", pki.certificate("sensor-1"), "--key",
               pki.key("sensor-1"), "--ca", pki.certificate("ca"), "--rate", rate, "--seconds", seconds]  # fmt: skip
    report = {}
    with Process(command, {bench.load_core}, bench.directory / "latency.log", stdout=subprocess.PIPE) as tool:
        yield tool, report
        report.update(json.loads(system.read_line(tool, seconds + 30)))
