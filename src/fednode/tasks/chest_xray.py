"""Pneumonia in chest X-rays of children: two classes, each hospital its own folder.

The folder is read by `chest_xray_folder.py`, the models are in `chest_xray_model.py`, pictures for a demo without
any data in `chest_xray_synthetic.py`. Not a medical device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fednode.core.data_report import DataReport, Problem
from fednode.core.json import JsonObject
from fednode.core.metrics import Histogram, Metric, Split
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.errors import DataError
from fednode.tasks.base import Bytes, Picture, Samples, Site, TrainConfig, Visit
from fednode.tasks.chest_xray_files import CLASSES, LAYOUT
from fednode.tasks.chest_xray_folder import XrayFolder, look, usable
from fednode.tasks.chest_xray_synthetic import SYNTHETIC, Synthetic, synthetic, synthetic_samples
from fednode.tasks.picture_cache import LabelledSquares, PictureCache
from fednode.tasks.pictures import decode
from fednode.tasks.torch_task import TorchTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fednode.tasks.torch_task import Optimizer

BINS = 1_000                    # of the score histograms: AUC to about 1/1000 of a rank
FOLDERS_KEPT = 4
HALF = "_at_0.5"
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """What a person may set of a chest X-ray training."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="Examples in one step")] = 10
    learning_rate: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Step size of AdamW; 0.0001 suits baseline")
    ] = 0.002
    model: Annotated[
        Literal["resnet", "baseline"],
        Field(description="resnet: small, with GroupNorm; baseline: two convolutions, as in the prototype"),
    ] = "resnet"
    image_size: Annotated[int, Field(ge=16, le=512, description="Images are shrunk to this many pixels a side")] = 64


def _cut(name: str, combine: Any) -> tuple[Metric, Metric]:
    """A metric at the threshold that the model's card names, and at one half."""
    return (
        Metric(name=name, combine=combine, of="scores", at="threshold"),
        Metric(name=f"{name}{HALF}", combine=combine, of="scores", at=0.5),
    )


