"""MNIST on the bundled sample, and on the full set where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fednode.core.metrics import Sum
from fednode.core.params import Params
from fednode.core.pooling import pool
from fednode.errors import BadConfig
from fednode.tasks.base import Partition, Site, Visit
from fednode.tasks.mnist import Mnist
from fednode.tasks.registry import load_task, offer_of
from fednode.wire.codec import encode

DATA = Path(os.environ.get("FEDNODE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SAMPLE = Site(client="hospital-a", offline_sample=True)


def bound(**values: Any) -> Mnist:
    task = load_task("mnist").bind(values)
    assert isinstance(task, Mnist)
    return task


def third(index: int, split: str = "iid") -> Site:
    return Site(client=f"c{index}", offline_sample=True, partition=Partition(index=index, count=3, split=split))


def visit(site: Site, **fields: Any) -> Visit:
    return Visit(site=site, config=None, seed=7, client_seed=1, round=1, **fields)


@pytest.mark.parametrize(
    ("model", "num_params"),
    [("linear", 7_850), ("mlp", 199_210), ("small_cnn", 52_138), ("cnn", 1_663_370)],
)
def test_the_models_have_the_sizes_that_their_papers_give(model: str, num_params: int) -> None:
    # linear: 784 * 10 + 10; mlp and cnn as in McMahan et al. 2017; small_cnn: 80 + 1,168 + 50,240 + 650
    params = bound(model=model).initial_params(1)
    assert params.manifest.num_params == num_params
    assert {tensor.dtype for tensor in params.manifest.tensors} == {"float32"}


def test_the_defaults_are_the_small_cnn_and_what_people_know() -> None:
    config = bound().config
    assert (config.model, config.learning_rate, config.batch_size, config.epochs) == ("small_cnn", 0.1, 32, 1)
    with pytest.raises(BadConfig, match="model"):
        bound(model="resnet")


def test_the_offer_tells_the_models_and_counts_the_digits_of_the_sites_part() -> None:
    offer = offer_of(load_task("mnist"), third(1))
    model = offer.schema["properties"]["model"]
    assert (model["enum"], model["default"]) == (["linear", "mlp", "small_cnn", "cnn"], "small_cnn")
    assert all("description" in field for field in offer.schema["properties"].values())
    assert (offer.task, offer.fingerprint, offer.supports) == ("mnist", "mnist@1", ("proximal",))
    summary = offer.summary
    assert sum(summary["train"].values()) == summary["train_examples"] in (3_333, 3_334)
    assert sum(summary["test"].values()) == summary["test_examples"] in (666, 667)
    assert summary["source"] == "the bundled sample"


def test_without_a_partition_each_client_of_the_sample_draws_its_own_2000_images() -> None:
    task, other = bound(), Site(client="hospital-b", offline_sample=True)
    mine, theirs = task.part(SAMPLE, "train"), task.part(other, "train")
    assert (len(mine), len(theirs)) == (2_000, 2_000)
    rows = np.arange(2_000)
    labels, labels_of_the_other = mine.batch(rows)[1], theirs.batch(rows)[1]
    assert labels.tolist() != labels_of_the_other.tolist()
    assert labels.tolist() == bound().part(SAMPLE, "train").batch(rows)[1].tolist()


def test_pooled_accuracy_is_that_of_the_whole_test_set() -> None:
    task = bound(model="linear")
    params = task.initial_params(1)
    parts = {site.client: task.evaluate(params, visit(site)) for site in map(third, (1, 2, 3))}
    whole = Site(client="all", offline_sample=True, partition=Partition(index=1, count=1))
    alone = task.evaluate(params, visit(whole))
    accuracy = alone.values["accuracy"]
    assert isinstance(accuracy, Sum) and accuracy.values[1] == 2_000
    pooled = {metric.name: metric for metric in pool(task.measures, parts)}
    assert pooled["accuracy"].value == accuracy.values[0] / 2_000
    assert pooled["loss"].value == pytest.approx(alone.values["loss"], rel=1e-5)


def test_one_epoch_on_2000_images_teaches_the_digits_and_gives_the_same_bits_again() -> None:
    told: list[float] = []
    task = bound()
    start = task.initial_params(1)
    update = task.train(start, visit(SAMPLE, report=lambda epoch, metrics: told.append(metrics["accuracy"])))
    correct = task.evaluate(update.params, visit(SAMPLE)).values["accuracy"]
    assert isinstance(correct, Sum)
    assert correct.values[0] / correct.values[1] == pytest.approx(told[-1]) and told[-1] > 0.7
    assert update.num_examples == 2_000
    assert encode(bound().train(start, visit(SAMPLE)).params) == encode(update.params)


def test_the_cnn_travels_in_plain_memory_order() -> None:
    params = bound(model="cnn").initial_params(1)
    assert all(array.flags.c_contiguous for array in params.values())
    assert params.manifest.to_json()[1] == ["1.weight", "float32", [32, 1, 5, 5]]


def test_all_zeros_give_no_digit_an_advantage() -> None:
    task = bound(model="linear")
    zeros = Params({name: np.zeros_like(array) for name, array in task.initial_params(1).items()})
    assert task.evaluate(zeros, visit(SAMPLE)).values["loss"] == pytest.approx(np.log(10), rel=1e-5)


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason=f"the MNIST files are not in {DATA}")
def test_the_full_set_is_counted_by_digit() -> None:
    summary = bound().check(Site(client="a", data=DATA))
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert summary["train"] == {str(digit): count for digit, count in enumerate(counts)}
    assert (summary["train_examples"], summary["test_examples"]) == (60_000, 10_000)
