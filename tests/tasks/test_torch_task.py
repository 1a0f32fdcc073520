"""TorchTask: the same bits every time, batches, params, partitions, metrics. Datasets are small and made here."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset, random_split

from fednode.core.metrics import Histogram, Metric, Sum
from fednode.core.params import Params
from fednode.errors import DataError, ParamsMismatch, TaskFailed
from fednode.tasks.base import Cancelled, Partition, Site, TrainConfig, Visit
from fednode.tasks.torch_data import batches
from fednode.tasks.torch_task import TorchTask
from fednode.wire.codec import encode, read_params

SITE = Site(client="a")


def points(num_examples: int = 90, seed: int = 0) -> TensorDataset:
    """Points in the plane in three classes of equal size."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_examples) % 3
    places = np.array([[0, 3], [3, -2], [-3, -2]])[labels] + rng.normal(size=(num_examples, 2))
    return TensorDataset(torch.tensor(places, dtype=torch.float32), torch.tensor(labels))


class Points(TorchTask):
    """Three clouds of points; dropout and BatchNorm, so that chance and integer state take part."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def dataset(self, site: Site, split: str) -> Any:
        return points(90 if split == "train" else 30, seed=split == "train")

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        return {"accuracy": (outputs.argmax(1) == targets).float().mean()}


class OneStep(TorchTask):
    """y = w * x without a bias, from w = 0, by mean squared error: small enough to work out by hand."""

    measures = (Metric(name="loss", goal="min"),)

    def model(self) -> nn.Module:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(layer.weight)
        return layer

    def dataset(self, site: Site, split: str) -> Any:
        return torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - targets) ** 2).mean()

    def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        return {}


def visit(site: Site = SITE, seed: int = 5, **fields: Any) -> Visit:
    return Visit(site=site, config=None, seed=seed, client_seed=3, round=1, **fields)


def config(**fields: Any) -> TrainConfig:
    return TrainConfig(**({"epochs": 2, "batch_size": 8, "learning_rate": 0.1} | fields))


def bits(params: Params) -> bytes:
    return encode(params)


# --- the same bits -------------------------------------------------------------------------------------


def test_training_twice_gives_the_same_bits_and_another_seed_gives_others() -> None:
    task = Points(config())
    start = task.initial_params(1)
    first, again = task.train(start, visit()), task.train(start, visit())
    assert bits(first.params) == bits(again.params)
    assert bits(task.train(start, visit(seed=6)).params) != bits(first.params)


class Noisy(Points):
    """Draws from all three global generators, as augmentation does."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().loss(outputs, targets) * (random.random() + np.random.rand() + torch.rand(1).item())


def test_what_was_drawn_evaluated_or_trained_before_changes_nothing() -> None:
    warm, fresh = Noisy(config()), Noisy(config())
    start = warm.initial_params(1)
    warm.train(start, visit(seed=99))
    warm.evaluate(start, visit(seed=99))
    torch.rand(7), random.random(), np.random.rand(3)
    assert warm.evaluate(start, visit()).to_json() == fresh.evaluate(start, visit()).to_json()
    assert bits(warm.train(start, visit()).params) == bits(fresh.train(start, visit()).params)


def test_a_new_process_gives_the_bits_of_a_warm_one(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_torch_task as t;"
        "task = t.Points(t.config()); update = task.train(task.initial_params(1), t.visit());"
        "Path(sys.argv[2]).write_bytes(t.bits(update.params))"
    )
    there = tmp_path / "there.safetensors"
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(there)], check=True, timeout=120)
    task = Points(config())
    task.train(task.initial_params(2), visit(seed=77))
    assert bits(task.train(task.initial_params(1), visit()).params) == there.read_bytes()


def test_a_visit_leaves_generators_threads_and_torch_as_they_were() -> None:
    task = Noisy(config())
    start = task.initial_params(1)
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    had_threads = torch.get_num_threads()
    task.initial_params(2)
    task.train(start, visit(replace(SITE, threads=1 if had_threads > 1 else 2)))
    task.evaluate(start, visit())
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    assert torch.get_num_threads() == had_threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_training_runs_deterministically_on_the_threads_of_the_site() -> None:
    seen: list[tuple[int, bool]] = []

    class Watching(Points):
        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
            return super().loss(outputs, targets)

    task = Watching(config())
    start = task.initial_params(1)
    task.train(start, visit(replace(SITE, threads=2)))
    assert set(seen) == {(2, True)}
    seen.clear()
    task.evaluate(start, visit(replace(SITE, threads=1)))
    assert set(seen) == {(1, True)}


