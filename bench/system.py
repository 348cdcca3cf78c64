"""Processes on chosen cores, what they cost, and the end of all of them."""

import ctypes
import os
import pathlib
import select
import signal
import socket
import subprocess
import time

CPUCLOCK_SCHED = 2  # of the kernel's posix-timers.h
PR_SET_PDEATHSIG = 1
STOP_SECONDS = 5
_libc = ctypes.CDLL(None)


class Failed(Exception):
    """Something could not be measured; the message says what and is meant for the person at the terminal."""


class Process:
    """A child on chosen cores, ended by its process id when the `with` block is left, however it is left."""

    def __init__(self, arguments, cores, log, environment=None, **pipes):
        self.name = pathlib.Path(arguments[0]).name
        self._log = log

        def settle():
            os.sched_setaffinity(0, cores)
            # Should this script be killed outright, the kernel ends the child for it.
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                [str(argument) for argument in arguments],
                env={**os.environ, **(environment or {})},
                preexec_fn=settle,
                **{"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **pipes},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        family = family_of(self.child.pid)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        for pid, born in family:
            # The birth time tells our process from a later one that was given the same number.
            if birth_of(pid) == born:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.child.wait(STOP_SECONDS)
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()

    def alive(self):
        return self.child.poll() is None

    def output(self):
        """The last lines of what it wrote, for an error message."""
        text = pathlib.Path(self._log).read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-12:]) or "(it wrote nothing)"

    def cpu_seconds(self):
        """User and system time of the process, its threads (also ended ones) and its children."""
        return sum(_cpu_seconds(pid) for pid, _ in family_of(self.child.pid))

    def memory_kib(self):
        """Proportional set size of the process and its children."""
        return sum(_pss_kib(pid) for pid, _ in family_of(self.child.pid))

    def peak_kib(self):
        """The most memory it ever had resident, without its children."""
        for line in pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
        return 0

    def files(self):
        """What its open files are, as the kernel names them."""
        files = []
        for number in os.listdir(f"/proc/{self.child.pid}/fd"):
            try:
                files.append(os.readlink(f"/proc/{self.child.pid}/fd/{number}"))
            except FileNotFoundError:
                pass  # it was closed meanwhile
        return files

    def connections_to(self, port):
        """How many TCP connections of IPv4 it has to this port."""
        files, count = set(self.files()), 0
        for line in pathlib.Path(f"/proc/{self.child.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            remote, inode = fields[2], fields[9]
            count += int(remote.rpartition(":")[2], 16) == port and f"socket:[{inode}]" in files
        return count


def family_of(pid):
    """The process and its descendants, as (process id, birth time)."""
    family, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        born = birth_of(one)
        if born is None:
            continue
        family.append((one, born))
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                children = pathlib.Path(f"/proc/{one}/task/{thread}/children").read_text()
                waiting += [int(child) for child in children.split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return family


def _stat(pid):
    """The fields of /proc/PID/stat behind the name, which may itself hold spaces and brackets."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def birth_of(pid):
    stat = _stat(pid)
    return None if stat is None else int(stat[19])


def _cpu_seconds(pid):
    # The process's CPU clock (clock_getcpuclockid(3)): /proc/PID/stat counts in steps of 10 ms.
    try:
        return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return 0


def _pss_kib(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_listener(process, port, seconds=20):
    """Returns once something accepts on the port; fails when the process ends first or takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not process.alive():
            raise Failed(f"{process.name} ended instead of serving:\n{process.output()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failed(f"{process.name} does not listen on port {port} after {seconds} s:\n{process.output()}")


def read_line(tool, seconds):
    """The next line the tool prints; it flushes after each."""
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([tool.child.stdout], [], [], max(0, deadline - time.monotonic()))
        part = os.read(tool.child.stdout.fileno(), 4096) if ready else b""
        if not part:
            why = "ended" if ready else f"said nothing for {seconds:.0f} s"
            raise Failed(f"{tool.name} {why}: {tool.output()}")
        line += part
    return line.decode()


def await_quiet(process, seconds=2):
    """Waits until the process does nothing any more, so that closing work is counted where it belongs."""
    deadline = time.monotonic() + seconds
    before = process.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        after = process.cpu_seconds()
        if after == before:
            return
        before = after
