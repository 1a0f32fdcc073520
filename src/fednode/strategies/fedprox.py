"""FedProx: FedAvg at the central node, a proximal term in every client's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fednode.core.json import JsonObject
from fednode.strategies.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """FedAvg, each client minimising loss + mu / 2 * |w - w_received|^2 (Li et al. 2020, arXiv:1812.06127, equation 2).

    The paper searches mu in {0.001, 0.01, 0.1, 1}; 0.01 is a light pull, safe to begin with. 0 is FedAvg.
    """

    requires: ClassVar[tuple[str, ...]] = ("proximal",)

    mu: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Pull towards the model received")] = 0.01

    def configure(self, task_config: JsonObject) -> JsonObject:
        return {**task_config, "proximal_mu": self.mu}
