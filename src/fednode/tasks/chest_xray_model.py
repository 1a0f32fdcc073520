"""The models of `chest_xray.py`. Imports torch, so the task imports this module late.

All take images as the cache has them, (n, size, size) bytes, and give (n, 2) logits: NORMAL, PNEUMONIA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_CLASSES = 2
CHANNELS = (16, 32, 64, 128)                        # of the resnet's four stages
GROUP_SIZE = 8                                      # channels of a GroupNorm group
MAX_TURN, MAX_SHIFT, MAX_ZOOM = math.radians(12), 0.08, 0.12    # of a training image: angle, part of its side, factor
MAX_GAMMA = 0.35                                    # of the logarithm of gamma


class Radiograph(nn.Module):
    """(n, size, size) bytes to (n, 1, size, size) floats, each image of mean 0 and variance 1.

    In training each image is turned, shifted, zoomed and given another gamma first, at random: what another device
    and another child's posture would do. No mirror images: the heart is on the left.
    """

    def forward(self, images: Tensor) -> Tensor:
        grey = images.to(torch.float32).div_(255).unsqueeze(1)
        if self.training:
            grey = _gamma(_moved(grey))
        mean = grey.mean(dim=(2, 3), keepdim=True)
        std = grey.std(dim=(2, 3), keepdim=True).clamp_min(1e-3)
        return (grey - mean) / std


def _moved(grey: Tensor) -> Tensor:
    turn, zoom_x, zoom_y, shift_x, shift_y = torch.empty(5, len(grey), device=grey.device).uniform_(-1, 1)
    cos, sin = torch.cos(turn * MAX_TURN), torch.sin(turn * MAX_TURN)
    wide, high = 1 + zoom_x * MAX_ZOOM, 1 + zoom_y * MAX_ZOOM
    rows = [cos * wide, -sin * high, 2 * MAX_SHIFT * shift_x, sin * wide, cos * high, 2 * MAX_SHIFT * shift_y]
    grid = functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(grey.shape), align_corners=False)
    return functional.grid_sample(grey, grid, padding_mode="border", align_corners=False)


def _gamma(grey: Tensor) -> Tensor:
    power = torch.exp(torch.empty(len(grey), 1, 1, 1, device=grey.device).uniform_(-MAX_GAMMA, MAX_GAMMA))
    return grey.clamp_min(1e-4).pow(power)


def baseline(size: int) -> nn.Module:
    """The prototype's net: 3x3 convolutions of 32 and 64, each with a 2x2 pool, and one dense layer; in float32."""
    return nn.Sequential(
        Radiograph(),
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (((size - 2) // 2 - 2) // 2) ** 2, NUM_CLASSES),
    )


def resnet(size: int) -> nn.Module:
    """A small ResNet (He et al. 2016, arXiv:1512.03385), 307,506 params whatever the size.

    GroupNorm (Wu and He 2018, arXiv:1803.08494) in place of BatchNorm: the statistics of a batch are a site's own,
    and what is averaged of them fits nobody (Hsieh et al. 2020, arXiv:1910.00189).
    """
    first, *wider = CHANNELS
    blocks = [Block(before, after) for before, after in zip(CHANNELS, wider, strict=False)]
    model = nn.Sequential(
        Radiograph(), nn.Conv2d(1, first, 3, padding=1, bias=False), _norm(first), nn.ReLU(), nn.MaxPool2d(2),
        Block(first, first), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], NUM_CLASSES),
    )
    # Channels innermost in memory: a CPU's convolutions are a quarter faster so.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class Block(nn.Module):
    """Two 3x3 convolutions beside a short cut; where the channels change, at half the height and width."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), _norm(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, padding=1, bias=False), _norm(after)
        self.short_cut: nn.Module = nn.Identity()
        if before != after:
            self.short_cut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), _norm(after))

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.short_cut(features))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // GROUP_SIZE, channels)


MODELS: Mapping[str, Callable[[int], nn.Module]] = {"resnet": resnet, "baseline": baseline}
