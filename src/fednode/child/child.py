"""A task in a long-lived child process, seen from its parent: start, ask, cancel, kill.

Frameworks are imported once and data is loaded once; a crash, a hang or a cancel costs the child, not whoever
asked. The next request starts a new one, and a new child gives the same bits as a warm one. A child ends within a
second of its parent's death. `link` owns the process and its pipes, `main` runs inside it.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

from fednode.child import messages
from fednode.child.link import ChildDied, Link
from fednode.child.messages import Message
from fednode.core.data_report import DataReport
from fednode.core.json import JsonObject
from fednode.core.metrics import Metrics
from fednode.core.records import Failure, Offer, Outcome
from fednode.core.status import FailureCode
from fednode.errors import FednodeError
from fednode.ports import Clock
from fednode.tasks.base import Bytes, Site
from fednode.tasks.predictions import TaskCard
from fednode.tasks.state_dirs import StateDir
from fednode.visit import Observer, Order, Silent
from fednode.wire.codec import read_params

POLL_S = 0.2                    # how often an observer is asked whether the visit is still wanted
CANCEL_GRACE_S = 5.0            # what a task has to notice a cancel; then its process is killed


class Child:
    """One child process, started at the first request and again after a death. Requests are served one by one."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self._site = site
        self._clock = clock
        self._link: Link | None = None
        self._turn = asyncio.Lock()
        self._num_visits = 0

    @property
    def pid(self) -> int | None:
        """Of the process that runs; None where none does."""
        return self._link.pid if self._link is not None and not self._link.has_ended else None

    async def start(self) -> None:
        """Start the process where none runs; requests do so by themselves. Raises TaskFailed where none can start."""
        async with self._turn:
            await self._running()

    async def offer(self, spec: str, *, site: Site | None = None) -> Offer:
        """Load the task in the child and check the site's data.

        `site` replaces the child's own where one child works for many clients, in a simulation. Raises what the
        task raised (DataError, NotFound, ...), or TaskFailed where it killed its process.
        """
        answer = await self._asked(
            {"what": "offer", "spec": spec, "site": messages.site_to_json(site or self._site)}
        )
        return Offer.from_json(answer["offer"])

    async def device(self) -> str:
        """The device that the site means, in words: `cuda:0 (NVIDIA A100, CUDA 12.8)`. Raises UsageError: not there."""
        answer = await self._asked({"what": "device", "site": messages.site_to_json(self._site)})
        return str(answer["device"])

    async def report(self, spec: str) -> DataReport | None:
        """All that is to be said of the site's data, file by file; None where the task says no more than its offer.

        Raises as `offer` does, but not of data that cannot be used: that is what it reports.
        """
        answer = await self._asked({"what": "report", "spec": spec, "site": messages.site_to_json(self._site)})
        return None if answer["report"] is None else DataReport.from_json(answer["report"])

    async def card(
        self, task: str, config: JsonObject | None = None, fingerprint: str = "", *, is_typed: bool = False
    ) -> TaskCard:
        """What one may ask the models of the installed task with this config. Raises NotFound, or what the task raised.

        `fingerprint`: whose config that is. Of another version of the task the card is that of its defaults.
        `is_typed`: a person at this machine names the task, which may then be a file.
        """
        answer = await self._asked({
            "what": "card", "task": task, "config": dict(config or {}), "fingerprint": fingerprint,
            "is_typed": is_typed,
        })
        return messages.card_from_json(answer["card"])

    async def predict(
        self, task: str, fingerprint: str, config: JsonObject, params_file: Path, pictures: Bytes
    ) -> list[list[float]]:
        """The probability of each class for each picture, by the model in `params_file`.

        Raises VersionMismatch where another version of the task is installed, BadParamsFile, or what the task raised.
        """
        answer = await self._asked({
            "what": "predict", "task": task, "fingerprint": fingerprint, "config": dict(config),
            "params_file": _text(params_file), "pictures": messages.pictures_to_json(pictures),
        })
        found: list[list[float]] = answer["probabilities"]
        return found

    async def explain(
        self, task: str, fingerprint: str, config: JsonObject, params_file: Path, pictures: Bytes, labels: Sequence[int]
    ) -> list[list[list[float]]] | None:
        """A heat map of each picture for its label, rows of numbers from 0 to 1; None: it has none. Raises as above."""
        answer = await self._asked({
            "what": "explain", "task": task, "fingerprint": fingerprint, "config": dict(config),
            "params_file": _text(params_file), "pictures": messages.pictures_to_json(pictures), "labels": list(labels),
        })
        found: list[list[list[float]]] | None = answer["maps"]
        return found

    async def picture_from_file(self, task: str, fingerprint: str, config: JsonObject, content: bytes) -> Bytes:
        """The picture in a file, as the task reads it. Raises DataError where there is none, and as above."""
        answer = await self._asked({
            "what": "picture", "task": task, "fingerprint": fingerprint, "config": dict(config),
            "content": b64encode(content).decode(),
        })
        return messages.pictures_from_json(answer["picture"])

    async def predict_files(
        self, task: str, fingerprint: str, config: JsonObject, params_file: Path, files: Sequence[Path],
        *, is_typed: bool = False,
    ) -> list[list[float] | str]:
        """As `predict`, of files of this machine, on the site's device: of each its probabilities, or why it has none.

        `fingerprint` "": whatever version is here. Raises ParamsMismatch where the params are another model's.
        """
        answer = await self._asked({
            "what": "predict_files", "task": task, "fingerprint": fingerprint, "config": dict(config),
            "params_file": _text(params_file), "files": [_text(file) for file in files], "is_typed": is_typed,
            "site": messages.site_to_json(self._site),
        })
        found: list[list[float] | str] = answer["found"]
        return found

    async def visit(
        self, spec: str, order: Order, params_file: Path | None, update_file: Path, observer: Observer,
        *, site: Site | None = None, state: StateDir | None = None,
    ) -> Outcome:
        """Execute `order` in the child; the update's params are a memory map of `update_file`.

        `params_file` holds what the order's `base_model` names (None for init); `site` as in `offer`; `state` is the
        visit's state dir, for the caller to keep or to drop. `observer`
        is called in this event loop. Whatever the task does comes back as an Outcome: a process that dies is a
        `task_error`, a visit that is cancelled (and killed where it does not heed that) is `withdrawn`.
        """
        seen: list[Metrics] = []
        async with self._turn:
            self._num_visits += 1
            request = {
                "what": "visit", "visit": self._num_visits, "spec": spec, "order": messages.order_to_json(order),
                "site": messages.site_to_json(site or self._site),
                "params_file": _text(params_file), "update_file": _text(update_file),
                "state": messages.state_to_json(state),
            }
            try:
                answer = await self._ask(request, observer, seen.append)
                return _outcome(answer, order, update_file, seen)
            except ChildDied as death:
                code = FailureCode.WITHDRAWN if death.is_wanted else FailureCode.TASK_ERROR
                return _failed(order, seen, code, death.message, death.last_words)

    async def stop(self) -> None:
        """End the process at once; a visit under way comes back as withdrawn. A later request starts a new one."""
        link, self._link = self._link, None
        if link is not None:
            await link.kill()

    async def _running(self) -> Link:
        if self._link is None or self._link.has_ended:
            self._link = await Link.open(self._site.threads, self._clock)
        return self._link

    async def _asked(self, request: Message) -> Message:
        """The answer to a request of which nobody is told on the way. Raises what the child raised, or ChildDied."""
        async with self._turn:
            answer = await self._ask(request, Silent())
        if answer["what"] == "error":
            raise messages.error_from_json(answer)
        return answer

    async def _ask(
        self, request: Message, observer: Observer, keep: Callable[[Metrics], None] = lambda metrics: None
    ) -> Message:
        """Send the request, pass on what is told on the way, return its answer. Raises ChildDied."""
        link = await self._running()
        watch = asyncio.create_task(self._watch(link, request, observer))
        try:
            link.send(request)
            while (message := await link.receive())["what"] in ("evaluated", "progressed"):
                _pass_on(message, observer, keep)
            return message
        except BaseException:       # nobody will hear this answer: the next request must not take it for its own
            await link.kill()
            raise
        finally:
            watch.cancel()

    async def _watch(self, link: Link, request: Message, observer: Observer) -> None:
        """Cancel the visit once it is not wanted; hang up on a dead child whose own children keep its pipes open."""
        while not observer.is_cancelled():
            has_ended = link.has_ended
            await self._clock.sleep(POLL_S)
            if has_ended:           # a poll ago: what it said last has been read
                link.hang_up()
                return
        link.send({"what": "cancel", "visit": request["visit"]})
        await self._clock.sleep(CANCEL_GRACE_S)
        await link.kill()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _pass_on(message: Message, observer: Observer, keep: Callable[[Metrics], None]) -> None:
    if message["what"] == "progressed":
        observer.progressed(message["epoch"], message["metrics"])
        return
    metrics = Metrics.from_json(message["metrics"])
    keep(metrics)
    observer.evaluated(metrics)


def _outcome(answer: Message, order: Order, update_file: Path, seen: list[Metrics]) -> Outcome:
    """What the child answered; a params file that cannot be read is the task's failure, not the caller's."""
    try:
        if answer["what"] == "error":
            raise messages.error_from_json(answer)
        row = answer["outcome"]
        return messages.outcome_from_json(row, read_params(update_file) if row["update"] else None)
    except FednodeError as error:
        trace = answer.get("traceback", "")
        return _failed(order, seen, FailureCode.TASK_ERROR, f"{error.message}; {error.fix}", trace)


def _failed(order: Order, seen: list[Metrics], code: FailureCode, reason: str, trace: str = "") -> Outcome:
    failure = Failure(client=order.client, code=code, reason=reason, traceback=trace)
    return Outcome(client=order.client, failure=failure, evaluation=seen[0] if seen else None)
