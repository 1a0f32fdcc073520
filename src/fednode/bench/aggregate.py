"""`fednode bench aggregate`: how fast updates become the next model, and how fast they are checked.

Both are the central node's own functions, on one thread each: `next_state` of the round loop, with the updates mapped
anew each time as in each round, and the check that every body passes while it arrives.
"""

from __future__ import annotations

import mmap
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fednode.bench.echo import params_after
from fednode.bench.federation import Tell, client_name, num_params_of, spread
from fednode.bench.limit import GIGABYTE, memcpy_gb_s
from fednode.bench.processes import Recorder, memory_mb
from fednode.central.serve import tune_malloc
from fednode.core.params import Array, Params
from fednode.core.records import Checkpoint, Outcome, Round, State, Update
from fednode.core.seeds import numpy_rng
from fednode.core.status import RoundKind
from fednode.ports import Clock
from fednode.rounds import next_state
from fednode.strategies.base import Strategy
from fednode.strategies.registry import load_strategy
from fednode.wire.body_check import BodyCheck
from fednode.wire.codec import read_header, read_params, write_params

CHUNK_BYTES = 256 << 10         # as the central node gets a body
COMPARED = 10_000               # numbers of each tensor that are worked out in another way
NEAR = 1e-6


@dataclass(frozen=True, kw_only=True)
class AggregateSettings:
    """How much there is to aggregate, and how often."""

    updates: int = 10
    mb: float = 100.0           # of each
    strategy: str = "fedavg"
    repeats: int = 5


@dataclass(frozen=True, kw_only=True)
class _Scene:
    checkpoint: Checkpoint
    files: Sequence[Path]
    strategy: Strategy
    clock: Clock

    @property
    def cohort(self) -> tuple[str, ...]:
        return tuple(client_name(number) for number in range(1, len(self.files) + 1))

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def aggregate(self) -> State | None:
        """From the files to the next state."""
        round_ = Round(
            run_id="", number=1, attempt=1, kind=RoundKind.TRAIN, cohort=self.cohort, config={}, base_model="",
            budget_s=1.0,
        )
        outcomes = tuple(
            Outcome(client=client, update=Update(client=client, params=read_params(file), num_examples=place))
            for place, (client, file) in enumerate(zip(self.cohort, self.files, strict=True), 1)
        )
        return next_state(round_, outcomes, self.checkpoint, self.strategy)

    def check(self) -> None:
        """Every file, in the pieces in which it would come."""
        for file in self.files:
            with file.open("rb") as opened:
                body = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            check = BodyCheck(read_header(file).manifest, len(body))
            for start in range(0, len(body), CHUNK_BYTES):
                check.feed(body[start : start + CHUNK_BYTES])
            check.finish()

    def gb_s(self, work: Callable[[], object]) -> float:
        began_s = self.clock.now_s()
        work()
        return self.num_bytes / max(self.clock.now_s() - began_s, 1e-9) / GIGABYTE


def measure(settings: AggregateSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Each of them by turns with a bare copy of memory, so that a busy machine slows all alike."""
    strategy = load_strategy(settings.strategy, {})
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        scene = _written(settings, Path(folder), strategy, clock)
        tune_malloc()                           # as the central node does
        found: dict[str, list[float]] = {"gb_s": [], "validation_gb_s": [], "memcpy_gb_s": []}
        base_mb, peaks_mb = memory_mb(os.getpid()).get("anon"), []
        is_right = _is_right(scene)             # and so all files are in the page cache
        for number in range(1, settings.repeats + 1):
            found["memcpy_gb_s"].append(memcpy_gb_s(clock))
            found["validation_gb_s"].append(scene.gb_s(scene.check))
            with Recorder(os.getpid(), (), clock) as recorder:
                began_s = clock.wall_s()
                found["gb_s"].append(scene.gb_s(scene.aggregate))
                peaks_mb.append(recorder.peak_anon_mb(began_s, clock.wall_s()))
            last = ", ".join(f"{name} {one[-1]:.2f}" for name, one in found.items())
            tell(f"{number} of {settings.repeats}: {last}")
        medians = {name: round(statistics.median(one), 3) for name, one in found.items()}
        peaks_known_mb = [mb for mb in peaks_mb if mb is not None]
        return {
            "updates": settings.updates, "mb": settings.mb, "strategy": settings.strategy,
            "repeats": settings.repeats,
            **spread([scene.num_bytes / GIGABYTE / gb_s for gb_s in found["gb_s"]]), **medians,
            "ratio_to_memcpy": round(medians["gb_s"] / medians["memcpy_gb_s"], 3),
            "anon_mb": max(peaks_known_mb, default=None), "base_mb": base_mb, "model_mb": settings.mb,
            "is_model_right": is_right, "load_average": round(os.getloadavg()[0], 2),
        }


def _written(settings: AggregateSettings, folder: Path, strategy: Strategy, clock: Clock) -> _Scene:
    """A model, and updates that differ from it and from one another."""
    start, files = params_after(0, num_params_of(settings.mb)), []
    for number in range(settings.updates):
        update = start.map(partial(_moved, numpy_rng(number)))
        files.append(folder / f"{client_name(number + 1)}.safetensors")
        write_params(update, files[-1], is_durable=False)
    model = folder / "model.safetensors"
    write_params(start, model, is_durable=False)
    checkpoint = Checkpoint(run_id="", round=0, state=State(params=read_params(model)), model_sha256="")
    return _Scene(checkpoint=checkpoint, files=files, strategy=strategy, clock=clock)


def _moved(rng: np.random.Generator, array: Array) -> Array:
    return np.add(array, rng.random(array.shape, np.float32))


def _is_right(scene: _Scene) -> bool | None:
    """Whether some of the numbers are what numpy says of a mean; None of a strategy that makes something else."""
    state = scene.aggregate()
    if state is None or type(scene.strategy).__name__ not in ("FedAvg", "FedProx"):
        return None
    updates = [read_params(file) for file in scene.files]
    return all(_is_mean(name, array, updates) for name, array in state.params.items())


def _is_mean(name: str, found: Any, updates: Sequence[Params]) -> bool:
    rows = np.stack([update[name][:COMPARED] for update in updates])
    wanted = np.average(rows.astype(np.float64), axis=0, weights=range(1, len(updates) + 1))
    return bool(np.allclose(found[:COMPARED], wanted, rtol=NEAR, atol=0.0))
