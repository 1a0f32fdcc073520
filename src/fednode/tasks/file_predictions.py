"""Predictions for files, each read as the task reads its own data. One picture's rules: `predictions.py`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fednode.core.params import Params
from fednode.tasks.base import Bytes, Task
from fednode.tasks.pictures import NotAPicture, read_file
from fednode.tasks.predictions import picture_in, predict

Reason: TypeAlias = str             # why a file shows no picture, fit for a report


def predict_files(task: Task, params: Params, files: Sequence[Path]) -> list[list[float] | Reason]:
    """The probability of each class for each file, or why it has none, in the order of `files`.

    All their pictures are in memory at once. Raises TaskFailed, NotFinite, as `predict` does.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:       # decoders let go of the interpreter
        found = list(threads.map(partial(_picture_or_reason, task), files))
    pictures = [one for one in found if not isinstance(one, str)]
    rows = iter(predict(task, params, np.stack(pictures)).tolist() if pictures else ())
    return [one if isinstance(one, str) else next(rows) for one in found]


def _picture_or_reason(task: Task, file: Path) -> Bytes | Reason:
    try:
        return picture_in(task, read_file(file).content)
    except NotAPicture as error:
        return str(error)
