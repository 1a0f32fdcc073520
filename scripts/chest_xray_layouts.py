"""How the layout of `chest_xray`'s resnet compares with two others, on train alone: the figures of its how-to.

    python scripts/chest_xray_layouts.py --data DIR

DIR holds `chest_xray/`. Three folds of the patients of train, 12 epochs in one place at the task's settings, one
thread; the rule, set before the first run: the mean over the folds of the AUC after the last epoch. Prints one JSON
line a fold and layout, then the means; about 15 minutes of a core.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fednode.core.metrics import Floats
from fednode.tasks import chest_xray_model as m
from fednode.tasks.base import Site
from fednode.tasks.chest_xray import WEIGHT_DECAY, ChestXray, Config

FOLDS, EPOCHS, SEED, BATCH = 3, 12, 1, 10


class PreActivation(nn.Module):
    """A block with its normalisation before each convolution (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.norm1, self.conv1 = m._norm(before), nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm2, self.conv2 = m._norm(after), nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.short_cut = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(features))
        short = features if isinstance(self.short_cut, nn.Identity) else self.short_cut(inner)
        return self.conv2(functional.relu(self.norm2(self.conv1(inner)))) + short


def pre_activation(*stem: nn.Module) -> nn.Module:
    widths = m.CHANNELS
    blocks = [PreActivation(before, after) for before, after in zip((widths[0], *widths), widths, strict=False)]
    model = nn.Sequential(
        m.Radiograph(), *stem, *blocks, m._norm(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(widths[-1], m.NUM_CLASSES),
    )
    return model.to(memory_format=torch.channels_last)


LAYOUTS: Mapping[str, Callable[[], nn.Module]] = {
    "pre-activation, stride of 2": lambda: pre_activation(nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)),
    "pre-activation, pooled": lambda: pre_activation(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.MaxPool2d(2)),
    "as it is": lambda: m.resnet(64),
}


def trained(make: Callable[[], nn.Module], pictures: Tensor, targets: Tensor, rows: Floats, fold: int) -> nn.Module:
    torch.manual_seed(SEED + fold)
    model, counts = make(), np.bincount(targets[rows])
    importance = torch.tensor([len(rows) / (2 * count) for count in counts], dtype=torch.float32)[targets]
    for epoch in range(1, EPOCHS + 1):
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=Config().learning_rate, weight_decay=WEIGHT_DECAY)
        order = torch.from_numpy(np.random.default_rng(100 * fold + epoch).permutation(rows))
        for batch in order.split(BATCH):
            optimizer.zero_grad()
            losses = functional.cross_entropy(model(pictures[batch]), targets[batch], reduction="none")
            (losses * importance[batch]).mean().backward()
            optimizer.step()
    return model


def auc(model: nn.Module, pictures: Tensor, targets: np.ndarray) -> float:
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(some).double().softmax(1)[:, 1] for some in pictures.split(200)]).numpy()
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks, num = (counts.cumsum() - (counts - 1) / 2)[inverse], targets.sum()
    return float((ranks[targets == 1].sum() - num * (num + 1) / 2) / (num * (len(targets) - num)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    task, site = ChestXray(Config()), Site(client="layouts", data=parser.parse_args().data)
    torch.set_num_threads(1)
    parts = [task.dataset(site, split) for split in ("train", "val")]           # val is held back from train
    squares = np.concatenate([np.stack([part.squares[row] for row in part.rows]) for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    patients = [patient for part in parts for patient in part.groups]
    known = sorted(set(patients))
    lots = np.random.default_rng(0).permutation(len(known))
    fold_of = {known[lot]: rank % FOLDS for rank, lot in enumerate(lots)}
    folds, pictures = np.array([fold_of[patient] for patient in patients]), torch.from_numpy(squares)
    found = defaultdict(list)
    for fold in range(FOLDS):
        for name, make in LAYOUTS.items():
            model = trained(make, pictures, torch.from_numpy(targets), np.flatnonzero(folds != fold), fold)
            held_back = np.flatnonzero(folds == fold)
            found[name].append(auc(model, pictures[held_back], targets[held_back]))
            print(json.dumps({"fold": fold, "layout": name, "auc": round(found[name][-1], 5)}), flush=True)
    for name, scores in found.items():
        print(f"{name}: {mean(scores):.4f}")


if __name__ == "__main__":
    main()
