"""`TorchTask`: a learning problem in PyTorch, in about 23 lines of a person's own.

Write `model`, `dataset`, `loss` and `metrics`; everything below the line has a default that may be overridden. This
module imports torch only when a task is used, so it may be imported where torch is not installed. How it trains is
in `torch_loop.py`, how datasets are read in `torch_data.py`; `mnist.py` is a task written with it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fednode.core.json import JsonObject
from fednode.core.metrics import Metrics, Split
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.errors import DataError, FednodeError
from fednode.tasks.base import Bytes, Floats, Partition, Site, Task, TrainConfig, Visit
from fednode.tasks.partition import Indices, partition_indices

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fednode.tasks.torch_data import Examples, Part

SPLITS_KEPT = 6                 # whole splits in memory: train and test of a few folders
ROWS_KEPT = 4_096               # sites whose part is remembered: a few bytes an example
USUAL_BATCH = 32                # examples that every part of a train split has
MAX_CLASSES = 1_000             # more different labels are not counted one by one


class Optimizer(Protocol):
    """What is asked of an optimiser; torch's have it."""

    def zero_grad(self) -> None: ...

    def step(self) -> object: ...


class TorchTask(Task):
    """A learning problem in PyTorch, on whatever device the site has chosen. Subclasses are bound to `self.config`.

    Any of the methods may draw from torch's, numpy's or Python's global generators: they are seeded. A warm process
    and a new one give the same bits, provided that the task keeps no state of its own between calls.
    """

    supports = ("proximal",)
    splits: ClassVar[tuple[Split, ...]] = ("test",)         # held-out splits; ("test", "val") where there are both
    evaluation_batch_size: ClassVar[int] = 64
    local_params: ClassVar[tuple[str, ...]] = ()            # names in state_dict that never leave a client: ("*norm*",)

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model. Its state_dict (params and persistent buffers) is what travels; other buffers stay here."""

    @abstractmethod
    def dataset(self, site: Site, split: str) -> Any:
        """All of the split "train" or "test" (or "val") that lies at the site, before any partition.

        A TensorDataset or a tuple of tensors (inputs, targets), which is fastest, or any Dataset with a length
        whose items are (inputs, targets). Kept in memory, and shared by simulated clients with the same folder:
        `site.client` is empty, unless `is_per_client` says that the split depends on it.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar. Outputs and targets lie on the site's device."""

    @abstractmethod
    def metrics(self, outputs: Any, targets: Tensor) -> Mapping[str, Any]:
        """What a batch achieves: a number (averaged by examples), a `Sum` or a `Histogram` a name, as in `measures`.

        `loss` is added where it is declared. On the split "val" a metric is called `val_` + its name. Outputs and
        targets lie on the CPU, whatever the device.
        """

    # --- with defaults ---------------------------------------------------------------------------------

    def optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimiser for each visit: its memory never outlives one. Any of torch.optim will do."""
        from fednode.tasks.torch_loop import PlainSgd

        return PlainSgd(model.parameters(), self.config.learning_rate)

    def labels(self, dataset: Any) -> NDArray[Any]:
        """One label for each example, for partitions that cut by label. Default: the targets."""
        from fednode.tasks import torch_data

        labels = torch_data.examples_of(dataset).labels()
        return torch_data.every_label(dataset) if labels is None else labels

    def groups(self, dataset: Any) -> Sequence[Any] | None:
        """One group for each example (its patient): no partition separates a group. None: examples are on their own."""
        return None

    def is_per_client(self, site: Site) -> bool:
        """Whether `dataset` depends on `site.client`, so that clients with the same folder cannot share it."""
        return False

    # --- the task's verbs ------------------------------------------------------------------------------

    def __init__(self, config: TrainConfig | None = None) -> None:
        super().__init__(config)
        self._whole = lru_cache(SPLITS_KEPT)(self._load)
        self._rows = lru_cache(ROWS_KEPT)(self._cut)

    def initial_params(self, seed: int) -> Params:
        from fednode.tasks import torch_loop

        return torch_loop.initial_params(self, seed)

    def train(self, params: Params, visit: Visit) -> Update:
        from fednode.tasks import torch_loop

        return torch_loop.train(self, params, visit)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        from fednode.tasks import torch_loop

        return torch_loop.evaluate(self, params, visit)

    def predict(self, params: Params, pictures: Bytes) -> Floats:
        """The softmax of the model's outputs, which it gives for `pictures` as `dataset` would have them."""
        from fednode.tasks import torch_loop

        return torch_loop.predict(self, params, pictures)

    def explain(self, params: Params, pictures: Bytes, labels: NDArray[np.int64]) -> Floats | None:
        """Grad-CAM, where the model has convolutions: see `grad_cam.py`."""
        from fednode.tasks import torch_loop

        return torch_loop.explain(self, params, pictures, labels)

    def check(self, site: Site) -> JsonObject:
        """Examples of each split, and of each class where labels are at hand; one example of each is read."""
        if self.local_params:
            self.initial_params(seed=0)         # raises where the patterns fit nothing, or everything
        parts = {split: self.part(site, split) for split in ("train", *self.splits)}
        counts = {f"{split}_examples": len(part) for split, part in parts.items()}
        for split, part in parts.items():
            _require_readable(part, split, site)
        return {**counts, **{split: classes for split, part in parts.items() if (classes := _class_counts(part))}}

    def part(self, site: Site, split: str) -> Part:
        """What the site has of a split. Raises DataError where that is nothing."""
        from fednode.tasks.torch_data import Part

        whole = self._whole(self._shared(site), split)
        if len(whole.examples) == 0:
            raise DataError(f"the {split} split of {_place(site)} is empty", fix="give this client node data")
        of_data = replace(site, threads=1, device="cpu")
        rows = None if site.partition is None else self._rows(of_data, site.partition, split)
        return Part(examples=whole.examples, rows=rows)

    def _shared(self, site: Site) -> Site:
        """The site, as far as the whole split depends on it."""
        first = None if site.partition is None else replace(site.partition, index=1)
        client = site.client if self.is_per_client(site) else ""
        return replace(site, client=client, partition=first, threads=1, device="cpu")

    def _load(self, site: Site, split: str) -> _Whole:
        from fednode.tasks import torch_data, torch_loop

        try:
            with torch_loop.isolated():
                dataset = self.dataset(site, split)
        except OSError as error:
            raise DataError(
                f"the {split} split of {_place(site)} cannot be read: {error}", fix="check the data folder (--data)"
            ) from error
        return _Whole(dataset, torch_data.examples_of(dataset))

    def _cut(self, site: Site, partition: Partition, split: str) -> Indices:
        from fednode.tasks import torch_loop

        whole, is_test = self._whole(self._shared(site), split), split != "train"
        with torch_loop.isolated():
            labels = None if is_test or partition.split == "iid" else self.labels(whole.dataset)
            groups = self.groups(whole.dataset)
        least = 1 if is_test else _least_examples(len(whole.examples), partition.count)
        return partition_indices(
            labels, len(whole.examples), partition, groups=groups, is_test=is_test, min_examples=least
        )


