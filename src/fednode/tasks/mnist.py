"""MNIST: ten digits, 28 x 28 grey images. The example of a torch task.

Files are found and read by `mnist_data.py`, the models are in `mnist_model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Sum
from fednode.tasks.base import Bytes, Samples, Site, TrainConfig
from fednode.tasks.mnist_data import NUM_DIGITS, PICTURE, bundled_samples, load_whole
from fednode.tasks.torch_task import TorchTask

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """What a person may set of an MNIST training."""

    model: Annotated[
        Literal["linear", "mlp", "small_cnn", "cnn"],
        Field(description="linear; mlp and cnn as in McMahan et al. 2017; small_cnn: two 3x3 convolutions"),
    ] = "small_cnn"


class Mnist(TorchTask):
    """Which digit is it? Pooled accuracy is the accuracy on the pooled test images."""

    name = "mnist"
    version = 1
    Config = Config
    measures = (Metric(name="accuracy", combine="accuracy"), Metric(name="loss", goal="min"))
    evaluation_batch_size = 256
    picture = PICTURE
    classes = tuple(str(digit) for digit in range(NUM_DIGITS))

    def model(self) -> nn.Module:
        from fednode.tasks.mnist_model import MODELS

        return MODELS[self.config.model]()

    def dataset(self, site: Site, split: str) -> tuple[Tensor, Tensor]:
        import torch

        found = load_whole(site, split)
        # Copies: what was read is read-only, which torch does not know.
        return torch.tensor(found.images), torch.tensor(found.labels, dtype=torch.int64)

    def is_per_client(self, site: Site) -> bool:
        """Of the bundled sample, where no partition cuts it, each client draws its own images."""
        return site.offline_sample and site.partition is None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Any]:
        correct = (outputs.argmax(dim=1) == targets).sum()
        return {"accuracy": Sum([float(correct), len(targets)])}

    def check(self, site: Site) -> JsonObject:
        """Images of each digit in each split, and where they come from."""
        return {**super().check(site), "source": load_whole(site, "train").source}

    def picture_from_file(self, content: bytes) -> Bytes:
        from fednode.tasks.mnist_pictures import digit_in

        return digit_in(content)

    def samples(self) -> Samples:
        """One test image of each digit."""
        return bundled_samples(range(NUM_DIGITS), num_each=1)
