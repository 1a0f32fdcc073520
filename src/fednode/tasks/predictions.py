"""Trying a model: what a task's models can be asked, and asking one.

A task says it by `picture`, `classes`, `predict` and `samples` (`base.py`); whether it keeps its word is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednode.core.params import Params
from fednode.errors import NotFinite, TaskFailed
from fednode.tasks.base import Bytes, Floats, Picture, Samples, Task
from fednode.tasks.registry import TaskType


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """An installed task, as far as its models can be tried."""

    fingerprint: str
    picture: Picture | None         # None: they cannot
    classes: tuple[str, ...]
    samples: Samples | None


def card_of(task_type: TaskType) -> TaskCard:
    """What the task says of itself."""
    kind = task_type.kind
    return TaskCard(
        fingerprint=task_type.fingerprint, picture=kind.picture, classes=kind.classes,
        samples=None if kind.picture is None else task_type.bind({}).samples(),
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
