"""The census of the clients' certificates: what a gateway holds that has seen a million of them."""

import hashlib
import json
import secrets
import struct
import time

import system
from system import Failed

# What the rest of a process takes differs a little from start to start.
STARTS = 3
# Until it has read what it found.
PATIENCE_SECONDS = 60


def measure(site, count, progress):
    """Memory and start of a gateway that finds a census of nobody, and of `count` certificates."""
    result = {}
    for certificates in (0, count):
        starts = []
        for number in range(STARTS):
            progress(f"census: {certificates:,} certificates, start {number + 1} of {STARTS}")
            starts.append(_start(site, certificates, number))
        result[certificates] = {what: sorted(start[what] for start in starts)[STARTS // 2] for what in starts[0]}
    more = result[count]["pss_kib"] - result[0]["pss_kib"]
    return {"certificates": count, "none": result[0], "all": result[count], "bytes_each": more * 1024 / count}


def _start(site, certificates, number):
    state = site.directory / f"state-{certificates}-{number}"
    state.mkdir()
    (state / "census").write_bytes(_file(site.pki, certificates))
    site.configure(f"127.0.0.1:{site.port}", state_directory=state)
    began = time.monotonic()
    with site.start(f"census-{certificates}-{number}") as process:
        site.await_ready(process)
        seconds = time.monotonic() - began
        # It is read beside the serving.
        while (held := json.loads(site.admin("GET", "/census")[1])["held"]) != certificates:
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise Failed(f"of {certificates:,} certificates the census holds {held:,}:\n{process.output()}")
            time.sleep(0.01)
        complete = time.monotonic() - began
        system.await_quiet(process, 10)
        return {"seconds": seconds, "complete_seconds": complete, "pss_kib": process.memory_kib(), "peak_rss_kib": process.peak_kib()}


def _file(pki, certificates):
    """As src/census/file.rs describes it: no names of those that expire next, the entries, and our authority."""
    now = int(time.time())
    month = 30 * 24 * 3600
    names = struct.iter_unpack("<16sQ", secrets.token_bytes(24 * certificates))
    entries = b"".join(
        struct.pack("<16sQIIIHB", fingerprint, name, now + month + number % month, now - month // 2, now - number % 1000, 0, 0)
        for number, (fingerprint, name) in enumerate(names)
    )
    anchor = [_text("fleet"), _text("CN=Bench CA"), pki.fingerprint("ca"), struct.pack("<q", now + 30 * month)]
    whole = b"".join([b"portcullis census, v. 1\n", struct.pack("<II", 0, certificates), entries, struct.pack("<I", 1), *anchor])
    return whole + hashlib.sha256(whole).digest()


def _text(text):
    return struct.pack("<H", len(text)) + text.encode()
