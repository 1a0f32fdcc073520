"""How flags are read, before anything is asked of anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from fednode.cli.options import duration_s, parse_sets, split_names
from fednode.cli.request import run_request
from fednode.core.units import seconds_text, size_text
from fednode.errors import BadConfig


@pytest.mark.parametrize(("text", "seconds"), [("600", 600), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86400)])
def test_a_duration_takes_seconds_or_a_unit(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "ten", "10 minutes", "5w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no duration"):
        duration_s(text)


def test_sets_are_json_where_they_are_json_and_text_elsewhere() -> None:
    found = parse_sets(["task.model=cnn", "task.epochs=3", "strategy.momentum=0.9", "task.flag=true", "task.x=a=b"])
    assert found == {
        "task": {"model": "cnn", "epochs": 3, "flag": True, "x": "a=b"}, "strategy": {"momentum": 0.9},
    }


@pytest.mark.parametrize("pair", ["model=cnn", "task.model", "task.=1", "round.x=1", ""])
def test_a_set_of_another_form_is_refused_with_an_example(pair: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_sets([pair])
    assert "task.model=cnn" in caught.value.fix


def test_names_are_split_at_commas() -> None:
    assert split_names("a, b,,c") == ["a", "b", "c"]
    assert split_names(None) == []


def test_flags_win_over_the_file_and_sets_over_short_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('task = "mnist"\nrounds = 9\nepochs = 4\ndeadline = "10m"\n[set.task]\nmodel = "cnn"\n')
    request = run_request(None, file, ["task.epochs=7"], rounds=3, epochs=5, batch_size=None)
    assert (request.task, request.rounds, request.deadline_s) == ("mnist", 3, 600.0)
    assert request.task_config == {"model": "cnn", "epochs": 7}


def test_an_unknown_key_in_the_file_is_named_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('task = "mnist"\nround = 9\n')
    with pytest.raises(BadConfig, match="unknown key 'round'") as caught:
        run_request(None, file, None)
    assert "rounds" in caught.value.fix


@pytest.mark.parametrize(("flags", "named"), [({"rounds": 0}, "rounds"), ({"cohort_fraction": 1.5}, "cohort-fraction")])
def test_a_value_out_of_range_is_named_by_its_flag(flags: dict[str, float], named: str) -> None:
    with pytest.raises(BadConfig) as caught:
        run_request("mnist", None, None, **flags)
    assert named in caught.value.fix


def test_no_task_is_said() -> None:
    with pytest.raises(BadConfig, match="no task was named"):
        run_request(None, None, None)


def test_sizes_and_times_read_well() -> None:
    sizes = {999: "999 B", 1500: "1.5 kB", 2_500_000: "2.5 MB", 3e9: "3.0 GB"}
    assert {size: size_text(size) for size in sizes} == sizes
    assert [seconds_text(1.24), seconds_text(75.2), seconds_text(3725)] == ["1.2 s", "1m 15s", "1h 02m"]
