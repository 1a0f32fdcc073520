"""Trying a model: what a task's models can be asked, and asking one.

A task says it by `picture`, `classes`, `predict`, `explain`, `picture_from_file` and `samples` (`base.py`); whether it
keeps its word is checked here. What follows of the probabilities, the verdict at the model's threshold, is here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fednode.core.json import JsonObject
from fednode.core.metrics import Metric
from fednode.core.params import Params
from fednode.errors import CannotPredict, DataError, NotFinite, TaskFailed
from fednode.tasks.base import Bytes, Floats, Picture, Samples, Task
from fednode.tasks.registry import TaskType


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """An installed task with one config, as far as its models can be tried."""

    fingerprint: str
    picture: Picture | None         # None: they cannot
    classes: tuple[str, ...]
    samples: Samples | None
    reads_files: bool
    notice: str

    def asked_picture(self, task: str) -> Picture:
        """What its models take. Raises CannotPredict where the task, which is called `task`, does not say."""
        if self.picture is None or not self.classes:
            fix = "declare `picture` and `classes` in the task's class, and define `predict` where it is no TorchTask"
            raise CannotPredict(f"the task {task!r} does not say what its models can be asked", fix=fix)
        return self.picture


def card_of(task_type: TaskType, config: JsonObject | None = None) -> TaskCard:
    """What the task says of itself. Raises BadConfig where the config is none of its own."""
    task = task_type.bind(config or {})
    return TaskCard(
        fingerprint=task_type.fingerprint, picture=task.picture, classes=task.classes,
        samples=None if task.picture is None else task.samples(),
        reads_files=type(task).picture_from_file is not Task.picture_from_file, notice=task.notice,
    )


def predict(task: Task, params: Params, pictures: Bytes) -> Floats:
    """The probability of each class, (n, classes), for pictures (n, *picture.shape).

    Raises TaskFailed where the task returns anything else, NotFinite where the model makes no number of a picture.
    """
    found = np.asarray(task.predict(params, pictures), dtype=np.float64)
    wanted = (len(pictures), len(task.classes))
    if found.shape != wanted:
        raise TaskFailed(
            f"predict() of {type(task).__name__} returns shape {found.shape}; {len(pictures)} pictures and "
            f"{len(task.classes)} classes make {wanted}",
            fix="return one probability a class for each picture, or correct the task's `classes`",
        )
    if not np.isfinite(found).all():
        raise NotFinite("this model's answer is no number: its run diverged", fix="train with a smaller learning rate")
    return found


def explain(task: Task, params: Params, pictures: Bytes, labels: Sequence[int]) -> Floats | None:
    """Heat maps, (n, height, width): what in each picture speaks for its label; None: the task has none.

    Raises TaskFailed where the task returns anything but numbers from 0 to 1, one map a picture.
    """
    maps = task.explain(params, pictures, np.asarray(labels, np.int64))
    if maps is None:
        return None
    found = np.asarray(maps, dtype=np.float64)
    if found.ndim != 3 or len(found) != len(pictures) or not found.size or not ((found >= 0) & (found <= 1)).all():
        span = f"from {found.min():g} to {found.max():g}" if found.size else "with nothing in it"
        raise TaskFailed(
            f"explain() of {type(task).__name__} returns shape {found.shape} {span} for {len(pictures)} pictures",
            fix="return one map a picture, (n, height, width), of numbers from 0 to 1",
        )
    return found


def picture_from_file(task: Task, content: bytes) -> Bytes:
    """The picture in a file, *task.picture.shape. Raises DataError where there is none, TaskFailed."""
    from fednode.tasks.pictures import NotAPicture  # loads Pillow: not for whoever only asks for a card

    try:
        return picture_in(task, content)
    except NotAPicture as error:
        fix = "give a JPEG or PNG that other programs open"
        raise DataError(f"this file cannot be used: {error}", fix=fix) from None


def picture_in(task: Task, content: bytes) -> Bytes:
    """The same, for who has many files: raises NotAPicture where there is none."""
    found = np.asarray(task.picture_from_file(content))
    if task.picture is None or found.shape != task.picture.shape or found.dtype != np.uint8:
        raise TaskFailed(
            f"picture_from_file() of {type(task).__name__} returns {found.dtype} of shape {found.shape}; `picture` is "
            f"{task.picture}", fix="return whole numbers from 0 to 255 (uint8) in the shape of `picture`",
        )
    return found


def threshold_of(metrics: Sequence[Metric], values: Mapping[str, float]) -> float | None:
    """A model's own decision threshold: of its pooled values, the first that is declared a `threshold`."""
    return next((values[spec.name] for spec in metrics if spec.combine == "threshold" and spec.name in values), None)


def verdict(probabilities: Sequence[float], threshold: float | None) -> int:
    """Which class it is: of two the second from the threshold on; without one, or of more, the most probable."""
    if threshold is not None and len(probabilities) == 2:
        return int(probabilities[1] >= threshold)
    return int(np.argmax(probabilities))
