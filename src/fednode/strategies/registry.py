"""The strategies by name, and their settings as one schema for forms, `--set`, the API and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

from fednode.core.json import JsonObject
from fednode.errors import NotFound
from fednode.strategies.base import Strategy
from fednode.strategies.fedadagrad import FedAdagrad
from fednode.strategies.fedadam import FedAdam
from fednode.strategies.fedavg import FedAvg
from fednode.strategies.fedavgm import FedAvgM
from fednode.strategies.fedprox import FedProx
from fednode.strategies.fedyogi import FedYogi
from fednode.tasks.base import config_schema, parse_config

STRATEGIES: Mapping[str, type[Strategy]] = {
    "fedavg": FedAvg, "fedavgm": FedAvgM, "fedadam": FedAdam, "fedyogi": FedYogi, "fedadagrad": FedAdagrad,
    "fedprox": FedProx,
}


def load_strategy(name: str, config: JsonObject) -> Strategy:
    """The strategy `name` with the settings `config`, defaults filled in.

    Raises NotFound, with the list of strategies, or BadConfig, with the field that is wrong.
    """
    return cast(Strategy, parse_config(_kind(name), config))


def strategy_schema(name: str) -> JsonObject:
    """JSON schema of the settings, with their defaults. Raises NotFound."""
    return config_schema(_kind(name))


def strategy_defaults(name: str, config: JsonObject) -> JsonObject:
    """`config` with everything that it leaves out, as a run keeps it. Raises as `load_strategy` does."""
    return asdict(load_strategy(name, config))


def _kind(name: str) -> type[Strategy]:
    if name not in STRATEGIES:
        raise NotFound(f"no strategy is called {name!r}", fix=f"take one of: {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
