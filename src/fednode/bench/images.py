"""`fednode bench images`: how fast X-rays are decoded and read again, beside Pillow alone and beside training.

All in one call and by turns, so that a busy machine slows everything alike and ratios hold. `cold`: decoded into a new
cache; `warm`: batches from its memory map, as training asks for them. Nothing of it is kept.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fednode.core.seeds import numpy_rng
from fednode.errors import DataError
from fednode.ports import Clock
from fednode.tasks.base import Site, Visit
from fednode.tasks.chest_xray import ChestXray, Config
from fednode.tasks.chest_xray_files import Listing
from fednode.tasks.picture_cache import Found, LabelledSquares, PictureCache, num_cores

SEED = 1
WARM_PASSES = 10                # over all images: one is over too soon to be timed
TRAINED = 100                   # images of an epoch that is timed


@dataclass(frozen=True, kw_only=True)
class ImagesSettings:
    """What is measured, and how often."""

    data: Path
    size: int = 64
    images: int = 500               # of the folder, evenly; all, where there are fewer
    repeats: int = 5


@dataclass(kw_only=True)
class _Scene:
    paths: list[Path]
    settings: ImagesSettings
    clock: Clock
    per_s: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, num_images: int, work: Callable[[], object]) -> None:
        began_s = self.clock.now_s()
        work()
        self.add(name, num_images, self.clock.now_s() - began_s)

    def add(self, name: str, num_images: int, took_s: float) -> None:
        self.per_s.setdefault(name, []).append(num_images / max(took_s, 1e-9))


def measure(settings: ImagesSettings, tell: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Images a second of each way, medians of all repeats, and their ratios. Raises DataError without images."""
    scene = _Scene(paths=_chosen(settings), settings=settings, clock=clock)
    task = _Timed(Config(image_size=settings.size, epochs=2))
    params = task.initial_params(SEED)
    for number in range(1, settings.repeats + 1):
        _pillow(scene)
        _cache(scene, task)
        task.train(params, _visit(scene, task))
        last = ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in scene.per_s.items())
        tell(f"{number} of {settings.repeats}: {last}")
    return {
        "images": len(scene.paths), "bytes": sum(path.stat().st_size for path in scene.paths), "size": settings.size,
        "threads": num_cores(), "images_per_s": {name: _spread(found) for name, found in scene.per_s.items()},
        "ratios": _ratios({name: statistics.median(found) for name, found in scene.per_s.items()}),
    }


def _chosen(settings: ImagesSettings) -> list[Path]:
    """Evenly over the folder, of those that can be decoded."""
    listing = Listing.of(settings.data)
    if not listing.files:
        told = [problem for problem in listing.problems if problem.is_fatal]
        message = told[0].message if told else f"no image lies in {settings.data}"
        raise DataError(message, fix="name by --data a folder of chest X-rays")
    paths = [file.path for file in listing.files]
    paths = paths[:: -(-len(paths) // settings.images)]
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        decoded = PictureCache(settings.size, Path(folder)).find(paths)
    found = [one.path for one in decoded.files if isinstance(one, Found)]
    if not found:
        raise DataError(f"no file in {settings.data} can be decoded", fix="see: fednode doctor --task chest_xray")
    return found


def _pillow(scene: _Scene) -> None:
    """What a loop in a training script does."""
    one = partial(_by_pillow, size=scene.settings.size)
    scene.time("pillow_one_thread", len(scene.paths), lambda: [one(path) for path in scene.paths])
    with ThreadPoolExecutor(num_cores()) as threads:
        scene.time("pillow_all_threads", len(scene.paths), lambda: list(threads.map(one, scene.paths)))


def _by_pillow(path: Path, size: int) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L").resize((size, size), Image.Resampling.BILINEAR))


def _cache(scene: _Scene, task: _Timed) -> None:
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        cache = PictureCache(scene.settings.size, Path(folder))
        scene.time("cold", len(scene.paths), lambda: cache.find(scene.paths))
        scene.time("found_again", len(scene.paths), lambda: cache.find(scene.paths))
        decoded = cache.find(scene.paths)
        rows = [one.row for one in decoded.files if isinstance(one, Found)]
        task.squares = LabelledSquares(
            squares=decoded.squares, rows=rows, targets=np.zeros(len(rows), np.int64), groups=[str(row) for row in rows]
        )
        scene.time("warm", WARM_PASSES * len(rows), lambda: _read(scene, task))


def _read(scene: _Scene, task: _Timed) -> None:
    """Batches in random order, as in training."""
    part = task.part(Site(client="bench", data=Path(str(len(scene.per_s["cold"])))), "train")
    rng = numpy_rng(SEED)
    for _ in range(WARM_PASSES):
        order = rng.permutation(len(part))
        for start in range(0, len(order), task.config.batch_size):
            part.batch(order[start : start + task.config.batch_size])


class _Timed(ChestXray):
    """The task as it is, on other datasets: what `squares` holds, and `TRAINED` pictures to train on."""

    squares: LabelledSquares

    def dataset(self, site: Site, split: str) -> LabelledSquares:
        if site.data is not None:
            return self.squares
        num = TRAINED if split == "train" else 1
        side = self.config.image_size
        squares = numpy_rng(SEED).integers(0, 256, (num, side, side)).astype(np.uint8)
        return LabelledSquares(
            squares=squares, rows=range(num), targets=np.arange(num) % 2, groups=[str(row) for row in range(num)]
        )


def _visit(scene: _Scene, task: _Timed) -> Visit:
    """Of two epochs, on one thread, as clients train: the first one warms up, the second is timed, end to end."""
    ended_s: list[float] = []

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        ended_s.append(scene.clock.now_s())
        if epoch > 1:
            scene.add("training", TRAINED, ended_s[-1] - ended_s[-2])

    return Visit(site=Site(client="bench"), config=task.config, seed=SEED, client_seed=SEED, round=1, report=report)


def _ratios(median: Mapping[str, float]) -> dict[str, float]:
    pairs = {
        "cold_to_pillow_all_threads": ("cold", "pillow_all_threads"),
        "cold_to_pillow_one_thread": ("cold", "pillow_one_thread"),
        "cold_to_training": ("cold", "training"), "warm_to_training": ("warm", "training"),
        "warm_to_cold": ("warm", "cold"),
    }
    return {name: round(median[above] / median[below], 2) for name, (above, below) in pairs.items()}


def _spread(per_s: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(per_s), "min": min(per_s), "max": max(per_s)}
    return {name: round(value, 1) for name, value in found.items()}
