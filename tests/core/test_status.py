"""Statuses: the legal moves, all others refused, and no word that means two things."""

from __future__ import annotations

import itertools

import pytest

from fednode.core.status import MOVES, AssignmentStatus, RoundStatus, RunStatus, is_final, move
from fednode.errors import IllegalMove

LEGAL = {
    RunStatus: {
        "queued running", "queued paused", "queued cancelled", "queued failed",
        "running paused", "running completed", "running failed", "running cancelled",
        "paused queued", "paused cancelled",
    },
    RoundStatus: {"open closed", "open committed", "open abandoned", "closed committed", "closed abandoned"},
    AssignmentStatus: {
        "waiting leased", "waiting reported", "waiting failed", "waiting withdrawn",
        "leased reported", "leased failed", "leased withdrawn", "withdrawn waiting", "withdrawn failed",
    },
}
PAIRS = [pair for kind in LEGAL for pair in itertools.product(kind, kind)]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_move_is_legal_or_refused_with_what_is(old, new):
    if f"{old} {new}" in LEGAL[type(old)]:
        assert move("it", old, new) is new
        return
    with pytest.raises(IllegalMove, match=f"it is {old} and cannot become {new}"):
        move("it", old, new)


def test_final_are_those_that_cannot_move():
    assert {str(status) for status in MOVES if is_final(status)} == {
        "completed", "failed", "cancelled", "committed", "abandoned", "reported"
    }


def test_the_fix_says_what_is_possible():
    with pytest.raises(IllegalMove) as error:
        move("run #3", RunStatus.PAUSED, RunStatus.COMPLETED)
    assert error.value.fix == "from paused it can become: cancelled, queued"


def test_a_word_that_two_kinds_share_moves_alike():
    """A StrEnum equals its text, so `failed` of a run and of an assignment are one key of MOVES."""
    for status in (*RunStatus, *RoundStatus, *AssignmentStatus):
        targets = {str(new) for new in MOVES[status]}
        assert targets == {pair.split()[1] for pair in LEGAL[type(status)] if pair.split()[0] == status}
