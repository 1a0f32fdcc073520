"""Strategies by name: one schema for every form, honest about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fednode.errors import BadConfig, NotFound, TaskFailed
from fednode.strategies.fedadam import FedAdam
from fednode.strategies.fedavgm import FedAvgM
from fednode.strategies.registry import (
    STRATEGIES,
    installed_strategies,
    installed_strategy,
    load_strategy,
    own_strategy,
    strategy_schema,
)
from own_strategy import CLIPPED, installed_in, written

DEFAULTS = {
    "fedavg": {},
    "fedavgm": {"momentum": 0.9},
    "fedadam": {"server_learning_rate": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
    "fedyogi": {"server_learning_rate": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
    "fedadagrad": {"server_learning_rate": 0.03, "beta1": 0.0, "tau": 0.001},
    "fedprox": {"mu": 0.01},
    "median": {"hostile": 1},
    "trimmed_mean": {"hostile": 1},
    "multi_krum": {"hostile": 1},
    "geometric_median": {"hostile": 1},
    "centered_clipping": {"hostile": 1, "radius": 0.0, "steps": 1},
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_defaults_are_the_papers_and_the_schema_says_them(name):
    assert installed_strategy(name).complete({}) == DEFAULTS[name]
    properties = strategy_schema(name)["properties"]
    assert {field: row["default"] for field, row in properties.items()} == DEFAULTS[name]
    assert all(row["description"] for row in properties.values())
    assert strategy_schema(name)["additionalProperties"] is False


def test_a_config_is_completed_not_changed():
    assert installed_strategy("fedadam").complete({"tau": 1}) == {**DEFAULTS["fedadam"], "tau": 1.0}
    assert load_strategy("fedadam", {"tau": 1}) == FedAdam(tau=1.0)


def test_an_unknown_strategy_is_answered_with_the_list():
    with pytest.raises(NotFound, match="'fedsgd'") as error:
        load_strategy("fedsgd", {})
    assert ", ".join(STRATEGIES) in error.value.fix


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


def test_a_strategy_from_a_file_is_known_by_its_class_and_its_source(tmp_path: Path) -> None:
    here, there = written(tmp_path / "a"), written(tmp_path / "b")
    found = own_strategy(f"{here}:ClippedAvg")
    assert found.name.startswith("clippedavg#") and len(found.name) == len("clippedavg#") + 12
    assert own_strategy(str(here)) == found and own_strategy(found.kind) == found
    assert own_strategy(f"{there}:ClippedAvg").name == found.name
    assert found.complete({"limit": 2}) == {"limit": 2.0}
    with pytest.raises(BadConfig, match="limit"):
        found.bind({"limit": 0})


def test_a_strategy_of_another_package_is_installed_under_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed_in(tmp_path / "site"))
    assert installed_strategies() == [*STRATEGIES, "clipped"]
    found = installed_strategy("clipped")
    assert (found.name, found.complete({})) == ("clipped", {"limit": 1.0})
    assert own_strategy("clipped") == own_strategy(found.kind) == found
    assert strategy_schema("clipped")["properties"]["limit"]["description"] == "No param moves by more"


def test_a_class_of_the_house_keeps_its_name() -> None:
    assert own_strategy(FedAvgM) == own_strategy("fedavgm") == installed_strategy("fedavgm")


def test_a_central_node_takes_no_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    for load in (installed_strategy, strategy_schema, lambda name: load_strategy(name, {})):
        with pytest.raises(BadConfig, match="takes no code") as error:
            load(f"{path}:ClippedAvg")
        assert "fednode.strategies" in error.value.fix and "fednode simulate" in error.value.fix


@pytest.mark.parametrize(
    ("text", "spec", "error", "told"),
    [
        (CLIPPED, "other.py:ClippedAvg", NotFound, "strategy file .*other.py cannot be read: No such file"),
        (CLIPPED, "my_strategy.py:Clipped", NotFound, "has no strategy 'Clipped'"),
        ("x = 1", "my_strategy.py", NotFound, "there is no strategy in "),
        (CLIPPED, "fedavgg", NotFound, "no installed strategy is called 'fedavgg'"),
        ("import no_such_module_xyz", "my_strategy.py", NotFound, "strategy .* needs no_such_module_xyz"),
        ("1 / 0", "my_strategy.py", TaskFailed, "strategy .* cannot be imported: ZeroDivisionError"),
        (CLIPPED.replace("def aggregate", "def agregate"), "my_strategy.py", NotFound, "does not define aggregate"),
        (CLIPPED.replace("@dataclass(frozen=True, kw_only=True)", ""), "my_strategy.py", NotFound, "its limit"),
        (CLIPPED.replace("(Strategy)", ""), "my_strategy.py:ClippedAvg", NotFound, "has no strategy 'ClippedAvg'"),
    ],
)
def test_what_cannot_be_loaded_is_said_honestly(
    tmp_path: Path, text: str, spec: str, error: type[Exception], told: str
) -> None:
    written(tmp_path, text)
    with pytest.raises(error, match=told):
        own_strategy(str(tmp_path / spec) if ".py" in spec else spec)
