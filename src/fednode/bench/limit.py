"""What this machine can do at best: bytes over bare sockets, onto the disk, through memory.

A round's limit is the time of its own bytes in each of the three, one after the other: every client gets the model and
sends an update, every update and the next model are on the disk before anybody hears of it, every update is read once.
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fednode.ports import Clock

GIGABYTE = 1_000_000_000
PIECE_BYTES = 1 << 20
MOST_BYTES = GIGABYTE           # of one try: what is more is reckoned from that
COPIED_BYTES = 128_000_000      # beyond what a cache holds


@dataclass(kw_only=True)
class Limit:
    """The limit of a round of `num_clients`, each with a model of `num_bytes`. Medians of all that was measured."""

    num_clients: int
    num_bytes: int
    clock: Clock
    loopback_gb_s: list[float] = field(default_factory=list)
    disk_gb_s: list[float] = field(default_factory=list)
    memcpy_gb_s: list[float] = field(default_factory=list)

    def measure(self, repeats: int) -> None:
        """Each of the three, so many times, by turns. Blocks; nothing else should run meanwhile."""
        for _ in range(repeats):
            self.loopback_gb_s.append(loopback_gb_s(self.num_clients, self.num_bytes, self.clock))
            self.disk_gb_s.append(disk_gb_s(self.num_clients, self.num_bytes, self.clock))
            self.memcpy_gb_s.append(memcpy_gb_s(self.clock))

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each part, and the speed behind it."""
        of_clients = self.num_clients * self.num_bytes / GIGABYTE
        loopback, disk, memcpy = map(statistics.median, (self.loopback_gb_s, self.disk_gb_s, self.memcpy_gb_s))
        return {
            "loopback_s": 2 * of_clients / loopback, "disk_s": (of_clients + self.num_bytes / GIGABYTE) / disk,
            "memory_s": of_clients / memcpy,
            "loopback_gb_s": loopback, "disk_gb_s": disk, "memcpy_gb_s": memcpy,
        }

    @property
    def seconds(self) -> float:
        return sum(value for name, value in self.parts.items() if not name.endswith("_gb_s"))


def loopback_gb_s(num_streams: int, num_bytes: int, clock: Clock) -> float:
    """`num_bytes` down each of so many connections at once, then as many up: bare sockets, a thread at each end."""
    num_bytes = min(num_bytes, MOST_BYTES // (2 * num_streams))
    with ExitStack() as stack, ThreadPoolExecutor(2 * num_streams) as threads:
        ends = [end for _ in range(num_streams) for end in _connection(stack)]

        def carry(place: int) -> None:
            for carried in (_send, _receive) if place % 2 else (_receive, _send):
                carried(ends[place], num_bytes)

        took_s = _timed(clock, lambda: list(threads.map(carry, range(len(ends)))))
    return 2 * num_streams * num_bytes / took_s / GIGABYTE


def disk_gb_s(num_files: int, num_bytes: int, clock: Clock) -> float:
    """As many files at once, each fsynced, and then one more: updates, and the model that is made of them."""
    num_bytes = min(num_bytes, MOST_BYTES // (num_files + 1))
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder, ThreadPoolExecutor(num_files) as threads:
        # No zeros: there are disks that do not write them.
        write = partial(_write, Path(folder), memoryview(os.urandom(min(PIECE_BYTES, num_bytes))), num_bytes)
        took_s = _timed(clock, lambda: (list(threads.map(write, range(num_files))), write(num_files)))
    return (num_files + 1) * num_bytes / took_s / GIGABYTE


def memcpy_gb_s(clock: Clock) -> float:
    """Bytes copied from one place to another, both of which were touched before."""
    source = np.ones(COPIED_BYTES, np.uint8)
    target = source.copy()
    return COPIED_BYTES / _timed(clock, lambda: np.copyto(target, source)) / GIGABYTE


def _timed(clock: Clock, work: Callable[[], object]) -> float:
    began_s = clock.now_s()
    work()
    return max(clock.now_s() - began_s, 1e-9)


def _connection(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        there = stack.enter_context(socket.create_connection(door.getsockname()))
        here, _ = door.accept()
    return stack.enter_context(here), there


def _send(end: socket.socket, num_bytes: int) -> None:
    piece = memoryview(bytes(min(PIECE_BYTES, num_bytes)))
    while num_bytes:
        part = piece[:num_bytes]
        end.sendall(part)
        num_bytes -= len(part)


def _receive(end: socket.socket, num_bytes: int) -> None:
    piece = memoryview(bytearray(min(PIECE_BYTES, num_bytes)))
    while num_bytes:
        num_bytes -= end.recv_into(piece[:num_bytes])


def _write(folder: Path, piece: memoryview, num_bytes: int, place: int) -> None:
    descriptor = os.open(folder / str(place), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while num_bytes:
            num_bytes -= os.write(descriptor, piece[:num_bytes])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
