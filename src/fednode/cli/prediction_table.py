"""What `fednode predict` writes: a row a file, as CSV or JSON, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fednode.cli.table_file import Format, Sink
from fednode.core.csv_text import csv_lines
from fednode.errors import UsageError

DIGITS = 6                      # of a probability: what differs from machine to machine lies behind them


class PredictionTable:
    """File, most probable class, probabilities; of two classes, with a threshold, the verdict at it."""

    def __init__(self, classes: Sequence[str], threshold: float | None, kind: Format, write: Sink) -> None:
        """Writes what comes before the first row. Raises UsageError where a threshold decides nothing."""
        if threshold is not None and len(classes) != 2:
            told = f"a threshold is for two classes; this task has {len(classes)}"
            raise UsageError(told, fix="leave out --threshold")
        self._classes, self._threshold, self._is_json, self._write = classes, threshold, kind == "json", write
        self._num_rows = 0
        verdict = [] if threshold is None else ["verdict", "threshold"]
        head = csv_lines([["file", "predicted", *(f"p_{name}" for name in classes), *verdict]])
        write(("[" if self._is_json else head).encode())

    def add(self, files: Sequence[Path], found: Sequence[list[float] | str]) -> None:
        """The rows of the files that show a picture; the others' reasons are told elsewhere."""
        rows = [self._row(file, one) for file, one in zip(files, found, strict=True) if not isinstance(one, str)]
        if self._is_json:
            texts = [json.dumps(row, ensure_ascii=False) for row in rows]
            text = (", " if self._num_rows and rows else "") + ", ".join(texts)
        else:
            text = csv_lines(_flat(row) for row in rows)
        self._num_rows += len(rows)
        self._write(text.encode())

    def end(self) -> None:
        """Writes what comes after the last row."""
        self._write(b"]\n" if self._is_json else b"")

    def _row(self, file: Path, probabilities: Sequence[float]) -> dict[str, Any]:
        from fednode.tasks.picture_files import text_of
        from fednode.tasks.predictions import verdict

        row = {
            "file": text_of(file), "predicted": self._classes[verdict(probabilities, None)],
            "probabilities": dict(zip(self._classes, (round(one, DIGITS) for one in probabilities), strict=True)),
        }
        if self._threshold is None:
            return row
        return row | {"verdict": self._classes[verdict(probabilities, self._threshold)], "threshold": self._threshold}


def _flat(row: dict[str, Any]) -> list[Any]:
    return [cell for value in row.values() for cell in (value.values() if isinstance(value, dict) else (value,))]
