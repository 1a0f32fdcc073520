"""The scene of the strategies' tests: updates of one or two numbers, and a round as the loop plays it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fednode.core.aggregation import Updates
from fednode.core.params import Array, Params, require_finite
from fednode.core.records import State, Update
from fednode.strategies.base import Strategy


def params(dtype: str = "float32", **tensors: object) -> Params:
    return Params({name: np.array(values, dtype) for name, values in tensors.items()})


def update(client: str, tensors: Params, num_examples: int = 1) -> Update:
    return Update(client=client, params=tensors, num_examples=num_examples)


def played(strategy: Strategy, state: State, updates: Sequence[Update], cohort: Sequence[str] = ()) -> State:
    """The next state, cast to the model's dtypes as `rounds` does it."""
    manifest = state.params.manifest
    names = cohort or [u.client for u in updates]
    following = strategy.aggregate(state, Updates(names, updates, manifest))
    require_finite(following.params)
    return replace(following, params=following.params.cast(manifest))


def path(strategy: Strategy, *means: object, start: object = 0.0) -> list[list[float]]:
    """The params after each round, where the updates' mean in round i is `means[i]`."""
    state, found = State(params=params(w=np.atleast_1d(start))), []
    for mean in means:
        # Two updates around the mean, so that a strategy which looked at one of them would show.
        around = [update("a", params(w=np.atleast_1d(mean) + 1)), update("b", params(w=np.atleast_1d(mean) - 1))]
        state = played(strategy, state, around)
        found.append(state.params["w"].tolist())
    return found


def bits(tensors: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in tensors.items()}
