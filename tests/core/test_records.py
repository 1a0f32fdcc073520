"""Records: through JSON and back, hashed by what they mean, listed in name order."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from fednode.core.json import canonical_json, sha256_of
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import (
    Assignment,
    Failure,
    Offer,
    Outcome,
    Round,
    Run,
    RunConfig,
    Update,
    by_client_name,
    evaluations_of,
    failures_of,
    updates_of,
)
from fednode.core.status import FailureCode, RoundKind
from fednode.errors import StrategyFailed

CONFIG = RunConfig(
    task="mnist", fingerprint="mnist@1", task_config={"epochs": 2, "model": "cnn"}, strategy="fedavgm",
    strategy_config={"momentum": 0.9}, rounds=3, min_updates=2, cohort_fraction=1.0, deadline_s=600.0, seed=7,
    clients=("a", "b"), start_model="ab" * 32,
)


def failed(client: str, code: FailureCode) -> Outcome:
    return Outcome(client=client, failure=Failure(client=client, code=code, reason="it did"))


def trained(client: str) -> Outcome:
    return Outcome(client=client, update=Update(client=client, params=Params({"w": np.zeros(1)}), num_examples=1))


def test_a_config_goes_through_json_and_back():
    assert RunConfig.from_json(json.loads(canonical_json(CONFIG.to_json()))) == CONFIG


def test_an_offer_goes_through_json_and_back():
    offer = Offer(
        task="mnist", fingerprint="mnist@1", schema={"type": "object"}, metrics=(Metric(name="accuracy"),),
        supports=("proximal",), default_rounds=10, summary={"train": 600},
    )
    assert Offer.from_json(json.loads(canonical_json(offer.to_json()))) == offer


def test_equal_configs_have_equal_hashes_and_every_field_counts():
    def sha256(config: RunConfig) -> str:
        return Run(id="x", number=1, config=config, metrics=()).config_sha256

    same = replace(CONFIG, task_config={"model": "cnn", "epochs": 2.0}, deadline_s=600)
    assert sha256(same) == sha256(CONFIG)
    changes = {
        "task": "m", "fingerprint": "mnist@2", "task_config": {"epochs": 3, "model": "cnn"}, "strategy": "fedavg",
        "strategy_config": {"momentum": 0.8}, "rounds": 4, "min_updates": 1, "cohort_fraction": 0.5,
        "deadline_s": 601.0, "seed": 8, "clients": ("a",), "start_model": "",
        "best_metric": "loss", "patience": 3, "keep_every": 0, "encoding": "bf16",
    }
    assert set(changes) == set(CONFIG.__dataclass_fields__)
    assert len({sha256(CONFIG), *(sha256(replace(CONFIG, **{k: v})) for k, v in changes.items())}) == 17


def test_a_config_of_an_older_fednode_keeps_its_hash():
    """What was added since then is in the JSON only where somebody asked for it."""
    row = CONFIG.to_json()
    assert row.keys() & {"best_metric", "patience", "keep_every", "encoding"} == set()
    assert RunConfig.from_json(row) == CONFIG
    patient = replace(CONFIG, best_metric="loss", patience=3, keep_every=0, encoding="bf16")
    assert RunConfig.from_json(json.loads(canonical_json(patient.to_json()))) == patient


def test_canonical_json_by_hand():
    assert canonical_json({"b": 1.0, "a": [True, None, 0.5, -0.0, "é"]}) == '{"a":[true,null,0.5,0,"é"],"b":1}'
    assert canonical_json({"big": 1e300, "tuple": (1, 2.0)}) == '{"big":1e+300,"tuple":[1,2]}'
    # printf '[]' | sha256sum
    assert sha256_of([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_json_without_a_text_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_a_round_measures_the_model_of_the_round_before():
    round_ = Round(
        run_id="r", number=3, attempt=1, kind=RoundKind.TRAIN, cohort=(), config={}, base_model="", budget_s=1.0
    )
    assert round_.model_round == 2


@pytest.mark.parametrize("code", list(FailureCode))
def test_missing_are_those_who_were_silent(code):
    assert failed("a", code).is_missing == (code in ("deadline", "gone"))
    assert not trained("a").is_missing


def test_lists_of_outcomes_are_in_name_order_whatever_came_first():
    outcomes = [trained("c"), failed("b", FailureCode.GONE), trained("Z"), failed("a", FailureCode.REFUSED)]
    assert [update.client for update in updates_of(outcomes)] == ["Z", "c"]
    assert [failure.client for failure in failures_of(outcomes)] == ["a", "b"]
    assert [outcome.client for outcome in sorted(outcomes, key=by_client_name)] == ["Z", "a", "b", "c"]


def test_evaluations_are_of_those_who_measured():
    metrics = Metrics(values={"loss": 1.0}, num_examples={"test": 1})
    outcomes = [replace(trained("a"), evaluation=metrics), replace(failed("b", FailureCode.GONE), evaluation=metrics),
                trained("c")]
    assert evaluations_of(outcomes) == {"a": metrics, "b": metrics}


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        CONFIG.seed = 8  # type: ignore[misc]


def test_an_assignment_is_known_by_run_round_attempt_and_client():
    assignment = Assignment(run_id="r", number=2, attempt=3, client="a", kind=RoundKind.TRAIN)
    assert assignment.key == ("r", 2, 3, "a")


def test_words_of_a_stranger_hold_no_nul() -> None:
    failure = Failure(client="a", code=FailureCode.TASK_ERROR, reason="it said \0", traceback="line 1\0")
    assert (failure.reason, failure.traceback) == ("it said \\0", "line 1\\0")
    error = StrategyFailed("it raised \0", fix="mend it")
    assert (error.message, str(error)) == ("it raised \\0", "it raised \\0")
