"""The chest X-ray task: on synthetic pictures everywhere, on real X-rays where they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fednode.core.metrics import Histogram
from fednode.core.pooling import pool
from fednode.errors import BadConfig, DataError
from fednode.tasks.base import Partition, Site, Visit
from fednode.tasks.chest_xray import ChestXray, Config
from fednode.wire.codec import encode

DATA = Path(os.environ.get("FEDNODE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SYNTHETIC = Site(client="hospital-a", offline_sample=True)
HALF = Site(client="hospital-a", offline_sample=True, partition=Partition(index=1, count=8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def task(**values: Any) -> ChestXray:
    return ChestXray(Config(**({"image_size": 32} | values)))


def visit(site: Site, **fields: Any) -> Visit:
    return Visit(site=site, config=None, seed=7, client_seed=1, round=1, **fields)


@pytest.mark.parametrize(("model", "num_params"), [("resnet", 307_506), ("baseline", 23_426)])
@pytest.mark.parametrize("size", [32, 48])
def test_the_models_have_their_sizes_and_train_at_every_image_size(model: str, num_params: int, size: int) -> None:
    bound = task(model=model, image_size=size)
    params = bound.initial_params(1)
    if model == "resnet" or size == 32:
        assert params.manifest.num_params == num_params
    assert bound.train(params, visit(HALF)).params.manifest == params.manifest


def test_the_defaults_are_a_small_resnet_for_thirty_rounds() -> None:
    config = Config()
    assert (config.model, config.image_size, config.epochs, config.batch_size, config.learning_rate) == (
        "resnet", 64, 1, 10, 0.002
    )
    assert ChestXray.default_rounds == 30


def test_a_training_gives_the_same_bits_again_whatever_was_trained_before() -> None:
    bound = task()
    start = bound.initial_params(1)
    first = encode(bound.train(start, visit(HALF)).params)
    other = Site(client="b", offline_sample=True, partition=Partition(index=2, count=8))
    bound.train(start, visit(other))
    assert encode(bound.train(start, visit(HALF)).params) == first
    assert encode(task().train(start, visit(HALF)).params) == first


def test_metrics_come_from_score_histograms_and_the_threshold_from_patients_held_back() -> None:
    bound = task()
    found = bound.evaluate(bound.initial_params(1), visit(SYNTHETIC))
    assert isinstance(found.values["scores"], Histogram)
    assert found.num_examples == {"test": 240, "val": 120}
    pooled = {metric.name: metric.value for metric in pool(ChestXray.measures, {"a": found, "b": found})}
    assert {"auc", "balanced_accuracy", "sensitivity", "specificity", "accuracy", "threshold", "roc"} <= pooled.keys()
    assert {"accuracy_at_0.5", "sensitivity_at_0.5", "specificity_at_0.5", "balanced_accuracy_at_0.5"} <= pooled.keys()
    val = found.values["val_scores"]
    assert isinstance(val, Histogram)
    assert isinstance(pooled["threshold"], float)
    cut = round(pooled["threshold"] * val.counts.shape[1])
    assert val.counts[1, cut:].sum() >= 0.9 * val.counts[1].sum() > val.counts[1, cut + 1 :].sum() - 1e-9


def test_what_is_measured_does_not_depend_on_the_counts_of_the_site_that_trained_before() -> None:
    bound = task()
    start = bound.initial_params(1)
    calm = bound.evaluate(start, visit(SYNTHETIC)).values["loss"]
    bound.train(start, visit(HALF))
    assert bound.evaluate(start, visit(SYNTHETIC)).values["loss"] == calm


def test_a_few_epochs_on_synthetic_pictures_teach_the_model_to_tell_them_apart() -> None:
    bound = task(epochs=3)
    params = bound.train(bound.initial_params(1), visit(SYNTHETIC)).params
    found = bound.evaluate(params, visit(SYNTHETIC))
    pooled = {metric.name: metric.value for metric in pool(ChestXray.measures, {"a": found})}
    assert pooled["auc"] > 0.8


def test_synthetic_pictures_are_called_so_and_counted_by_class_without_being_drawn() -> None:
    bound, site = task(), Site(client="whose-nobody-drew", offline_sample=True)
    summary, report = bound.check(site), bound.report(site)
    assert "synthetic" in str(summary["source"])
    assert [problem.code for problem in report.problems] == ["synthetic"]
    assert sum(summary["train"].values()) == summary["train_examples"] == 300
    assert summary["test"] == report.splits["test"]
    assert sum(report.splits["train"].values()) == 900
    assert "_squares" not in vars(bound.dataset(site, "train"))


def test_without_a_partition_each_client_draws_its_own_synthetic_pictures_and_is_measured_on_the_same() -> None:
    bound = task(image_size=16)
    mine, other = (bound.dataset(Site(client=name, offline_sample=True), "train") for name in ("a", "b"))
    assert (mine[0][0] != other[0][0]).any()
    assert bound.dataset(Site(client="a", offline_sample=True), "test") is bound.dataset(SYNTHETIC, "test")


def test_a_site_without_a_folder_or_with_a_wrong_one_is_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is named"):
        task().check(Site(client="a"))
    with pytest.raises(DataError, match="looked for"):
        task().check(Site(client="a", data=tmp_path))
    with pytest.raises(BadConfig, match="image_size"):
        from fednode.tasks.registry import load_task

        load_task(ChestXray).bind({"image_size": 4})


@pytest.mark.skipif(not (DATA / "chest_xray").is_dir(), reason=f"needs the X-rays in {DATA} (FEDNODE_TEST_DATA)")
def test_partitions_of_the_real_folder_are_cut_by_patient_and_complete() -> None:
    bound = task()
    sites = [Site(client=f"h{k}", data=DATA, partition=Partition(index=k, count=3)) for k in (1, 2, 3)]
    whole = Site(client="all", data=DATA)
    for split in ("train", "val", "test"):
        groups = bound._whole(bound._shared(sites[0]), split).dataset.groups
        parts = [bound.part(site, split).rows for site in sites]
        assert all(part is not None for part in parts)
        rows = [part for part in parts if part is not None]
        assert sorted(np.concatenate(rows).tolist()) == list(range(len(bound.part(whole, split))))
        patients = [{groups[row] for row in part} for part in rows]
        assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    train, val = (set(bound._whole(bound._shared(whole), split).dataset.groups) for split in ("train", "val"))
    assert not train & val
