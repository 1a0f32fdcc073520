"""FedAdam: Adam at the central node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fednode.core.params import Params
from fednode.strategies.adaptive import Adaptive, Share


@dataclass(frozen=True, kw_only=True)
class FedAdam(Adaptive):
    """Algorithm 2 of Reddi et al. 2021 (arXiv:2003.00295) with Adam's v = beta2 * v + (1 - beta2) * change^2.

    beta2 0.99 is what the paper keeps in all experiments; all other settings: `Adaptive`.
    """

    beta2: Annotated[Share, Field(description="Memory of the mean square of the changes")] = 0.99

    def second_moment(self, second: Params, square: Params) -> Params:
        return self.beta2 * second + (1 - self.beta2) * square