def test_a_dataset_that_draws_gives_the_same_split_to_every_visit() -> None:
    class Drawn(Points):
        def dataset(self, site: Site, split: str) -> Any:
            train, held_back = random_split(points(), [60, 30])
            return train if split == "train" else held_back

    task, other = Drawn(config()), Drawn(config())
    torch.manual_seed(1)
    train = task.part(SITE, "train").batch(np.arange(60))[0]
    torch.manual_seed(2)
    held_back = other.part(SITE, "test").batch(np.arange(30))[0]
    everything = torch.cat([train, held_back]).sort(dim=0).values
    assert torch.equal(everything, points().tensors[0].sort(dim=0).values)


def test_initial_params_depend_on_their_seed_alone() -> None:
    torch.manual_seed(1)
    first = bits(Points().initial_params(4))
    torch.manual_seed(2)
    assert bits(Points().initial_params(4)) == first
    assert bits(Points().initial_params(5)) != first


# --- steps, worked out by hand -------------------------------------------------------------------------


def start_at(weight: float) -> Params:
    return Params({"weight": np.array([[weight]], np.float32)})


def test_one_step_of_sgd() -> None:
    task = OneStep(config(epochs=1, batch_size=2, learning_rate=0.1))
    update = task.train(start_at(0.0), visit())
    # gradient of mean((wx - y)^2) at w = 0: mean(-2xy) = (-4 - 16) / 2 = -10; w = 0 + 0.1 * 10
    assert update.params["weight"].tolist() == [[1.0]]
    assert update.num_examples == 2


def test_the_proximal_term_pulls_back_to_the_params_received() -> None:
    plain = OneStep(config(epochs=2, batch_size=2, learning_rate=0.1)).train(start_at(0.0), visit())
    pulled = OneStep(config(epochs=2, batch_size=2, learning_rate=0.1, proximal_mu=2.0)).train(start_at(0.0), visit())
    # second step at w = 1: mean(2x(x - 2x)) = mean(-2x^2) = -5, so w = 1.5; the pull adds 2 * (1 - 0), so 1.3
    assert plain.params["weight"].tolist() == [[1.5]]
    assert pulled.params["weight"].item() == pytest.approx(1.3, abs=1e-6)


def test_epochs_are_reported_with_the_test_score_and_the_mean_loss_of_training() -> None:
    told: list[tuple[int, dict[str, float]]] = []
    task = Points(config(epochs=3))
    task.train(task.initial_params(1), visit(report=lambda epoch, metrics: told.append((epoch, dict(metrics)))))
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert all(set(metrics) == {"accuracy", "loss"} for _, metrics in told)
    assert told[-1][1]["accuracy"] > 0.9 and told[-1][1]["loss"] < told[0][1]["loss"]

    told.clear()
    one = OneStep(config(epochs=1, batch_size=2))
    one.train(start_at(0.0), visit(report=lambda epoch, metrics: told.append((epoch, dict(metrics)))))
    assert told == [(1, {"loss": 10.0})]          # (2^2 + 4^2) / 2, before the step


def test_a_local_score_takes_at_most_2000_test_examples_and_the_same_ones_in_every_round() -> None:
    scored: list[torch.Tensor] = []

    class Large(Points):
        evaluation_batch_size = 2_000

        def dataset(self, site: Site, split: str) -> Any:
            return points(30 if split == "train" else 2_500)

        def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
            scored.append(targets)
            return super().metrics(outputs, targets)

    task = Large(config(epochs=1))
    task.train(task.initial_params(1), visit(seed=1))
    task.train(task.initial_params(1), visit(seed=2))
    assert [len(targets) for targets in scored] == [2_000, 2_000]
    assert torch.equal(scored[0], scored[1])
    scored.clear()
    task.evaluate(task.initial_params(1), visit())
    assert sum(len(targets) for targets in scored) == 2_500


@pytest.mark.parametrize("batches_before", [0, 3])
def test_a_cancel_is_seen_at_the_next_batch(batches_before: int) -> None:
    asked: list[int] = []

    def is_cancelled() -> bool:
        asked.append(1)
        return len(asked) > batches_before

    task = Points(config())
    start = task.initial_params(1)
    with pytest.raises(Cancelled):
        task.train(start, visit(is_cancelled=is_cancelled))
    assert len(asked) == batches_before + 1
    asked.clear()
    with pytest.raises(Cancelled):
        Points(config()).evaluate(start, visit(is_cancelled=lambda: True))


