"""Digits as different scanners see them, each client's in colours of its own: FedAvg, and FedBN beside it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fednode import Metric, Site, Sum, TorchTask
from fednode.tasks.mnist_data import load_whole


class FedAvg(TorchTask):
    """Everything is averaged, and what belongs to BatchNorm with it: means and variances that fit no client."""

    measures = (Metric(name="accuracy", combine="accuracy"), Metric(name="loss", goal="min"))

    def model(self) -> nn.Module:
        return Net()

    def dataset(self, site: Site, split: str) -> tuple[Tensor, Tensor]:
        found = load_whole(site, split)
        ink = torch.tensor(found.images).unsqueeze(1) / 255
        paper, pen = colours_of(site.client)
        return paper + (pen - paper) * ink, torch.tensor(found.labels, dtype=torch.int64)

    def is_per_client(self, site: Site) -> bool:
        return True                     # the same digits, in colours of its own

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        correct = (outputs.argmax(dim=1) == targets).sum()
        return {"accuracy": Sum([float(correct), len(targets)])}


class FedBN(FedAvg):
    """BatchNorm stays at each client (Li et al. 2021, arXiv:2102.07623); the rest is averaged."""

    local_params = ("*norm*",)


class Net(nn.Module):
    """Two convolutions, each behind a BatchNorm whose names begin with `norm`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 7 * 7, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm1(self.conv1(images)).relu()
        features = self.norm2(self.conv2(features)).relu()
        return self.head(features.flatten(1))


def colours_of(client: str) -> tuple[Tensor, Tensor]:
    """Paper and pen of one client's scanner, (3, 1, 1) each: drawn by its name, so always the same."""
    chance = random.Random(client)
    paper = torch.tensor([chance.uniform(0.0, 0.7) for _ in range(3)]).reshape(3, 1, 1)
    contrast = torch.tensor([chance.uniform(0.05, 0.3) for _ in range(3)]).reshape(3, 1, 1)
    return paper, paper + contrast
