"""The models of `mnist.py`. Imports torch, so the task imports this module late.

All take images as they lie in the files, (n, 28, 28) bytes, and give (n, 10) logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

NUM_PIXELS, NUM_DIGITS = 28 * 28, 10
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081      # of the 60,000 training images, ink = 1


class Pixels(nn.Module):
    """(n, 28, 28) bytes to (n, 1, 28, 28) floats of about mean 0 and variance 1. Here, so that data stay bytes."""

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.to(torch.float32).mul_(1 / (255 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)
        return scaled.unsqueeze(1)


def linear() -> nn.Module:
    """Softmax regression: 7,850 params."""
    return nn.Sequential(Pixels(), nn.Flatten(), nn.Linear(NUM_PIXELS, NUM_DIGITS))


def mlp() -> nn.Module:
    """The 2NN of McMahan et al. 2017 (arXiv:1602.05629): two hidden layers of 200, 199,210 params."""
    return nn.Sequential(
        Pixels(), nn.Flatten(),
        nn.Linear(NUM_PIXELS, 200), nn.ReLU(),
        nn.Linear(200, 200), nn.ReLU(),
        nn.Linear(200, NUM_DIGITS),
    )


def small_cnn() -> nn.Module:
    """Two 3x3 convolutions (8, 16) and 64 units: 52,138 params, under a second for 3,000 images on one core."""
    return _by_channel(nn.Sequential(
        Pixels(),
        nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, NUM_DIGITS),
    ))


def cnn() -> nn.Module:
    """The CNN of McMahan et al. 2017 (arXiv:1602.05629): two 5x5 convolutions (32, 64), 512 units, 1,663,370 params."""
    return _by_channel(nn.Sequential(
        Pixels(),
        nn.Conv2d(1, 32, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, NUM_DIGITS),
    ))


def _by_channel(model: nn.Module) -> nn.Module:
    """The same model with channels innermost in memory, where a CPU's convolutions take about half the time.

    Pooling comes before ReLU for the same reason: the maximum of what is cut off at 0 is the maximum, cut off at 0.
    """
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


MODELS: Mapping[str, Callable[[], nn.Module]] = {"linear": linear, "mlp": mlp, "small_cnn": small_cnn, "cnn": cnn}
