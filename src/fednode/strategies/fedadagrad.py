"""FedAdagrad: Adagrad at the central node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fednode.core.params import Params
from fednode.strategies.adaptive import Adaptive, Share


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(Adaptive):
    """Algorithm 2 of Reddi et al. 2021 (arXiv:2003.00295) with Adagrad's v = v + change^2.

    beta1 is 0 as in the paper's experiments: typical Adagrad has no momentum; all other settings: `Adaptive`.
    """

    beta1: Annotated[Share, Field(description="Memory of the mean of the changes")] = 0.0

    def second_moment(self, second: Params, square: Params) -> Params:
        return second + square
