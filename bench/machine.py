"""What the scripts need of the machine and of the one who calls them: cores, limits, compiled tools, arguments."""

import argparse
import json
import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys

from system import Failed

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent


def names(known, groups=None):
    groups = groups or {}

    def parse(text):
        chosen = []
        for name in filter(None, text.split(",")):
            chosen += [case.name for case in groups[name]] if name in groups else [name]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join([*groups, *known])}")
        return list(dict.fromkeys(chosen))

    return parse


def between(least, most, kind):
    def parse(text):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    parse.__name__ = "number"
    return parse


def allow_many_files(connections):
    # One for each connection, in the load generator as in the server, and upstream connections.
    needed = connections + 4096
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        limits = (needed, hard)
    else:
        limits = (needed, needed)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    except (ValueError, OSError):
        raise Failed(f"{needed} open files are needed, the limit is {hard}\n  hint: fewer --connections") from None


def choose_cores(arguments):
    allowed = sorted(os.sched_getaffinity(0))
    server = allowed[0] if arguments.server_core is None else arguments.server_core
    others = [core for core in allowed if core != server]
    load = arguments.load_core if arguments.load_core is not None else (others[0] if others else None)
    if server not in allowed or load not in allowed or server == load:
        raise Failed(f"two different cores are needed, one for the server; these may be used: {allowed}")
    return server, load


def build_tools(directory, *names):
    """Compiles the tools of these names; returns their paths."""
    compiler = os.environ.get("CC", "cc")
    for name in names:
        source = HERE / f"{name.removesuffix('.so')}.c"
        how = ["-shared", "-fPIC", source, "-ldl"] if name.endswith(".so") else [source, "-lssl", "-lcrypto", "-lm"]
        command = [compiler, "-O2", "-o", directory / name, *how]
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
        except FileNotFoundError:
            raise Failed(f"there is no C compiler `{compiler}`\n  hint: apt-get install gcc libssl-dev") from None
        if done.returncode != 0:
            raise Failed(f"`{source.name}` was not compiled\n  hint: apt-get install libssl-dev\n{done.stderr}")
    return [str(directory / name) for name in names]


def demand_programs(**packages):
    """Fails unless each of these programs is there; the value says which package brings it."""
    for tool, package in packages.items():
        if shutil.which(tool) is None:
            raise Failed(f"there is no {tool}\n  hint: apt-get install {package}")


def describe_machine():
    model = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release()}


def commit():
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def write(results, output, prefix=""):
    """Writes the results as JSON; returns where."""
    if output is None:
        (HERE / "results").mkdir(exist_ok=True)
        stamp = results["time"].replace("+00:00", "Z").replace(":", "").replace("-", "")
        output = HERE / "results" / f"{prefix}{stamp}.json"
    output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return output


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