def test_an_own_optimiser_is_used_and_made_anew_for_each_visit() -> None:
    class WithMomentum(OneStep):
        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=self.config.learning_rate, momentum=0.9)

    task = WithMomentum(config(epochs=2, batch_size=2))
    first = task.train(start_at(0.0), visit()).params["weight"].item()
    assert first == pytest.approx(2.4)              # 1 + 0.1 * (0.9 * 10 + 5)
    assert task.train(start_at(0.0), visit()).params["weight"].item() == first


def test_the_default_optimiser_is_torchs_sgd_to_the_bit() -> None:
    class WithTorchs(Points):
        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=self.config.learning_rate)

    task = Points(config())
    start = task.initial_params(1)
    assert bits(task.train(start, visit()).params) == bits(WithTorchs(config()).train(start, visit()).params)


# --- batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_examples", "size", "lengths"),
    [(4, 2, [2, 2]), (5, 2, [2, 3]), (6, 4, [4, 2]), (1, 8, [1]), (9, 4, [4, 5]), (3, 1, [1, 1, 1]), (2, 8, [2])],
)
def test_batches_hold_every_example_once_and_no_single_one_is_left_over(
    num_examples: int, size: int, lengths: list[int]
) -> None:
    found = list(batches(np.arange(num_examples), size))
    assert [len(batch) for batch in found] == lengths
    assert np.concatenate(found).tolist() == list(range(num_examples))


