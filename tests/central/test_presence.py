"""Who is there, who is gone and who is about to go, as the run loop asks it."""

from __future__ import annotations

import pytest

from fednode.central.presence import Member, Presence
from fednode.clock import HandClock

PAUSED = "sharing paused by its owner"


@pytest.fixture
def presence() -> Presence:
    found = Presence(HandClock())
    found.enrol(Member(name="a"))
    found.heard("a")
    return found


def test_a_reason_to_leave_is_told_until_the_client_is_heard_of_again(presence: Presence) -> None:
    presence.leave("a", PAUSED)
    assert presence.is_gone("a")
    assert presence.farewell("a") == presence.why_gone("a") == PAUSED
    assert presence.gone_since("a") == f"a: {PAUSED}"
    presence.heard("a")
    assert presence.is_there("a")
    assert presence.farewell("a") == ""


def test_who_left_without_a_reason_was_stopped(presence: Presence) -> None:
    presence.leave("a")
    assert presence.why_gone("a") == "was stopped"
    assert presence.gone_since("a").startswith("a gone since ")


def test_who_finishes_is_awaited_for_that_and_selected_no_more(presence: Presence) -> None:
    presence.finish("a")
    presence.heard("a")                 # it renews its lease meanwhile
    assert not presence.is_there("a")
    assert not presence.is_gone("a")
    assert presence.is_heard("a")
    presence.wants_work("a")
    assert presence.is_there("a")
