"""CSV: one line a row, numbers that read back the same, nothing that a spreadsheet runs."""

from __future__ import annotations

import csv
import io
import math
import os

import pytest

from fednode.core.csv_text import csv_lines


def read_back(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_numbers_read_back_the_same_and_nothing_is_an_empty_cell() -> None:
    numbers = [0.1 + 0.2, -1e-300, math.inf, -math.inf, 2**53, None]
    text = csv_lines([numbers])
    assert text == "0.30000000000000004,-1e-300,inf,-inf,9007199254740992,\n"
    assert [float(cell) for cell in read_back(text)[0][:-1]] == numbers[:-1]


@pytest.mark.parametrize("name", ['=cmd|"/C calc"!A1', "+1", "-2+3", "@SUM(A1)"])
def test_a_text_that_a_spreadsheet_would_run_is_a_text(name: str) -> None:
    assert read_back(csv_lines([[name, 1]])) == [[f"'{name}", "1"]]


@pytest.mark.parametrize(("name", "told"), [
    ("a,b", "a,b"), ('a "b"', 'a "b"'), ("first\nsecond", r"first\nsecond"), ("\t=1", r"\t=1"),
    ("röntgen", "röntgen"), (os.fsdecode(b"r\xf6ntgen"), r"r\xf6ntgen"),
])
def test_a_row_is_one_line_whatever_its_cells_say(name: str, told: str) -> None:
    text = csv_lines([[name, "x"]])
    assert text.count("\n") == 1
    assert text.encode()
    assert read_back(text) == [[told, "x"]]
