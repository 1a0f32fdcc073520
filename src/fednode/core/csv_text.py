"""CSV as we write it: one line a row whatever a cell says, and nothing in it that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from fednode.core.data_report import printable

FORMULA = ("=", "+", "-", "@")      # a spreadsheet runs a text that begins so

Cell = str | int | float | None


def csv_lines(rows: Iterable[Sequence[Cell]]) -> str:
    """The rows, each ended by one line feed; None is an empty cell, floats are written so that they read back the same.

    A text that begins like a formula has an apostrophe before it; what cannot be printed, and bytes that are no UTF-8,
    are written as escapes.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def _harmless(cell: Cell) -> Cell:
    """Numbers are numbers: a minus before them runs nothing."""
    if not isinstance(cell, str):
        return cell
    told = printable(cell.encode(errors="surrogateescape").decode(errors="backslashreplace"))
    return f"'{told}" if told.startswith(FORMULA) else told
