"""Drawn pictures that look a little like chest X-rays, for a demo on a machine without any: never anybody's lungs.

Two dark lungs in a bright chest, ribs, noise; the ones called PNEUMONIA have soft white patches in a lung. What a
model learns of them says nothing of real X-rays, and every place that shows them says that they are synthetic.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fednode.core.seeds import derive_seed, numpy_rng
from fednode.tasks.base import Bytes
from fednode.tasks.picture_cache import LabelledSquares

SYNTHETIC = "synthetic pictures, drawn by fednode: not X-rays"
NUM_PICTURES = {"train": 900, "val": 120, "test": 240}
PER_PATIENT = 2
PNEUMONIA_SHARE = 0.6
NUM_RIBS = 7


@lru_cache(6)
def synthetic(split: str, size: int) -> LabelledSquares:
    """All of a split, the same every time."""
    num = NUM_PICTURES[split]
    rng = numpy_rng(derive_seed("chest_xray synthetic", split))
    targets = np.repeat(rng.random(num // PER_PATIENT) < PNEUMONIA_SHARE, PER_PATIENT).astype(np.int64)
    squares = np.stack([draw(size, bool(label), rng) for label in targets])
    patients = [f"{split}-{number // PER_PATIENT}" for number in range(num)]
    return LabelledSquares(squares=squares, rows=range(num), targets=targets, groups=patients)


def draw(size: int, is_ill: bool, rng: np.random.Generator) -> Bytes:
    """One (size, size) picture."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    x, y = x - rng.normal(0, 0.04), y - rng.normal(0, 0.04)
    left, right = (_ellipse(x - side * rng.normal(0.42, 0.02), y, rng.normal(0.29, 0.02), 0.62) for side in (-1, 1))
    lungs = left + right
    grey = 0.72 * _ellipse(x, y, 0.95, 1.3) - 0.45 * lungs
    grey += 0.05 * np.cos(y * np.pi * NUM_RIBS + 2 * np.abs(x) + rng.uniform(0, 6)) * _ellipse(x, y, 0.85, 0.9)
    grey += 0.12 * np.exp(-(x / 0.1) ** 2)
    for _ in range(rng.integers(1, 4) if is_ill else 0):
        grey += _patch(x, y, rng) * lungs
    grey = np.clip(grey + rng.normal(0, 0.05, grey.shape), 0, 1) ** rng.uniform(0.8, 1.25)
    return np.rint(grey * 255).astype(np.uint8)


def _ellipse(x: NDArray[np.float64], y: NDArray[np.float64], wide: float, high: float) -> NDArray[np.float64]:
    """About 1 inside, 0 outside, with a soft edge."""
    return 1 / (1 + np.exp(12 * ((x / wide) ** 2 + (y / high) ** 2 - 1)))


def _patch(x: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    side = rng.choice((-1, 1))
    middle_x, middle_y, wide = side * rng.normal(0.42, 0.1), rng.uniform(-0.35, 0.5), rng.uniform(0.08, 0.2)
    distance = np.hypot(x - middle_x, y - middle_y) / wide
    return np.asarray(rng.uniform(0.3, 0.55) * np.exp(-(distance**2) / 2), np.float64)
