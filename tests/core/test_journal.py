"""The journal: the same decisions give the same chain, and no row can be changed unseen."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from fednode.core import journal
from fednode.core.journal import GENESIS, JournalRow, check_chain, next_row
from fednode.core.json import JsonObject
from fednode.core.params import Params
from fednode.core.records import Failure, Outcome, Round, Run, RunConfig, Update
from fednode.core.status import FailureCode, RoundKind
from fednode.errors import StoreDamaged

CONFIG = RunConfig(
    task="t", fingerprint="t@1", task_config={}, strategy="fedavg", strategy_config={}, rounds=1, min_updates=1,
    cohort_fraction=1.0, deadline_s=600.0, seed=7,
)
ROUND = Round(
    run_id="run_1", number=1, attempt=2, kind=RoundKind.TRAIN, cohort=("a", "b", "c"), config={}, base_model="ab" * 32,
    budget_s=600.0,
)
OUTCOMES = (
    Outcome(client="a", update=Update(client="a", params=Params({"w": np.zeros(1)}), num_examples=5)),
    Outcome(client="b", failure=Failure(client="b", code=FailureCode.GONE, reason="unheard of for 60 s")),
    Outcome(client="c"),
)


def chain(*entries: JsonObject) -> list[JournalRow]:
    rows: list[JournalRow] = []
    for entry in entries:
        rows.append(next_row(rows[-1] if rows else None, entry))
    return rows


ROWS = chain(
    journal.created(Run(id="run_1", number=1, config=CONFIG, metrics=())), journal.round_opened(ROUND),
    journal.round_closed(ROUND, OUTCOMES), journal.model_committed(ROUND, "cd" * 32), journal.run_ended("completed"),
)


def test_a_hash_covers_the_row_and_the_hash_before_it():
    first, second = chain({"what": "x"}, {"b": 1, "a": [2]})
    assert (first.seq, first.hash) == (1, hashlib.sha256((GENESIS + '{"what":"x"}').encode()).hexdigest())
    assert (second.seq, second.hash) == (2, hashlib.sha256((first.hash + '{"a":[2],"b":1}').encode()).hexdigest())


def test_an_untouched_chain_is_sound():
    check_chain(ROWS)
    check_chain([])


@pytest.mark.parametrize("index", range(len(ROWS)))
def test_a_changed_row_is_found(index):
    changed = replace(ROWS[index], entry={**ROWS[index].entry, "what": "something else"})
    with pytest.raises(StoreDamaged, match=f"row {index + 1} "):
        check_chain([*ROWS[:index], changed, *ROWS[index + 1 :]])


@pytest.mark.parametrize("index", range(len(ROWS) - 1))
def test_a_changed_row_with_its_hash_made_anew_is_found_at_the_next(index):
    forged = next_row(ROWS[index - 1] if index else None, {"what": "something else"})
    with pytest.raises(StoreDamaged, match=f"row {index + 2} "):
        check_chain([*ROWS[:index], forged, *ROWS[index + 1 :]])


def test_a_missing_row_and_two_swapped_rows_are_found():
    with pytest.raises(StoreDamaged, match="row 3 "):
        check_chain([ROWS[0], *ROWS[2:]])
    with pytest.raises(StoreDamaged, match="row 2 "):
        check_chain(ROWS[1:])
    with pytest.raises(StoreDamaged, match="row 3 "):
        check_chain([ROWS[0], ROWS[2], ROWS[1]])


def test_entries_hold_decisions_and_nothing_that_differs_between_two_equal_runs():
    assert [row.entry for row in ROWS] == [
        {"what": "created", "config_sha256": Run(id="x", number=9, config=CONFIG, metrics=()).config_sha256, "seed": 7},
        {"what": "round opened", "round": 1, "attempt": 2, "kind": "train", "cohort": ["a", "b", "c"],
         "base_model": "ab" * 32},
        {"what": "round closed", "round": 1, "attempt": 2, "outcomes": [["a", 5], ["b", "gone"], ["c", None]]},
        {"what": "model committed", "round": 1, "model_sha256": "cd" * 32},
        {"what": "ended", "status": "completed"},
    ]


def test_the_order_of_arrival_does_not_enter():
    assert journal.round_closed(ROUND, OUTCOMES[::-1]) == journal.round_closed(ROUND, OUTCOMES)
