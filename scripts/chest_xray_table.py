"""The table of docs/how-to/train-on-chest-xrays.md: what `chest_xray` reaches at its defaults, federated and not.

    python scripts/chest_xray_table.py --data DIR [--npz pneumoniamnist.npz] [--seeds 1 2 3]

DIR holds `chest_xray/`. Three hospitals, cut by patient. Prints one JSON line a training as soon as it has ended and
the table at the end. A training of all the images takes about eight minutes of a core, the whole table two hours.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from fednode import simulate
from fednode.core.metrics import Metrics
from fednode.core.params import Params
from fednode.core.pooling import pool
from fednode.tasks.base import Partition, Site, Visit
from fednode.tasks.chest_xray import ChestXray, Config

HOSPITALS = 3
SKEWED = "dirichlet:0.5"
SHOWN = ("auc", "balanced_accuracy", "sensitivity", "specificity", "accuracy")
CLASSES = ("NORMAL", "PNEUMONIA")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One line of the table for one seed."""

    what: str
    data: Path
    seed: int
    split: str = "iid"
    hospital: int | None = None         # alone; None: all of them together
    is_central: bool = False            # all images in one place
    image_size: int = 64


def trainings(data: Path, npz: Path | None, unpacked: Path, seeds: list[int]) -> Iterator[Training]:
    for seed in seeds:
        yield Training(what="federated", data=data, seed=seed)
    for seed in seeds:
        yield Training(what="federated, skewed", data=data, seed=seed, split=SKEWED)
    if npz is not None:
        unpack(npz, unpacked)
        for seed in seeds:
            yield Training(what="PneumoniaMNIST, federated", data=unpacked, seed=seed, image_size=28)
    for seed in seeds:
        yield Training(what="all images in one place", data=data, seed=seed, is_central=True)
    for split, name in (("iid", ""), (SKEWED, ", skewed")):
        for seed in seeds:
            for hospital in range(1, HOSPITALS + 1):
                what = f"hospital {hospital} alone{name}"
                yield Training(what=what, data=data, seed=seed, split=split, hospital=hospital)


def unpack(npz: Path, folder: Path) -> None:
    """The arrays as a folder of PNG files: each image a patient of its own."""
    with np.load(npz) as arrays:
        for split in ("train", "val", "test"):
            rows = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel(), strict=True)
            for number, (image, label) in enumerate(rows):
                place = folder / "chest_xray" / split / CLASSES[label]
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(place / f"person{number}_{split}.png")


def play(training: Training) -> dict[str, Any]:
    began_s = perf_counter()
    found = alone(training) if training.hospital else together(training)
    return {
        "what": training.what, "seed": training.seed, **{name: round(found[name], 4) for name in SHOWN},
        "val_auc": round(found["val_auc"], 4), "seconds": round(perf_counter() - began_s),
    }


def together(training: Training) -> dict[str, float]:
    clients = 1 if training.is_central else HOSPITALS
    run = simulate(
        ChestXray, clients=clients, data=training.data, split=training.split, seed=training.seed,
        workers=min(2, clients), task_config={"image_size": training.image_size},
    )
    return run.metrics


def alone(training: Training) -> dict[str, float]:
    """One hospital's training, by its own images, measured on everybody's test images."""
    task = ChestXray(Config(image_size=training.image_size))
    assert training.hospital is not None
    partition = Partition(index=training.hospital, count=HOSPITALS, split=training.split)
    own = Site(client=f"client-{training.hospital}", data=training.data, partition=partition)
    params = task.initial_params(training.seed)
    for number in range(1, task.default_rounds + 1):
        params = task.train(params, visit(task, own, training.seed, number)).params
    return measured(task, params, own, training.seed)


def measured(task: ChestXray, params: Params, own: Site, seed: int) -> dict[str, float]:
    """On everybody's test images, at the threshold of the patients that this hospital held back."""
    everybody = replace(own, partition=None)
    on_all, on_own = (task.evaluate(params, visit(task, site, seed, 0)) for site in (everybody, own))
    metrics = Metrics(
        values={**on_all.values, "val_scores": on_own.values["val_scores"]},
        num_examples={**on_all.num_examples, "val": on_own.num_examples["val"]},
    )
    pooled = pool(task.measures, {own.client: metrics})
    return {metric.name: metric.value for metric in pooled if isinstance(metric.value, float)}


def visit(task: ChestXray, site: Site, seed: int, number: int) -> Visit:
    return Visit(site=site, config=task.config, seed=1_000 * seed + number, client_seed=seed, round=number)


def told(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown: the mean over the seeds, and the lowest AUC of a seed."""
    by_what: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_what[row["what"]].append(row)
    lines = [f"| training | {' | '.join(SHOWN)} | lowest auc |", "| --- " * (len(SHOWN) + 2) + "|"]
    for what, those in by_what.items():
        means = " | ".join(f"{mean(row[name] for row in those):.3f}" for name in SHOWN)
        lines.append(f"| {what} | {means} | {min(row['auc'] for row in those):.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--npz", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", default="", help="lines of the table whose name holds this")
    asked = parser.parse_args()
    rows = []
    with TemporaryDirectory() as unpacked:
        for training in trainings(asked.data, asked.npz, Path(unpacked), asked.seeds):
            if asked.only in training.what:
                rows.append(play(training))
                print(json.dumps(rows[-1]), flush=True)
    print(told(rows))


if __name__ == "__main__":
    main()
