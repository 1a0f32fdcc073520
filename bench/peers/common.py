"""What `flower.py` and `nvflare.py` share: their own environments, a look at processes, the fields that they print."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

from fednode.bench.federation import num_params_of, spread
from fednode.bench.limit import Limit
from fednode.bench.processes import MEGABYTE, cpu_s, memory_mb
from fednode.clock import SystemClock

WARM_UP_ROUNDS, TRIES_OF_LIMIT = 2, 2
LOOK_S, STOP_S = 0.05, 15.0


def install(venv: Path, *packages: str) -> Path:
    """A virtual environment with these, made at the first call: where its programs are."""
    if not (venv / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
        (venv / "installed").touch()
    return (venv / "bin").absolute()


def measure(clients: int, mb: float, rounds: int, play: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """`play` gets the number of params; around it the limit is measured, as `fednode bench round` does."""
    num_params = num_params_of(mb)
    limit = Limit(num_clients=clients, num_bytes=4 * num_params, clock=SystemClock())
    limit.measure(TRIES_OF_LIMIT)
    played = play(num_params)
    limit.measure(TRIES_OF_LIMIT)
    return {
        "clients": clients, "mb": mb, "rounds": rounds, **played, "model_mb": 4 * num_params / MEGABYTE,
        "limit_seconds": round(limit.seconds, 4),
        "limit_parts": {name: round(value, 4) for name, value in limit.parts.items()},
        "ratio_to_limit": round(played["seconds_per_round"] / limit.seconds, 2),
    }


def figures(ended_s: list[float], sampler: Sampler) -> dict[str, Any]:
    """Of the moments at which all rounds ended, those of the warm-up among them."""
    counted_s = ended_s[WARM_UP_ROUNDS - 1 :]
    seconds = [after - before for before, after in itertools.pairwise(counted_s)]
    return spread(seconds, "seconds_per_round") | sampler.figures(counted_s[0], counted_s[-1])


class Sampler:
    """Looks at all processes of the central side together, and at all of the clients', from its making on."""

    def __init__(self, central: Callable[[], list[int]], clients: Callable[[], list[int]]) -> None:
        self.base_mb = anon_mb(central())
        self._sides = {"central": central, "clients": clients}
        self._anon_mb: list[tuple[float, float]] = []
        self._cpu_s: dict[str, list[tuple[float, float]]] = {"central": [], "clients": []}
        self._over = Event()
        self._thread = Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def figures(self, from_s: float, to_s: float) -> dict[str, Any]:
        """CPU times are at least these: a process that has ended between two looks took more."""
        seen = [mb for at_s, mb in self._anon_mb if from_s - LOOK_S <= at_s <= to_s + LOOK_S]
        return {
            "central_anon_mb": max(seen, default=None), "base_mb": self.base_mb,
            **{f"{who}_cpu_s": self._took_s(who, from_s, to_s) for who in self._sides},
        }

    def _took_s(self, who: str, from_s: float, to_s: float) -> float:
        found = [took for at_s, took in self._cpu_s[who] if from_s - LOOK_S <= at_s <= to_s + LOOK_S]
        return round(sum(max(0.0, after - before) for before, after in itertools.pairwise(found)), 2)

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_S):
            at_s = time.time()
            for who, pids in self._sides.items():
                now = pids()
                self._cpu_s[who].append((at_s, cpu_s(now) or 0.0))
                if who == "central":
                    self._anon_mb.append((at_s, anon_mb(now)))


def anon_mb(pids: list[int]) -> float:
    return round(sum(memory_mb(pid).get("anon", 0.0) for pid in pids), 1)


def end(process: subprocess.Popen[bytes]) -> None:
    """It and whatever it has started: they are a session of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
