"""Handwritten digits, 8 x 8, that come with scikit-learn; a linear classifier trained by `partial_fit`."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from fednode import Cancelled, Metric, Metrics, Params, Site, Sum, Task, TrainConfig, Update, Visit, partition_indices

CLASSES = np.arange(10)         # all that there are, whatever a site has seen
NUM_PIXELS = 64


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """`batch_size` has no effect: scikit-learn's SGD goes example by example."""

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, description="Step size of local training")] = 0.01
    alpha: Annotated[float, Field(ge=0, le=1, description="How strongly large params are pulled to zero")] = 0.0001


class Digits(Task):
    """Which of ten digits is it? Logistic regression, one against all others."""

    name, Config = "sklearn_digits", Config
    measures = (
        Metric(name="accuracy", combine="accuracy", of="confusion"),
        Metric(name="balanced accuracy", combine="balanced_accuracy", of="confusion"),
    )

    def initial_params(self, seed: int) -> Params:
        return Params({"coef": np.zeros((10, NUM_PIXELS)), "intercept": np.zeros(10)})

    def train(self, params: Params, visit: Visit) -> Update:
        pixels, digits = examples_of(visit.site, "train")
        model = self.model_with(params, visit.seed)
        for epoch in range(1, self.config.epochs + 1):
            if visit.is_cancelled():
                raise Cancelled
            model.partial_fit(pixels, digits)
            visit.report(epoch, {"accuracy": model.score(pixels, digits)})
        trained = Params({"coef": model.coef_, "intercept": model.intercept_})
        return Update(client=visit.site.client, params=trained, num_examples=len(digits))

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        pixels, digits = examples_of(visit.site, "test")
        found = self.model_with(params, visit.seed).predict(pixels)
        confusion = np.zeros((10, 10))
        np.add.at(confusion, (digits, found), 1)
        return Metrics(values={"confusion": Sum(confusion)}, num_examples={"test": len(digits)})

    def check(self, site: Site) -> dict[str, Any]:
        """Examples of each digit."""
        counts = np.bincount(examples_of(site, "train")[1], minlength=10)
        return {"train": {str(digit): int(count) for digit, count in enumerate(counts)}}

    def model_with(self, params: Params, seed: int) -> Any:
        """A classifier as it would be after being fitted to these params."""
        model = SGDClassifier(
            loss="log_loss", alpha=self.config.alpha, learning_rate="constant", eta0=self.config.learning_rate,
            random_state=seed % 2**32,
        )
        model.classes_ = CLASSES
        model.coef_, model.intercept_ = params["coef"].copy(), params["intercept"].copy()
        return model


def examples_of(site: Site, split: str) -> tuple[Any, Any]:
    """Pixels (n, 64) from 0 to 1 and digits (n,): this site's part. Every fifth example is for testing."""
    pixels, digits = all_examples()
    is_test = np.arange(len(digits)) % 5 == 0
    rows = np.flatnonzero(is_test if split == "test" else ~is_test)
    mine = rows[partition_indices(digits[rows], len(rows), site.partition, is_test=split == "test")]
    return pixels[mine], digits[mine]


@cache
def all_examples() -> tuple[Any, Any]:
    """Read once: a client node's process stays from round to round."""
    found = load_digits()
    return found.data / 16, found.target
