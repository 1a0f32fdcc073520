"""Strategies by name: one schema for every form, honest about what is wrong."""

from __future__ import annotations

import pytest

from fednode.errors import BadConfig, NotFound
from fednode.strategies.fedadam import FedAdam
from fednode.strategies.registry import STRATEGIES, load_strategy, strategy_defaults, strategy_schema

DEFAULTS = {
    "fedavg": {},
    "fedavgm": {"momentum": 0.9},
    "fedadam": {"server_learning_rate": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
    "fedyogi": {"server_learning_rate": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
    "fedadagrad": {"server_learning_rate": 0.03, "beta1": 0.0, "tau": 0.001},
    "fedprox": {"mu": 0.01},
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_defaults_are_the_papers_and_the_schema_says_them(name):
    assert strategy_defaults(name, {}) == DEFAULTS[name]
    properties = strategy_schema(name)["properties"]
    assert {field: row["default"] for field, row in properties.items()} == DEFAULTS[name]
    assert all(row["description"] for row in properties.values())
    assert strategy_schema(name)["additionalProperties"] is False


def test_a_config_is_completed_not_changed():
    assert strategy_defaults("fedadam", {"tau": 1}) == {**DEFAULTS["fedadam"], "tau": 1.0}
    assert load_strategy("fedadam", {"tau": 1}) == FedAdam(tau=1.0)


def test_an_unknown_strategy_is_answered_with_the_list():
    with pytest.raises(NotFound, match="'fedsgd'") as error:
        load_strategy("fedsgd", {})
    assert "fedavg, fedavgm, fedadam, fedyogi, fedadagrad, fedprox" in error.value.fix


@pytest.mark.parametrize(
    ("name", "config", "field"),
    [("fedavgm", {"momentum": 1.0}, "momentum"), ("fedavgm", {"momentum": "much"}, "momentum"),
     ("fedavgm", {"beta": 0.9}, "beta"), ("fedadam", {"tau": 0}, "tau"), ("fedyogi", {"beta2": -0.1}, "beta2"),
     ("fedprox", {"mu": float("inf")}, "mu"), ("fedprox", {"requires": []}, "requires"),
     ("fedadagrad", {"server_learning_rate": float("nan")}, "server_learning_rate"), ("fedavg", {"mu": 1}, "mu")],
)
def test_a_wrong_setting_is_named(name, config, field):
    with pytest.raises(BadConfig, match=field):
        load_strategy(name, config)
