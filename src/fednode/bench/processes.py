"""What processes take of this machine: memory and CPU time, from /proc. Where there is none, it is unknown.

A process is looked at from outside, by its pid: whoever is measured does nothing for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

import numpy as np

from fednode.ports import Clock

MEGABYTE = 1_000_000
LOOK_S = 0.005                  # a round of small params is over in a few of these
LOOKS_A_CPU_LOOK = 20           # CPU time is counted in hundredths of a second anyway


def memory_mb(pid: int) -> dict[str, float]:
    """`anon` (its own), `rss` (with files that it has mapped) and `peak` (the most that `rss` ever was)."""
    found = {}
    with suppress(OSError):
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        for name, row in (("anon", "RssAnon"), ("rss", "VmRSS"), ("peak", "VmHWM")):
            if row in rows:
                found[name] = round(int(rows[row].split()[0]) * 1024 / MEGABYTE, 1)
    return found


def cpu_s(pids: Iterable[int]) -> float | None:
    """Seconds of CPU time since their starts, of all their threads. One that has ended counts no more."""
    found = [took_s for pid in pids if (took_s := _cpu_s(pid)) is not None]
    return sum(found) if found else None


def family(pid: int) -> list[int]:
    """A process and those that it started, and theirs."""
    children = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += [int(text) for text in file.read_text().split()]
    return [pid, *(one for child in children for one in family(child))]


class Recorder:
    """Looks at a central node and its clients, in a thread, while its block runs. Times are wall seconds."""

    def __init__(self, central: int, clients: Sequence[int], clock: Clock) -> None:
        self._central = central
        self._clients = clients
        self._clock = clock
        self._anon_mb: list[tuple[float, float]] = []
        self._cpu_s: dict[str, list[tuple[float, float]]] = {"central": [], "clients": []}
        self._over = Event()
        self._thread = Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Recorder:
        self._look_at_cpu()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._look_at_cpu()

    def peak_anon_mb(self, from_s: float, to_s: float) -> float | None:
        """The most anonymous memory that the central node had between two moments."""
        slack_s = 2 * LOOK_S
        return max((mb for at_s, mb in self._anon_mb if from_s - slack_s <= at_s <= to_s + slack_s), default=None)

    def cpu_s(self, who: str, from_s: float, to_s: float) -> float | None:
        """CPU time of the `central` node, or of the `clients` together, between two moments."""
        if not self._cpu_s[who]:
            return None
        at_s, took_s = zip(*self._cpu_s[who], strict=True)
        first, last = np.interp([from_s, to_s], at_s, took_s)
        return round(float(last - first), 2)

    def _look_on(self) -> None:
        num_looks = 0
        while not self._over.wait(LOOK_S):
            num_looks += 1
            if "anon" in (now_mb := memory_mb(self._central)):
                self._anon_mb.append((self._clock.wall_s(), now_mb["anon"]))
            if num_looks % LOOKS_A_CPU_LOOK == 0:
                self._look_at_cpu()

    def _look_at_cpu(self) -> None:
        for who, pids in (("central", (self._central,)), ("clients", self._clients)):
            if (took_s := cpu_s(one for pid in pids for one in family(pid))) is not None:
                self._cpu_s[who].append((self._clock.wall_s(), took_s))


def _cpu_s(pid: int) -> float | None:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None
