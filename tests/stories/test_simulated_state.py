"""What stays at simulated clients between rounds: as at real ones, and the same with any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fednode

DIARY = f"{Path(__file__).with_name('diary_task.py')}:Diary"


def diary(**settings: Any) -> fednode.Simulation:
    return fednode.simulate(DIARY, **{"rounds": 3, "clients": 2, "seed": 7} | settings)


def test_a_visit_finds_what_the_last_one_left() -> None:
    run = diary()
    assert [scores["sum"] for scores in run.history] == [0, 1, 3, 6]       # of rounds 1, then 1 + 2, then 1 + 2 + 3


def test_one_worker_and_two_give_the_same_bits() -> None:
    alone, together = diary(clients=3), diary(clients=3, workers=2)
    assert (alone.journal, alone.history) == (together.journal, together.history)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_visit_left_that_failed_is_gone(workers: int) -> None:
    run = diary(task_config={"fails_in": 2}, min_updates=1, workers=workers)
    # client-2 alone makes model 2; client-1 has 1, then 1 + 3.
    assert [scores["sum"] for scores in run.history] == [0, 1, (1 + 3) / 2, (4 + 6) / 2]


def test_it_lies_in_the_state_dir_that_was_named(tmp_path: Path) -> None:
    run = diary(state_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["client-1", "client-2"]
    kept = tmp_path / "client-2" / "state" / run.run_id
    assert sorted(path.name for path in kept.iterdir()) == ["2", "3"]       # and not 4, which trained nothing
    assert (kept / "3" / "notes" / "diary").read_text() == "1 2 3 "


def test_a_client_that_is_not_asked_in_a_round_finds_its_own_last_state(tmp_path: Path) -> None:
    run = diary(clients=4, rounds=6, cohort_fraction=0.5, state_dir=tmp_path)
    cohorts = {row.entry["round"]: row.entry["cohort"] for row in run.journal if row.entry["what"] == "round opened"}
    for client in ("client-1", "client-2", "client-3", "client-4"):
        asked = [number for number in range(1, 7) if client in cohorts[number]]
        kept = tmp_path / client / "state" / run.run_id / str(asked[-1])
        assert (kept / "notes" / "diary").read_text().split() == [str(number) for number in asked]
