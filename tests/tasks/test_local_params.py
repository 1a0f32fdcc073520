"""Params that never leave a client: not in what travels, kept from round to round, its own in all of its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from fednode.core.params import Params  # noqa: E402
from fednode.errors import TaskFailed  # noqa: E402
from fednode.tasks.base import Site, TrainConfig, Visit  # noqa: E402
from fednode.tasks.local_params import FILE_NAME  # noqa: E402
from fednode.tasks.registry import load_task, offer_of  # noqa: E402
from fednode.tasks.state_dirs import StateDir  # noqa: E402
from fednode.tasks.torch_task import TorchTask  # noqa: E402
from fednode.wire.codec import encode, read_params  # noqa: E402

SITE = Site(client="a")
CONFIG = TrainConfig(epochs=2, batch_size=4, learning_rate=0.01)
OWN = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


class Bent(TorchTask):
    """A line that is normalised before it is read: 16 points, far from 0."""

    local_params = ("1.*",)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    def dataset(self, site: Site, split: str) -> Any:
        inputs = torch.linspace(5, 9, 32).reshape(16, 2)
        return inputs, inputs.sum(dim=1, keepdim=True)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - targets) ** 2).mean()

    def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        return {"accuracy": ((outputs - targets).abs() < 1).float().mean()}


class Everything(Bent):
    local_params = ("*",)


class Nothing(Bent):
    local_params = ("norm*",)


def visit(state: StateDir | None, **fields: Any) -> Visit:
    return Visit(**({"site": SITE, "config": CONFIG, "seed": 5, "client_seed": 3, "round": 1, "state": state} | fields))


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(folder=tmp_path / "state")


def test_what_stays_is_in_no_params_that_travel(state: StateDir) -> None:
    task = Bent(CONFIG)
    start = task.initial_params(1)
    assert set(start) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert task.train(start, visit(state)).params.manifest == start.manifest


def test_it_is_kept_and_found_again(state: StateDir) -> None:
    task = Bent(CONFIG)
    start = task.initial_params(1)
    first = task.train(start, visit(state))
    kept = read_params(state.open() / FILE_NAME)
    assert set(kept) == OWN
    assert int(kept["1.num_batches_tracked"]) == 8      # 2 epochs of 16 / 4 batches
    again = task.train(start, visit(state, round=2))
    assert int(read_params(state.open() / FILE_NAME)["1.num_batches_tracked"]) == 16
    assert (first.environment, again.environment) == ({"local_params": "fresh"}, {"local_params": "own"})


def test_the_scores_are_those_of_the_model_with_the_client_s_own(state: StateDir, tmp_path: Path) -> None:
    task = Bent(CONFIG)
    params = task.train(task.initial_params(1), visit(state)).params
    with_own = task.evaluate(params, visit(state)).values["loss"]
    with_fresh = task.evaluate(params, visit(StateDir(folder=tmp_path / "of a newcomer"))).values["loss"]
    model = task.model()
    whole = {**params, **read_params(state.open() / FILE_NAME)}
    model.load_state_dict({name: torch.tensor(np.array(array)) for name, array in whole.items()})
    inputs, targets = task.dataset(SITE, "test")
    assert with_own == pytest.approx(task.loss(model.eval()(inputs), targets).item())
    assert with_own != with_fresh


class Steep(Bent):
    """Its own first params are drawn."""

    local_params = ("2.*",)


def test_the_first_own_params_come_from_the_client_s_seed_in_this_run(tmp_path: Path) -> None:
    task = Steep(TrainConfig(epochs=1, batch_size=16, learning_rate=1e-9))
    start = task.initial_params(1)

    def own(name: str, **fields: Any) -> bytes:
        state = StateDir(folder=tmp_path / name)
        task.train(start, visit(state, **fields))
        return encode(Params({"w": read_params(state.open() / FILE_NAME)["2.weight"].round(4)}))

    assert own("1") == own("2") == own("3", round=7)
    assert own("1") != own("4", client_seed=4)


def test_the_proximal_term_pulls_only_at_what_was_received(tmp_path: Path) -> None:
    def own_after(mu: float) -> np.ndarray[Any, Any]:
        task = Steep(TrainConfig(epochs=1, batch_size=8, learning_rate=1e-3, proximal_mu=mu))
        state = StateDir(folder=tmp_path / str(mu))
        frozen = Params({name: 0 * array for name, array in task.initial_params(1).items()})
        task.train(frozen, visit(state))
        return read_params(state.open() / FILE_NAME)["2.bias"]

    assert own_after(0.0) == pytest.approx(own_after(5.0))      # all the rest stands at 0, where the term pulls to


@pytest.mark.parametrize(("kind", "told"), [(Nothing, "'norm\\*' fits no name"), (Everything, "fit every name")])
def test_patterns_that_fit_nothing_or_everything_are_refused_at_the_offer(kind: type[TorchTask], told: str) -> None:
    with pytest.raises(TaskFailed, match=told):
        offer_of(load_task(kind), SITE)


def test_where_the_own_params_are_not_a_model_is_not_tried() -> None:
    task = Bent(CONFIG)
    with pytest.raises(TaskFailed, match=r"not whole: 1\.\* of Bent stay at its clients"):
        task.predict(task.initial_params(1), np.zeros((1, 2), np.uint8))
