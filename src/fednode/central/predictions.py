"""Trying a model: the task's code at the central node, in a child process of its own. The central node needs no torch.

The process starts when somebody first asks and ends when nobody has asked for a while. It reads a model by the path
of its file; of what is asked nothing is kept, neither a file nor a row nor an event. Who asks: `predictions_api`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fednode.central.answers import Refusal
from fednode.central.waiting import first_of
from fednode.child.child import Child
from fednode.core.json import JsonObject
from fednode.core.records import RunConfig
from fednode.errors import CannotPredict, NotFound, TimedOut, UsageError, VersionMismatch
from fednode.ports import Clock
from fednode.tasks.base import Bytes, Picture, Site
from fednode.tasks.predictions import TaskCard, verdict

IDLE_S = 300.0          # then the process ends
LIMIT_S = 30.0          # for an answer, with the wait for one's turn; then whatever runs is ended
MAX_FILES = 4           # whose bodies are in memory at the same time; whoever brings one more stands in line
MAX_WAITING = 64        # a class that draws at the same time; each takes a few milliseconds

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The model that is asked."""

    config: RunConfig               # of its run
    params_file: Path
    threshold: float | None = None  # its own, where it has one
    awaits_threshold: bool = False  # it will have one once it is measured


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model made of some pictures."""

    card: TaskCard
    pictures: Bytes                 # (n, *picture.shape)
    probabilities: list[list[float]]
    verdicts: list[int]             # of each picture its class
    heat_maps: list[list[list[float]]] | None       # for the verdicts; None: not asked for, or the task makes none


class Predictions:
    """The child process that tries models, for everybody who looks at one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._child = Child(Site(client="central"), clock)
        self._num_waiting = 0
        self.room_for_files = asyncio.Semaphore(MAX_FILES)
        self._last_asked_s = clock.now_s()

    @property
    def pid(self) -> int | None:
        """Of the process; None where none runs."""
        return self._child.pid

    async def card(self, task: str) -> TaskCard:
        """What one may ask the models of a task. Raises CannotPredict where it is not installed here, TimedOut."""
        return await self._answered(self._child.card(task))

    async def card_of(self, config: RunConfig) -> TaskCard:
        """What one may ask the models of a run with this config. Raises as above."""
        return await self._answered(self._child.card(config.task, config.task_config, config.fingerprint))

    async def predict(self, model: Tried, inputs: Sequence[Sequence[int]], *, explain: bool = False) -> Prediction:
        """What a model makes of pictures, each as numbers row by row.

        Raises CannotPredict, UsageError (an input of the wrong size), TimedOut, or what the task's code raised.
        """
        card = await self.card_of(model.config)
        picture = picture_of(card, model.config)
        _require_size(inputs, picture, model.config.task)
        pictures = np.asarray(inputs, dtype=np.uint8).reshape(len(inputs), *picture.shape)
        return await self._predicted(model, card, pictures, explain)

    async def predict_file(self, model: Tried, content: bytes, *, explain: bool = False) -> Prediction:
        """What a model makes of the picture in a file. Raises as `predict`, and DataError where it cannot be read."""
        card = await self.card_of(model.config)
        picture_of(card, model.config)
        picture = await self._answered(self._child.picture_from_file(*_task_of(model), content))
        return await self._predicted(model, card, picture[None], explain)

    async def _predicted(self, model: Tried, card: TaskCard, pictures: Bytes, explain: bool) -> Prediction:
        asked = (*_task_of(model), model.params_file, pictures)
        probabilities = await self._answered(self._child.predict(*asked))
        verdicts = [verdict(row, model.threshold) for row in probabilities]
        heat_maps = await self._answered(self._child.explain(*asked, verdicts)) if explain else None
        return Prediction(
            card=card, pictures=pictures, probabilities=probabilities, verdicts=verdicts, heat_maps=heat_maps
        )

    async def stop_if_idle(self) -> None:
        """End the process that nobody has asked for a while. To be called now and then."""
        if self.pid is not None and not self._num_waiting and self._clock.now_s() - self._last_asked_s >= IDLE_S:
            await self._child.stop()

    async def stop(self) -> None:
        """End the process; the next question starts a new one."""
        await self._child.stop()

    async def _answered(self, question: Coroutine[Any, Any, T]) -> T:
        """The child's answer: a place in the queue, a limit to how long one stands there, errors told as of here."""
        if self._num_waiting >= MAX_WAITING:
            question.close()
            raise Refusal(
                503, "busy", f"{MAX_WAITING} predictions wait already", "ask again in a second", {"Retry-After": "1"}
            )
        self._num_waiting += 1
        answer = asyncio.ensure_future(question)
        try:
            await first_of(answer, self._clock.sleep(LIMIT_S))      # who is late is cancelled, which ends its process
            return _in_time(answer)
        except (NotFound, VersionMismatch) as error:
            raise CannotPredict(error.message, fix=f"at the central node: {error.fix}") from error
        finally:
            self._num_waiting -= 1
            self._last_asked_s = self._clock.now_s()


def _task_of(model: Tried) -> tuple[str, str, JsonObject]:
    return model.config.task, model.config.fingerprint, model.config.task_config


def _in_time(answer: asyncio.Future[T]) -> T:
    if not answer.done():
        raise TimedOut(
            f"the task gave no answer within {LIMIT_S:g} s", fix="see what it says in the central node's log"
        )
    return answer.result()


def picture_of(card: TaskCard, config: RunConfig) -> Picture:
    """What a model of such a run takes. Raises CannotPredict where the task that is installed here cannot tell."""
    if card.fingerprint != config.fingerprint:
        raise CannotPredict(
            f"the run was started with task {config.fingerprint!r}, the central node has {card.fingerprint!r}",
            fix="install the version of the run at the central node",
        )
    return card.asked_picture(config.task)


def _require_size(inputs: Sequence[Sequence[int]], picture: Picture, task: str) -> None:
    for number, numbers in enumerate(inputs, 1):
        if len(numbers) != picture.num_values:
            raise UsageError(
                f"input {number} has {len(numbers):,} numbers; a picture of {task!r} is {picture} = "
                f"{picture.num_values:,}",
                fix="send each picture row by row, as whole numbers from 0 to 255",
            )
