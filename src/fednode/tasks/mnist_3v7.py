"""Threes against sevens: one linear layer in plain numpy. The example of a task without a framework.

It is the training of the prototype that fednode grew out of: its layer, its loss, its learning rate, epochs and
batch size. It starts from zeros: a start drawn from a normal distribution can take five rounds to unlearn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics, Sum
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.core.seeds import derive_seed, numpy_rng
from fednode.errors import DataError
from fednode.tasks.base import Bytes, Cancelled, Floats, Samples, Site, Task, TrainConfig, Visit
from fednode.tasks.mnist_data import IMAGE_SHAPE, PICTURE, MnistSplit, bundled_samples, load_split

THREE, SEVEN = 3, 7
NUM_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
MIN_IMAGES = 20                 # of a site's part: a cut by labels leaves no site without
NUM_PROGRESS_IMAGES = 2_000     # of the test split, scored after every epoch


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """The prototype's settings."""

    epochs: Annotated[int, Field(ge=1, le=10_000, description="Passes over the local data in one round")] = 20
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="Examples in one step")] = 256
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, description="Step size of local training")] = 1.0
    images_per_client: Annotated[
        int, Field(ge=0, le=1_000_000, description="Images that a client node draws once a run; 0: all that it has")
    ] = 50


class Mnist3v7(Task):
    """Is it a 3 (or a 7)? Logistic layer on 784 pixels, loss mean(|target - sigmoid(x)|)."""

    name = "mnist_3v7"
    version = 1
    Config = Config
    measures = (Metric(name="accuracy", combine="accuracy"), Metric(name="loss", goal="min"))
    supports = ("proximal",)
    picture = PICTURE
    classes = (str(THREE), str(SEVEN))

    def initial_params(self, seed: int) -> Params:
        return Params({"bias": np.zeros(1, np.float32), "weight": np.zeros(NUM_PIXELS, np.float32)})

    def check(self, site: Site) -> JsonObject:
        """Images of each digit in each split, and where they come from. Raises DataError where a split has none."""
        splits = {name: _threes_and_sevens(site, name) for name in ("train", "test")}
        counts = {name: _counts(split) for name, split in splits.items()}
        return {**counts, "source": splits["train"].source}

    def train(self, params: Params, visit: Visit) -> Update:
        config: Config = self.config
        images = self._drawn_once_a_run(visit)
        progress = _some(_threes_and_sevens(visit.site, "test"), NUM_PROGRESS_IMAGES, visit.client_seed)
        progress_pixels = _pixels(progress.images)
        layer = start = _Layer.of(params)
        rng = numpy_rng(visit.seed)
        for epoch in range(1, config.epochs + 1):
            if visit.is_cancelled():
                raise Cancelled
            order = rng.permutation(len(images.labels))
            for first in range(0, len(order), config.batch_size):
                batch = images.take(order[first : first + config.batch_size])
                layer = layer.step(batch, start, config.learning_rate, config.proximal_mu)
            correct, loss = layer.score(progress_pixels, _targets(progress))
            visit.report(epoch, {"accuracy": correct / len(progress.labels), "loss": loss})
        return Update(client=visit.site.client, params=layer.params(), num_examples=len(images.labels))

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        test = _threes_and_sevens(visit.site, "test")
        correct, loss = _Layer.of(params).score(_pixels(test.images), _targets(test))
        count = len(test.labels)
        return Metrics(values={"accuracy": Sum([correct, count]), "loss": loss}, num_examples={"test": count})

    def predict(self, params: Params, pictures: Bytes) -> Floats:
        """sigmoid(x) is how sure it is of a three; the rest is for the seven."""
        scores = _Layer.of(params).scores(_pixels(pictures))
        return np.stack([scores, 1 - scores], axis=1)

    def picture_from_file(self, content: bytes) -> Bytes:
        from fednode.tasks.mnist_pictures import digit_in

        return digit_in(content)

    def samples(self) -> Samples:
        """Four test images of each digit."""
        return bundled_samples((THREE, SEVEN), num_each=4)

    def _drawn_once_a_run(self, visit: Visit) -> MnistSplit:
        images = _threes_and_sevens(visit.site, "train")
        config: Config = self.config
        return _some(images, config.images_per_client or len(images.labels), visit.client_seed)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """x = pixels @ weight + bias. Its steps are made in float64; it travels as float32."""

    weight: Floats                  # (784,)
    bias: Floats                    # (1,)

    @staticmethod
    def of(params: Params) -> _Layer:
        return _Layer(weight=params["weight"].astype(np.float64), bias=params["bias"].astype(np.float64))

    def params(self) -> Params:
        return Params({"weight": self.weight.astype(np.float32), "bias": self.bias.astype(np.float32)})

    def step(self, batch: MnistSplit, start: _Layer, learning_rate: float, proximal_mu: float) -> _Layer:
        """One step of gradient descent on loss + proximal_mu / 2 * |layer - start|^2 (FedProx, arXiv:1812.06127)."""
        pixels, targets = _pixels(batch.images), _targets(batch)
        scores = self.scores(pixels)
        # d|target - s(x)| / dx is s(x) (1 - s(x)) where the target is 0, and minus that where it is 1.
        slopes = np.where(targets == 1, -1.0, 1.0) * scores * (1 - scores) / len(targets)
        pull = proximal_mu * (self.weight - start.weight), proximal_mu * (self.bias - start.bias)
        return _Layer(
            weight=self.weight - learning_rate * (slopes @ pixels + pull[0]),
            bias=self.bias - learning_rate * (slopes.sum() + pull[1]),
        )

    def scores(self, pixels: Floats) -> Floats:
        """sigmoid(x), of (n, 784) pixels: (n,). By tanh, which no x makes overflow."""
        return 0.5 + 0.5 * np.tanh(0.5 * (pixels @ self.weight + self.bias))

    def score(self, pixels: Floats, targets: Floats) -> tuple[int, float]:
        """How many of the (n, 784) images it gets right, and its loss on them."""
        scores = self.scores(pixels)
        return int(np.sum((scores > 0.5) == (targets == 1))), float(np.mean(np.abs(targets - scores)))


def _threes_and_sevens(site: Site, split: str) -> MnistSplit:
    found = load_split(site, split, digits=(THREE, SEVEN), min_examples=MIN_IMAGES)
    if not len(found.labels):
        raise DataError(
            f"there is no 3 and no 7 in the {split} split of {found.source}", fix="give this client node images of both"
        )
    return found


def _counts(split: MnistSplit) -> dict[str, int]:
    return {str(digit): int(np.sum(split.labels == digit)) for digit in (THREE, SEVEN)}


def _some(split: MnistSplit, count: int, seed: int) -> MnistSplit:
    """`count` images, or all where there are fewer, drawn by `seed`."""
    order = numpy_rng(derive_seed(seed, "draw")).permutation(len(split.labels))
    return split.take(np.sort(order[:count]))


def _pixels(images: Bytes) -> Floats:
    """(n, 784), 0 to 1."""
    return images.reshape(-1, NUM_PIXELS).astype(np.float64) / 255


def _targets(split: MnistSplit) -> Floats:
    """(n,): 1 for a three, 0 for a seven."""
    return np.equal(split.labels, THREE).astype(np.float64)