class ChestXray(TorchTask):
    """Healthy or pneumonia? Pooled metrics are those of the pooled images, by score histograms.

    `threshold` finds 90 % of the pneumonias among patients held back from train; the test split has no say in it.
    """

    name = "chest_xray"
    version = 1
    Config = Config
    default_rounds = 30
    classes = CLASSES
    notice = "Not a medical device: no answer of this model says anything about a person's health."
    splits: ClassVar[tuple[Split, ...]] = ("test", "val")
    measures = (
        Metric(name="auc", combine="auc", of="scores"),
        *_cut("balanced_accuracy", "balanced_accuracy"), *_cut("sensitivity", "sensitivity"),
        *_cut("specificity", "specificity"), *_cut("accuracy", "accuracy"),
        Metric(name="val_auc", combine="auc", of="val_scores", split="val"),
        Metric(name="threshold", combine="threshold", of="val_scores", split="val", goal="none"),
        Metric(name="roc", combine="roc", of="scores", goal="none"),
        Metric(name="loss", goal="min"),
    )

    def __init__(self, config: TrainConfig | None = None) -> None:
        super().__init__(config)
        self.picture = Picture(height=self.config.image_size, width=self.config.image_size)
        self._folder = lru_cache(FOLDERS_KEPT)(self._read_folder)
        self._class_balance = [1.0] * len(CLASSES)        # set by each visit, for the loss of its training

    def model(self) -> nn.Module:
        from fednode.tasks.chest_xray_model import MODELS

        return MODELS[self.config.model](self.config.image_size)

    def dataset(self, site: Site, split: str) -> LabelledSquares | Synthetic:
        if site.offline_sample:
            return synthetic(split, self.config.image_size, "" if site.partition else site.client)
        folder = self._folder(site.data)
        images = folder.split(split, site.partition.count if site.partition else 1)
        return LabelledSquares(
            squares=folder.squares, rows=[image.row for image in images],
            targets=np.array([image.label for image in images], np.int64),
            groups=[image.patient for image in images],
        )

    def groups(self, dataset: LabelledSquares | Synthetic) -> Sequence[str]:
        return dataset.groups

    def is_per_client(self, site: Site) -> bool:
        """Of synthetic pictures, where no partition cuts them, each client has its own."""
        return site.offline_sample and site.partition is None

    def optimizer(self, model: nn.Module) -> Optimizer:
        import torch

        return torch.optim.AdamW(model.parameters(), lr=self.config.learning_rate, weight_decay=WEIGHT_DECAY)

    def train(self, params: Params, visit: Visit) -> Update:
        """Each class weighs the same at this site, however many images it has of it."""
        self._class_balance = _balanced(self._labels(visit.site, "train"))
        return super().train(params, visit)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        importance = outputs.new_tensor(self._class_balance)[targets]
        return (cross_entropy(outputs, targets, reduction="none") * importance).mean()

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Any]:
        """The loss here is unweighted: what is measured must not depend on the site's own counts."""
        from torch.nn.functional import cross_entropy

        scores = outputs.double().softmax(dim=1)[:, 1]
        return {
            "scores": Histogram.of_scores(scores.numpy(), targets.numpy(), BINS),
            "loss": cross_entropy(outputs, targets),
        }

    def check(self, site: Site) -> JsonObject:
        """Images of each split and class, how many files cannot be used, and where they come from."""
        labels = {split: self._labels(site, split) for split in ("train", *self.splits)}
        counts = {f"{split}_examples": len(found) for split, found in labels.items()}
        splits = {split: _by_class(found) for split, found in labels.items()}
        if site.offline_sample:
            return {**counts, **splits, "source": SYNTHETIC}
        num_skipped = len(self._folder(site.data).report.skipped)
        return {**counts, **splits, "skipped_files": num_skipped, "source": "the site's files"}

    def report(self, site: Site) -> DataReport:
        """The site's whole folder, before any partition."""
        if site.offline_sample:
            found = {split: synthetic(split, self.config.image_size).targets for split in ("train", *self.splits)}
            return DataReport(
                splits={split: _by_class(labels) for split, labels in found.items()}, problems=(_SYNTHETIC_TOLD,)
            )
        if site.data is None:
            return DataReport(problems=(_NONE_NAMED,))
        return look(site.data, self._cache()).report

    def picture_from_file(self, content: bytes) -> Bytes:
        return decode(content, self.config.image_size)

    def samples(self) -> Samples:
        """Synthetic ones: no child's X-ray is fednode's to show."""
        return synthetic_samples(self.config.image_size, CLASSES)

    def _read_folder(self, data: Path | None) -> XrayFolder:
        if data is None:
            raise DataError(_NONE_NAMED.message, fix=_NONE_NAMED.fix)
        return usable(data, self._cache())

    def _cache(self) -> PictureCache:
        return PictureCache(self.config.image_size)

    def _labels(self, site: Site, split: str) -> NDArray[np.int64]:
        part = self.part(site, split)
        labels = part.examples.labels()
        assert labels is not None
        return labels if part.rows is None else labels[part.rows]


def _balanced(targets: NDArray[np.int64]) -> list[float]:
    """Weights that give each class that is there the same share of the loss; their mean over the examples is 1."""
    counts = np.bincount(targets, minlength=len(CLASSES))
    return [float(len(targets) / ((counts > 0).sum() * count)) if count else 1.0 for count in counts]


def _by_class(labels: NDArray[np.int64]) -> dict[str, int]:
    return {name: int((labels == label).sum()) for label, name in enumerate(CLASSES)}


_NONE_NAMED = Problem(
    code="no_folder", is_fatal=True, message="chest X-rays come from a folder, and none is named",
    fix=f"name by --data the folder that holds {LAYOUT}",
)
_SYNTHETIC_TOLD = Problem(
    code="synthetic", message=f"no folder is looked at: {SYNTHETIC}", fix="name by --data a folder of X-rays",
)