def test_batch_norm_survives_a_part_with_one_example_over() -> None:
    class Seventeen(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return points(17)

    task = Seventeen(config(batch_size=8))
    assert task.train(task.initial_params(1), visit()).num_examples == 17


class Slowly(Dataset[Any]):
    """Item by item, and no labels of its own."""

    def __len__(self) -> int:
        return 90

    def __getitem__(self, index: int) -> Any:
        return points(seed=1).tensors[0][index], int(points(seed=1).tensors[1][index])


def test_a_dataset_read_item_by_item_trains_to_the_bits_of_tensors() -> None:
    class ItemWise(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return Slowly() if split == "train" else super().dataset(site, split)

    task = Points(config(epochs=1))
    start = task.initial_params(1)
    assert bits(ItemWise(config(epochs=1)).train(start, visit()).params) == bits(task.train(start, visit()).params)


def test_a_tensor_dataset_with_items_of_its_own_is_not_bypassed() -> None:
    class Shifted(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            inputs, target = super().__getitem__(index)
            return inputs + 100, target

    class Augmented(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return Shifted(*points().tensors)

    assert Augmented().part(SITE, "train").batch(np.arange(3))[0].min() > 50


def test_more_than_one_input_reaches_the_model() -> None:
    class Two(Points):
        def model(self) -> nn.Module:
            return nn.Bilinear(2, 2, 3)

        def dataset(self, site: Site, split: str) -> Any:
            inputs, targets = points().tensors
            return inputs, inputs * 2, targets

    task = Two(config(epochs=1))
    assert task.train(task.initial_params(1), visit()).num_examples == 90


@pytest.mark.parametrize("wrong", [7, torch.zeros(3), (torch.zeros(3), torch.zeros(4)), iter([1])])
def test_what_is_no_dataset_is_refused(wrong: object) -> None:
    class Wrong(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return wrong

    with pytest.raises(TaskFailed, match=r"dataset\(\)"):
        Wrong().part(SITE, "train").batch(np.arange(1))


# --- params --------------------------------------------------------------------------------------------


def test_params_are_the_state_in_name_order_with_batch_norms_count_as_an_integer() -> None:
    params = Points().initial_params(1)
    assert list(params) == sorted(params)
    assert params["1.num_batches_tracked"].dtype == np.int64 and params["1.num_batches_tracked"].shape == ()
    trained = Points(config(epochs=2, batch_size=30)).train(params, visit()).params
    assert trained["1.num_batches_tracked"].item() == 6          # 90 / 30 batches, twice


@pytest.mark.filterwarnings("error")
def test_params_from_a_memory_mapped_file_are_copied_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    task = Points(config())
    params = task.initial_params(1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bits(params))
    mapped = read_params(path)
    assert bits(task.train(mapped, visit()).params) == bits(task.train(params, visit()).params)
    assert path.read_bytes() == bits(params) == bits(mapped)


def test_buffers_that_do_not_persist_stay_at_home_and_are_the_same_at_every_visit() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("projection", torch.randn(2, 4), persistent=False)
            self.last = nn.Linear(4, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.last(inputs @ self.projection)

    class WithProjection(Points):
        def model(self) -> nn.Module:
            return Projected()

    task = WithProjection(config())
    start = task.initial_params(1)
    assert list(start) == ["last.bias", "last.weight"]
    first = task.train(start, visit())
    assert bits(WithProjection(config()).train(start, visit()).params) == bits(first.params)


def test_params_of_another_model_are_refused_by_name() -> None:
    class Wider(Points):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(2, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.2), nn.Linear(9, 3))

    with pytest.raises(ParamsMismatch, match=r"'0\.bias' has shape \(9,\)"):
        Points().evaluate(Wider().initial_params(1), visit())


def test_a_bfloat16_model_is_refused_with_a_fix() -> None:
    class Halved(Points):
        def model(self) -> nn.Module:
            return super().model().to(torch.bfloat16)

    with pytest.raises(TaskFailed, match=r"'0\.(bias|weight)' is torch\.bfloat16") as refused:
        Halved().initial_params(1)
    assert "float32" in refused.value.fix


# --- partitions ----------------------------------------------------------------------------------------


def part(index: int, count: int = 3, split: str = "iid") -> Site:
    return Site(client=f"client-{index}", partition=Partition(index=index, count=count, split=split))


@pytest.mark.parametrize("split", ["iid", "dirichlet:0.5", "shards:2"])
@pytest.mark.parametrize("of", ["train", "test"])
def test_the_parts_of_a_split_are_disjoint_and_complete(split: str, of: str) -> None:
    task = Points()
    found = [task.part(part(index, split=split), of) for index in (1, 2, 3)]
    rows = np.concatenate([one.rows for one in found if one.rows is not None])
    assert sorted(rows.tolist()) == list(range(90 if of == "train" else 30))
    assert min(len(one) for one in found) >= 1


def test_the_most_skewed_cut_leaves_every_client_a_part_to_train_on() -> None:
    task = Points()
    sizes = [len(task.part(part(index, split="dirichlet:0.01"), "train")) for index in (1, 2, 3)]
    assert sum(sizes) == 90
    assert min(sizes) >= 15                 # half of a fair share of 30, which is less than a batch of 32


def test_many_clients_of_one_folder_load_it_once() -> None:
    loads: list[tuple[Site, str]] = []

    class Counting(Points):
        def dataset(self, site: Site, split: str) -> Any:
            loads.append((site, split))
            return points(300)

    task = Counting()
    sizes = [len(task.part(part(index, count=100), "train")) for index in range(1, 101)]
    assert sizes == [3] * 100
    assert [(site.client, split) for site, split in loads] == [("", "train")]


def test_a_split_that_depends_on_the_client_is_loaded_for_each() -> None:
    class Own(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return points(int(site.client))

        def is_per_client(self, site: Site) -> bool:
            return True

    task = Own()
    assert [len(task.part(Site(client=name), "train")) for name in ("3", "6")] == [3, 6]


def test_groups_stay_together() -> None:
    class Patients(Points):
        def groups(self, dataset: Any) -> Sequence[int]:
            return [row // 10 for row in range(len(dataset))]

    task = Patients()
    owners = [{int(row) // 10 for row in task.part(part(index), "train").rows} for index in (1, 2, 3)]
    assert sum(len(found) for found in owners) == len(set.union(*owners)) == 9


def test_labels_come_from_targets_or_item_by_item() -> None:
    class WithTargets(Slowly):
        targets = [0, 1, 2] * 30

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("no item needs to be read")

    task = Points()
    assert task.labels(WithTargets()).tolist() == task.labels(Slowly()).tolist() == [0, 1, 2] * 30
    assert task.labels(random_split(points(), [30, 60])[0]).shape == (30,)


# --- the site's data -----------------------------------------------------------------------------------


def test_the_check_counts_examples_and_classes_of_the_sites_own_part() -> None:
    assert Points().check(SITE) == {
        "train_examples": 90, "test_examples": 30,
        "train": {"0": 30, "1": 30, "2": 30}, "test": {"0": 10, "1": 10, "2": 10},
    }
    cut = Points().check(part(1))
    assert (cut["train_examples"], cut["test_examples"]) == (30, 10)


def test_the_check_does_not_count_what_are_no_classes() -> None:
    assert OneStep().check(SITE) == {"train_examples": 2, "test_examples": 2}


def test_data_that_cannot_be_read_are_a_data_error_that_names_the_folder(tmp_path: Path) -> None:
    class Files(Points):
        def dataset(self, site: Site, split: str) -> Any:
            assert site.data is not None
            return torch.load(site.data / "train.pt")

    with pytest.raises(DataError, match=str(tmp_path)):
        Files().check(replace(SITE, data=tmp_path))

    class Broken(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return [("no", "tensor", object())]

    with pytest.raises(DataError, match="first example of the train split"):
        Broken().check(SITE)

    class Empty(Points):
        def dataset(self, site: Site, split: str) -> Any:
            return points(0)

    with pytest.raises(DataError, match=r"train split of .* is empty"):
        Empty().check(SITE)


# --- metrics -------------------------------------------------------------------------------------------


def test_numbers_are_averaged_by_examples_and_sums_and_histograms_add_up() -> None:
    class Counted(OneStep):
        measures = (
            Metric(name="loss", goal="min"), Metric(name="first"), Metric(name="seen", combine="sum"),
            Metric(name="auc", combine="auc", of="scores"),
        )
        evaluation_batch_size = 2

        def dataset(self, site: Site, split: str) -> Any:
            return torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]), torch.zeros(5, 1)

        def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
            scores = Histogram([[len(outputs), 0], [0, len(outputs)]])
            return {"first": outputs[0], "seen": Sum([len(outputs)]), "scores": scores}

    found = Counted().evaluate(start_at(1.0), visit())
    # batches [1 2] and [3 4 5]: first = (2 * 1 + 3 * 3) / 5; loss = (1 + 4 + 9 + 16 + 25) / 5
    assert found.values["first"] == pytest.approx(2.2)
    assert found.values["loss"] == pytest.approx(11.0)
    assert found.values["seen"].values.tolist() == [5]
    assert found.values["scores"].counts.tolist() == [[5, 0], [0, 5]]
    assert found.num_examples == {"test": 5}


def test_a_task_with_a_val_split_measures_it_under_names_of_its_own() -> None:
    class WithVal(Points):
        splits = ("test", "val")
        measures = (Metric(name="accuracy"), Metric(name="val_loss", goal="min", split="val"))

        def dataset(self, site: Site, split: str) -> Any:
            return points({"train": 90, "test": 30, "val": 12}[split])

    task = WithVal(config(epochs=1))
    found = task.evaluate(task.initial_params(1), visit())
    assert sorted(found.values) == ["accuracy", "val_loss"]
    assert found.num_examples == {"test": 30, "val": 12}
    told: list[float] = []
    task.train(task.initial_params(1), visit(report=lambda epoch, metrics: told.extend(metrics.values())))
    assert len(told) == 2


def test_evaluation_is_in_eval_mode_and_batches_do_not_change_it() -> None:
    class ByTens(Points):
        evaluation_batch_size = 10

    start = Points().initial_params(1)
    found, by_tens = Points().evaluate(start, visit()), ByTens().evaluate(start, visit(seed=9))
    assert found.values["accuracy"] == pytest.approx(by_tens.values["accuracy"])
    assert found.values["loss"] == pytest.approx(by_tens.values["loss"], rel=1e-5)


def with_metrics(found: dict[str, Any], declared: tuple[Metric, ...]) -> TorchTask:
    class Returning(Points):
        measures = declared

        def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
            return found

    return Returning(config())


@pytest.mark.parametrize(
    ("found", "declared", "named"),
    [
        ({"accuracy": 1.0, "f1": 1.0}, (Metric(name="accuracy"),), "returns 'f1'"),
        ({}, (Metric(name="accuracy"),), "declare 'accuracy'"),
        ({"accuracy": "high"}, (Metric(name="accuracy"),), "a str as 'accuracy'"),
        ({"accuracy": torch.zeros(3)}, (Metric(name="accuracy"),), "a Tensor as 'accuracy'"),
        ({"scores": Sum([1])}, (Metric(name="auc", combine="auc", of="scores"), Metric(name="x")), "declare 'x'"),
    ],
)
def test_metrics_that_do_not_fit_their_declaration_are_an_error_that_names_them(
    found: dict[str, Any], declared: tuple[Metric, ...], named: str
) -> None:
    task = with_metrics(found, declared)
    with pytest.raises(TaskFailed, match=named):
        task.evaluate(task.initial_params(1), visit())