class _Whole:
    """A split as it was loaded: what `dataset` returned, and its examples."""

    def __init__(self, dataset: Any, examples: Examples) -> None:
        self.dataset = dataset
        self.examples = examples


def _least_examples(num_examples: int, num_parts: int) -> int:
    """A batch of the usual size, however skewed the cut; of a small split, half a fair share.

    No setting of a run enters here: what data a site has must not change with them.
    """
    return max(1, min(USUAL_BATCH, num_examples // num_parts // 2))


def _place(site: Site) -> str:
    return str(site.data or "this site's data")


def _require_readable(part: Part, split: str, site: Site) -> None:
    try:
        part.batch(np.zeros(1, np.int64))
    except FednodeError:
        raise
    except Exception as error:      # a stranger's dataset
        raise DataError(
            f"the first example of the {split} split of {_place(site)} cannot be read: {type(error).__name__}: {error}",
            fix="check this site's data, and the task's dataset()",
        ) from error


def _class_counts(part: Part) -> dict[str, int]:
    """Examples of each class; empty where labels are not at hand, or are no classes."""
    labels = part.examples.labels()
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iubU":
        return {}
    classes, counts = np.unique(labels if part.rows is None else labels[part.rows], return_counts=True)
    if len(classes) > MAX_CLASSES:
        return {}
    return {str(name): int(count) for name, count in zip(classes, counts, strict=True)}
