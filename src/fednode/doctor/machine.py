"""The machine itself: Python, packages, memory, threads, open files, the clock, what the environment sets."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import resource
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from fednode.core.units import size_text
from fednode.doctor.findings import Finding, bad, doubtful, good
from fednode.ports import Clock
from fednode.settings import unknown_variables

OLDEST_PYTHON = (3, 11)
BUILT_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()      # a clock that says less is not set
MIN_MEMORY_BYTES = 500_000_000
MIN_OPEN_FILES = 4_096                                      # a connection a client, a file an update
TOLD = ("fednode", "numpy", "pydantic", "SQLAlchemy", "fastapi", "uvicorn", "httpx2", "cryptography")
IMPORT_TORCH = (
    "import torch; from fednode.tasks.devices import described, devices;"
    "print(f'{torch.__version__}, devices: ' + ', '.join(map(described, devices())))"
)
NO_TORCH = "pip install 'fednode[torch]'"


def python() -> Finding:
    told = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return bad("python", f"{told} is too old", "use Python 3.11 or newer", exit_code=7)
    return good("python", told)


def packages() -> Finding:
    """What fednode needs without an extra; the versions that people ask each other for."""
    missing = [name for name in _needed() if _version(name) is None]
    if missing:
        return bad("packages", f"not installed: {', '.join(missing)}", "pip install --force-reinstall fednode")
    return good("packages", ", ".join(f"{name} {_version(name)}" for name in TOLD))


def torch_is_there() -> Finding:
    """Of a central node, which needs none."""
    version = _version("torch")
    return good("torch", f"{version}" if version else "not installed, and a central node needs none")


async def torch_imports() -> Finding:
    """In a process of its own: a broken install may take its process along."""
    if _version("torch") is None:
        return doubtful("torch", "not installed: tasks in PyTorch cannot run here", NO_TORCH)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IMPORT_TORCH, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    out, err = await child.communicate()
    if child.returncode == 0:
        return good("torch", out.decode(errors="replace").strip())
    last = err.decode(errors="replace").strip().splitlines()[-1:] or [f"its process ended with {child.returncode}"]
    return bad("torch", f"cannot be imported: {last[0]}", f"install it again: {NO_TORCH}")


def memory() -> Finding:
    free_bytes = _free_memory_bytes()
    if free_bytes is None:
        return good("memory", "this system does not say how much is free")
    told = f"{size_text(free_bytes)} free"
    if free_bytes < MIN_MEMORY_BYTES:
        return doubtful("memory", f"only {told}", "end what else needs memory, or train smaller models here")
    return good("memory", told)


def threads(asked: int) -> Finding:
    """`asked`: 0 stands for all cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked > cores:
        return doubtful("threads", f"--threads {asked}, and {cores} cores", f"take --threads {cores} or less")
    return good("threads", f"{asked or cores} of {cores} cores")


def open_files() -> Finding:
    """The hard limit: a central node raises its own to that."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < MIN_OPEN_FILES:
        fix = f"raise the limit: `ulimit -Hn {MIN_OPEN_FILES}` as root, or LimitNOFILE= of the systemd unit"
        return doubtful("open files", f"at most {hard}: too few for many clients", fix)
    return good("open files", "no limit" if hard == resource.RLIM_INFINITY else f"at most {hard}")


def clock_is_set(clock: Clock) -> Finding:
    told = f"{datetime.fromtimestamp(clock.wall_s(), UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if clock.wall_s() < BUILT_S:
        return bad("clock", f"it is {told}, says this machine", "set it by NTP: timedatectl set-ntp true")
    return good("clock", told)


def environment() -> Finding:
    if unknown := unknown_variables():
        told = f"{', '.join(unknown)} sets nothing"
        return doubtful("environment", told, "correct the name: `fednode config show` lists them all")
    return good("environment", "every FEDNODE_ variable is a setting")


def _needed() -> list[str]:
    rows = metadata.requires("fednode") or []
    return [re.split(r"[\s\[<>=!~;(]", row, maxsplit=1)[0] for row in rows if "extra ==" not in row]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _free_memory_bytes() -> int | None:
    """What the system has left, or the control group of this process where that is less."""
    found = [number for number in (_of_system(), _of_group()) if number is not None]
    return min(found, default=None)


def _of_system() -> int | None:
    text = _read("/proc/meminfo")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _of_group() -> int | None:
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    return max(0, int(limit) - int(used)) if limit.isdecimal() and used.isdecimal() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
