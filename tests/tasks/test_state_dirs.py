"""What stays at a client between rounds: a visit finds what the last reported one left, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fednode.errors import TaskFailed
from fednode.tasks.base import Site, Visit
from fednode.tasks.state_dirs import StateDir, StateDirs

RUN = "run_1"


class Client:
    """Visits of one client, each of which adds its round to a file."""

    def __init__(self, folder: Path) -> None:
        self.kept = StateDirs(folder / "state")
        self.left = folder / "left"

    def visit(self, number: int, run: str = RUN) -> str:
        """Begin one; what it finds."""
        if self.left.exists():
            (self.left / "notes").unlink()
            self.left.rmdir()
        notes = StateDir(folder=self.left, before=self.kept.before(run, number)).open() / "notes"
        found = notes.read_text() if notes.exists() else ""
        notes.write_text(f"{found}{number} ")
        return found

    def reported(self, number: int, run: str = RUN) -> None:
        self.kept.keep(run, number, self.left)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def test_a_visit_finds_what_the_last_reported_one_left(client: Client) -> None:
    assert client.visit(1) == ""
    client.reported(1)
    assert client.visit(2) == "1 "
    client.reported(2)
    assert client.visit(5) == "1 2 "            # it was not asked in rounds 3 and 4


def test_a_visit_that_is_repeated_begins_where_the_first_one_began(client: Client) -> None:
    client.visit(1)
    client.reported(1)
    for _ in range(2):                          # killed in the middle, or its round had another attempt
        assert client.visit(2) == "1 "
    client.reported(2)
    assert client.visit(2) == "1 "              # even where it was reported
    client.reported(2)
    assert client.visit(3) == "1 2 "


def test_what_a_visit_left_that_was_not_reported_is_nowhere(client: Client) -> None:
    client.visit(1)
    client.reported(1)
    client.visit(2)
    assert client.visit(3) == "1 "


def test_a_word_of_the_report_that_comes_twice_changes_nothing(client: Client) -> None:
    client.visit(1)
    client.reported(1)
    client.reported(1)
    assert client.visit(2) == "1 "


def test_a_round_behind_the_one_that_is_kept_was_never_committed(client: Client) -> None:
    for number in (1, 2, 3):                    # then the central node is restored to what it was after round 1
        client.visit(number)
        client.reported(number)
    assert client.visit(3) == "1 2 "
    client.visit(2)
    client.reported(2)
    assert client.visit(9) == "2 "              # round 1 is too long ago to be kept: 2 began anew


def test_two_rounds_are_kept(client: Client, tmp_path: Path) -> None:
    for number in range(1, 6):
        client.visit(number)
        client.reported(number)
    assert sorted(path.name for path in (tmp_path / "state" / RUN).iterdir()) == ["4", "5"]


def test_runs_know_nothing_of_each_other_and_those_that_ended_are_swept(client: Client) -> None:
    client.visit(1)
    client.reported(1)
    assert client.visit(1, "run_2") == ""
    client.reported(1, "run_2")
    client.kept.sweep(["run_2", "run_3"])
    assert (client.visit(2), client.visit(2, "run_2")) == ("", "1 ")


def test_a_visit_that_never_asks_makes_no_folder(client: Client, tmp_path: Path) -> None:
    state = StateDir(folder=client.left)
    Visit(site=Site(client="a"), config=None, seed=1, client_seed=1, round=1, state=state)
    client.reported(1)
    assert list(tmp_path.iterdir()) == []


def test_a_visit_made_by_hand_says_what_it_lacks() -> None:
    with pytest.raises(TaskFailed, match="no state dir"):
        Visit(site=Site(client="a"), config=None, seed=1, client_seed=1, round=1).state_dir  # noqa: B018
