"""How much of a fault matrix is tried: a sample in `make test`, all of it in `make torture`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

IS_FULL = os.environ.get("FEDNODE_TORTURE", "") == "full"


def pick(short: T, full: T) -> T:
    """The amount of work: in `make test`, in `make torture`."""
    return full if IS_FULL else short


def sample(every: Sequence[T], num: int) -> list[T]:
    """All of a matrix in `make torture`; in `make test` the same `num` of it each time, spread over it evenly."""
    if IS_FULL or num >= len(every):
        return list(every)
    return [every[round(k * (len(every) - 1) / max(1, num - 1))] for k in range(num)]
