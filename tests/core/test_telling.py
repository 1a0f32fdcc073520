"""Events and decisions in words."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from fednode.core.telling import KINDS, decision, names_text, scores_text, sentence

ROUND = {"round": 3, "attempt": 1}
GONE = {"client": "b", "code": "gone", "reason": "unheard of for 60 s", "traceback": ""}


@pytest.mark.parametrize(("what", "fields", "told"), [
    ("run created", {"number": 7, "task": "mnist", "strategy": "fedavg"}, "Run #7 was asked for: mnist by fedavg"),
    ("run paused", {"from": "running", "reason": ""}, "The run is paused: by a person"),
    ("run ended", {"status": "failed", "reason": "no model"}, "The run failed: no model"),
    ("run ended", {"status": "cancelled", "reason": ""}, "The run was cancelled"),
    (
        "run deleted", {"number": 7, "task": "mnist", "num_models": 3, "num_rows": 1200},
        "Run #7 of mnist was deleted, with 3 models and 1,200 rows",
    ),
    ("round opened", {**ROUND, "kind": "train", "cohort": ["a", "b"]}, "Round 3 began: training by a and b"),
    (
        "round closed", {**ROUND, "kind": "train", "num_updates": 1, "num_clients": 2, "failures": [GONE]},
        "Round 3 closed with 1 of 2 updates (b: gone: unheard of for 60 s)",
    ),
    (
        "round closed", {**ROUND, "kind": "evaluate", "num_updates": 0, "num_clients": 2, "failures": [GONE]},
        "Round 3 closed with scores of 1 of 2 clients (b: gone: unheard of for 60 s)",
    ),
    (
        "round committed",
        {
            **ROUND, "kind": "train", "num_updates": 2, "num_clients": 2, "failures": [], "model_round": 2,
            "metrics": {"accuracy": 0.5, "roc": [[0, 1]]},
        },
        "Round 3 made a model of 2 of 2 updates; the model of round 2 scored accuracy 0.5000",
    ),
    ("round abandoned", {"round": 3, "attempt": 2, "reason": "1 of 2"}, "Round 3: attempt 2 made no model: 1 of 2"),
    (
        "update received", {**ROUND, "client": "a", "num_bytes": 1500, "num_examples": 2000},
        "a sent its update of round 3 (2,000 examples, 1.5 kB)",
    ),
    ("late", {**ROUND, "client": "a", "status": "committed"}, "a reported to round 3 too late"),
    ("client gone", {"clients": ["a", "b"], "reason": "was stopped"}, "a and b are gone: was stopped"),
    ("client back", {"clients": ["a"], "away_s": 75.0}, "a came back after 1m 15s"),
    ("client back", {"clients": ["a", "b"], "away_s": 75.0}, "a and b came back"),
    ("something newer", {"client": "a"}, "something newer"),
])
def test_an_event_is_one_sentence(what: str, fields: dict[str, Any], told: str) -> None:
    assert sentence(what, fields) == told


def test_many_names_are_counted_after_the_first() -> None:
    assert names_text(["a"]) == "a"
    assert names_text(["a", "b", "c"]) == "a, b and c"
    assert names_text([str(number) for number in range(20)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 12 more"


def test_scores_leave_out_what_is_no_number() -> None:
    assert scores_text({"accuracy": 0.25, "roc": [[0, 0]], "loss": 1}) == "accuracy 0.2500, loss 1.0000"
    assert scores_text({"accuracy": None}) == ""


@pytest.mark.parametrize(("entry", "told"), [
    ({"what": "created", "seed": 7}, "The run was asked for, with seed 7"),
    ({"what": "round opened", **ROUND, "attempt": 2, "kind": "init", "cohort": ["a"]},
     "Round 3, attempt 2 began: the initial params by a"),
    ({"what": "round closed", **ROUND, "outcomes": [["a", 1000], ["b", "gone"], ["c", None]]},
     "Round 3 closed: a brought 1,000 examples, b failed (gone), c measured"),
    ({"what": "model committed", "round": 3, "model_sha256": "0123456789abcdef"},
     "Round 3 ended with the model 0123456789ab"),
    ({"what": "ended", "status": "completed"}, "The run ended: completed"),
])
def test_a_decision_is_one_sentence(entry: dict[str, Any], told: str) -> None:
    assert decision(entry) == told


def test_no_kind_of_event_is_empty_and_each_has_words() -> None:
    assert all(KINDS.values())
    told = defaultdict(lambda: "x", {"failures": [], "metrics": {}, "values": {}, "cohort": ["a"], "clients": ["a"]})
    numbers = dict.fromkeys(("attempt", "num_clients", "num_updates", "num_examples", "num_bytes", "away_s"), 1)
    told |= numbers | {"model_round": 1, "kind": "train", "num_models": 1, "num_rows": 2}
    for what in {what for whats in KINDS.values() for what in whats}:
        assert sentence(what, told) not in ("", what)
