"""Where a task computes: what `--device` means here, and what follows from a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fednode.errors import UsageError
from fednode.tasks.base import Site, TrainConfig, Visit
from fednode.tasks.devices import described, devices, placed

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from fednode.tasks.torch_task import TorchTask  # noqa: E402
from fednode.wire.codec import encode  # noqa: E402

BEST = devices()[0]
needs_gpu = pytest.mark.skipif(BEST == "cpu", reason="this machine has no GPU that torch can use")
needs_no_gpu = pytest.mark.skipif(BEST != "cpu", reason="this machine has a GPU")


def on(device: str) -> Site:
    return placed(Site(client="a", device=device))


class Pictures(TorchTask):
    """64 pictures of 8 x 8, with the layers that people use; random in training, and metrics that need numpy."""

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1), nn.Flatten(),
            nn.Linear(64, 2),
        )

    def dataset(self, site: Site, split: str) -> Any:
        generator = torch.Generator().manual_seed(3)
        inputs = torch.randn(64, 1, 8, 8, generator=generator)
        return inputs, (inputs.mean(dim=(1, 2, 3)) > 0).long()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        return {"accuracy": float(np.mean(outputs.numpy().argmax(axis=1) == targets.numpy()))}


class Calm(Pictures):
    """Nothing is drawn, so that two devices can be compared: their generators give other numbers."""

    def model(self) -> nn.Module:
        return nn.Sequential(*(layer for layer in super().model() if not isinstance(layer, nn.Dropout)))


def trained(kind: type[TorchTask], site: Site) -> Any:
    task = kind(TrainConfig(epochs=2, batch_size=16, learning_rate=0.05))
    visit = Visit(site=site, config=task.config, seed=5, client_seed=3, round=1)
    start = task.initial_params(1)
    return task.train(start, visit).params, task.evaluate(start, visit)


def test_auto_is_the_best_that_is_there() -> None:
    assert placed(Site(client="a", device="auto")).device == BEST
    assert described("cpu") == "cpu" == devices()[-1]


@needs_no_gpu
@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused_with_what_is(asked: str) -> None:
    with pytest.raises(UsageError, match=f"'{asked}' is not there: this machine has cpu"):
        placed(Site(client="a", device=asked))


def test_a_site_on_the_cpu_asks_nobody_and_sets_nothing() -> None:
    code = (
        "import os, sys; from fednode.tasks.devices import placed; from fednode.tasks.base import Site;"
        "placed(Site(client='a')); assert 'torch' not in sys.modules and 'CUBLAS_WORKSPACE_CONFIG' not in os.environ;"
    )
    env = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=env)


@needs_gpu
def test_a_gpu_gives_the_same_bits_twice() -> None:
    first, again = trained(Pictures, on("auto")), trained(Pictures, on("auto"))
    assert encode(first[0]) == encode(again[0])
    assert first[1].to_json() == again[1].to_json()


@needs_gpu
def test_a_gpu_comes_to_what_the_cpu_comes_to() -> None:
    here, there = trained(Calm, on("cpu")), trained(Calm, on("auto"))
    assert here[0].manifest == there[0].manifest
    for name in here[0]:
        np.testing.assert_allclose(here[0][name], there[0][name], rtol=1e-2, atol=1e-3)
    assert here[1].values["loss"] == pytest.approx(there[1].values["loss"], rel=1e-2)


@needs_gpu
def test_a_gpu_is_told_by_its_name() -> None:
    assert described(BEST) == BEST or "CUDA" in described(BEST)
