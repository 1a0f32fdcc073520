"""How a request becomes a complete config: defaults filled in, and every refusal names its field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from central_scene import offer

from fednode.core.records import Offer, RunConfig
from fednode.errors import BadConfig, NotFound
from fednode.run_config import check_offer, complete_config, complete_task_config
from fednode.wire.messages import RunRequest


def completed(the_offer: Offer | None = None, *, roster_size: int = 3, **request: Any) -> RunConfig:
    return complete_config(RunRequest(task="toy", **request), the_offer or offer(), roster_size, seed=11)


def test_what_is_left_out_comes_from_the_offer_and_the_strategy() -> None:
    config = completed()
    assert config.task_config == {"epochs": 1, "learning_rate": 0.5, "model": "linear"}
    assert (config.rounds, config.min_updates, config.seed) == (2, 2, 11)
    assert (config.strategy, config.fingerprint, config.clients) == ("fedavg", "toy@1", ())


def test_what_is_asked_for_stands() -> None:
    config = completed(
        rounds=9, seed=0, min_updates=3, clients=["b", "a", "c"], strategy="fedavgm", strategy_config={"momentum": 0.5},
        task_config={"epochs": 4}, cohort_fraction=0.5, deadline_s=5.0,
    )
    assert (config.rounds, config.seed, config.min_updates, config.clients) == (9, 0, 3, ("a", "b", "c"))
    assert config.strategy_config["momentum"] == 0.5
    assert config.task_config["epochs"] == 4
    assert (config.cohort_fraction, config.deadline_s) == (0.5, 5.0)


@pytest.mark.parametrize(("roster_size", "min_updates"), [(1, 1), (2, 2), (40, 2)])
def test_two_updates_make_a_round_where_two_clients_are_there(roster_size: int, min_updates: int) -> None:
    assert completed(roster_size=roster_size).min_updates == min_updates


def test_equal_numbers_give_equal_configs_however_they_are_written() -> None:
    assert completed(task_config={"learning_rate": 1}) == completed(task_config={"learning_rate": 1.0})
    written = completed(task_config={"epochs": 3.0}).task_config["epochs"]
    assert isinstance(written, int)


@pytest.mark.parametrize(
    ("values", "named", "fix"),
    [
        ({"model": "rnn"}, "task.model = 'rnn'", "one of: linear, cnn"),
        ({"epochs": 0}, "task.epochs = 0", "1 or more"),
        ({"epochs": 1.5}, "task.epochs = 1.5", "a value of type integer"),
        ({"epochs": True}, "task.epochs = True", "a value of type integer"),
        ({"learning_rate": 0}, "task.learning_rate = 0", "more than 0"),
        ({"learning_rate": math.inf}, "task.learning_rate: inf", "a finite number"),
        ({"epoch": 2}, "no setting 'epoch'", "did you mean 'epochs'?"),
        ({"proximal_mu": 1}, "no setting 'proximal_mu'", "its settings: epochs, learning_rate, model"),
    ],
)
def test_a_bad_setting_is_refused_by_name_with_what_may_stand_there(
    values: dict[str, Any], named: str, fix: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        complete_task_config(values, offer())
    assert named in caught.value.message
    assert fix in caught.value.fix


def test_a_setting_without_a_default_must_be_given() -> None:
    schema = {"type": "object", "properties": {"classes": {"type": "integer"}}, "required": ["classes"]}
    with pytest.raises(BadConfig, match=r"task\.classes is missing"):
        completed(offer(schema=schema))


def test_a_fixed_roster_must_be_able_to_bring_the_updates() -> None:
    with pytest.raises(BadConfig, match="min_updates = 3, but the run has only 2 clients: a, b"):
        completed(clients=["a", "b"], min_updates=3)


def test_a_strategy_that_the_task_does_not_support_is_refused() -> None:
    with pytest.raises(BadConfig, match="needs a task that supports 'proximal'"):
        completed(strategy="fedprox")
    assert completed(offer(supports=("proximal",)), strategy="fedprox").strategy == "fedprox"


def test_an_unknown_strategy_and_a_bad_field_of_a_known_one_are_named() -> None:
    with pytest.raises(NotFound, match="fedavgg"):
        completed(strategy="fedavgg")
    with pytest.raises(BadConfig, match="momentum"):
        completed(strategy="fedavgm", strategy_config={"momentum": "much"})
    with pytest.raises(BadConfig, match=r"strategy\.momentum"):
        completed(strategy="fedavgm", strategy_config={"momentum": math.nan})


def test_a_schema_reference_is_never_fetched() -> None:
    schema = {"properties": {"epochs": {"$ref": "http://127.0.0.1:1/schema"}}}
    with pytest.raises(BadConfig, match="cannot be used"):
        complete_task_config({"epochs": 1}, offer(schema=schema))


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"properties": {"epochs": 3}}, {"properties": []}])
def test_an_offer_with_a_broken_schema_is_refused_when_it_is_made(schema: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match="toy"):
        check_offer(offer(schema=schema))


@pytest.mark.parametrize("field", [
    {"type": "string", "pattern": "^(a+)+$"},
    {"type": "array", "items": {"type": "string", "pattern": "^(a+)+$"}},
    {"anyOf": [{"type": "null"}, {"type": "object", "patternProperties": {"^(a+)+$": {}}}]},
    {"type": "object", "properties": {"pattern": {"pattern": "^(a+)+$"}}},
])
def test_no_regular_expression_of_a_stranger_is_matched_here(field: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match="regular expression"):
        check_offer(offer(schema={"type": "object", "properties": {"name": field}}))


def test_a_field_may_be_called_pattern() -> None:
    fields = {"pattern": {"type": "string", "default": "stripes"}, "size": {"default": {"pattern": "x"}}}
    check_offer(offer(schema={"type": "object", "properties": fields}))


def test_a_robust_strategy_asks_for_the_updates_that_it_takes():
    assert completed(strategy="multi_krum", strategy_config={"hostile": 2}, roster_size=9).min_updates == 7
    with pytest.raises(BadConfig, match="needs 5 updates or more") as error:
        completed(strategy="median", strategy_config={"hostile": 2}, min_updates=4)
    assert error.value.field == "min_updates"
    with pytest.raises(BadConfig, match="only 3 clients"):
        completed(strategy="median", strategy_config={"hostile": 2}, clients=["a", "b", "c"])
