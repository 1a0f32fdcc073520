"""Drawn pictures that look a little like chest X-rays, for a demo on a machine without any: never anybody's lungs.

Two dark lungs in a bright chest, ribs, noise; the ones called PNEUMONIA have soft white patches in a lung. What a
model learns of them says nothing of real X-rays, and every place that shows them says that they are synthetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fednode.core.seeds import derive_seed, numpy_rng
from fednode.tasks.base import Bytes, Samples

SYNTHETIC = "synthetic pictures, drawn by fednode: not X-rays"
NUM_PICTURES = {"train": 900, "val": 120, "test": 240}
NUM_OWN = 300                   # of train, where a client draws its own
PER_PATIENT = 2
PNEUMONIA_SHARE = 0.6
NUM_RIBS = 7
SAMPLES_EACH = 3


@dataclass(frozen=True)
class Synthetic(Sequence[tuple[Bytes, int]]):
    """All of a split, the same every time. Drawn when the first is asked for: to be counted they need not be there."""

    split: str
    size: int
    client: str                     # whose own they are; "": everybody's, to be cut into parts

    def __len__(self) -> int:
        return NUM_OWN if self.client else NUM_PICTURES[self.split]

    def __getitem__(self, row: Any) -> Any:
        return self._squares[row].copy(), int(self.targets[row])

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """(pictures,): the label of each."""
        is_ill = self._rng("labels").random(len(self) // PER_PATIENT) < PNEUMONIA_SHARE
        return np.repeat(is_ill, PER_PATIENT).astype(np.int64)

    @property
    def groups(self) -> list[str]:
        """(pictures,): whose each is."""
        return [f"{self.split}-{number // PER_PATIENT}" for number in range(len(self))]

    @cached_property
    def _squares(self) -> Bytes:
        rng = self._rng("pictures")
        return np.stack([draw(self.size, bool(label), rng) for label in self.targets])

    def _rng(self, what: str) -> np.random.Generator:
        return numpy_rng(derive_seed("chest_xray synthetic", self.split, self.client, what))


def synthetic(split: str, size: int, client: str = "") -> Synthetic:
    """A client's own are of train; all are measured on the same ones."""
    return _kept(split, size, client if split == "train" else "")


@lru_cache(6)
def _kept(split: str, size: int, client: str) -> Synthetic:
    """So that a process draws each once."""
    return Synthetic(split, size, client)


def synthetic_samples(size: int, classes: tuple[str, str]) -> Samples:
    """A few to try a model with, that no model was trained on."""
    rng = numpy_rng(derive_seed("chest_xray synthetic", "samples"))
    labels = np.repeat([0, 1], SAMPLES_EACH)
    return Samples(
        pictures=np.stack([draw(size, bool(label), rng) for label in labels]),
        labels=tuple(classes[label] for label in labels), source=SYNTHETIC,
    )


def draw(size: int, is_ill: bool, rng: np.random.Generator) -> Bytes:
    """One (size, size) picture."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    x, y = x - rng.normal(0, 0.04), y - rng.normal(0, 0.04)
    left, right = (_ellipse(x - side * rng.normal(0.42, 0.02), y, rng.normal(0.29, 0.02), 0.62) for side in (-1, 1))
    lungs = left + right
    grey = 0.72 * _ellipse(x, y, 0.95, 1.3) - 0.45 * lungs
    grey += 0.05 * np.cos(y * np.pi * NUM_RIBS + 2 * np.abs(x) + rng.uniform(0, 6)) * _ellipse(x, y, 0.85, 0.9)
    grey += 0.12 * np.exp(-(x / 0.1) ** 2)
    for _ in range(rng.integers(2, 5) if is_ill else 0):
        grey += _patch(x, y, rng) * lungs
    grey = np.clip(grey + rng.normal(0, 0.05, grey.shape), 0, 1) ** rng.uniform(0.8, 1.25)
    return np.rint(grey * 255).astype(np.uint8)


def _ellipse(x: NDArray[np.float64], y: NDArray[np.float64], wide: float, high: float) -> NDArray[np.float64]:
    """About 1 inside, 0 outside, with a soft edge."""
    return 1 / (1 + np.exp(12 * ((x / wide) ** 2 + (y / high) ** 2 - 1)))


def _patch(x: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    side = rng.choice((-1, 1))
    middle_x, middle_y, wide = side * rng.normal(0.42, 0.1), rng.uniform(-0.35, 0.5), rng.uniform(0.12, 0.26)
    distance = np.hypot(x - middle_x, y - middle_y) / wide
    return np.asarray(rng.uniform(0.4, 0.65) * np.exp(-(distance**2) / 2), np.float64)
