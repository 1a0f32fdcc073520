"""One assignment at a client node, from the check of the order to its report. Start at `Execution.run`.

The visit itself happens in the child process; here is what surrounds it: may this site do it, fetch the model,
tell the scores as they come, put the update into the outbox, send it. When to start and what to ask: `daemon`.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from fednode.child.child import Child
from fednode.client.approvals import Approvals
from fednode.client.ledger import Ledger
from fednode.client.link import FATAL, Link
from fednode.client.offers import Offered
from fednode.client.outbox import Finished, Outbox
from fednode.client.sharing import Sharing
from fednode.client.talk import Talk, TrainingConfig
from fednode.core.encoding import Encoding
from fednode.core.metrics import Metric, Metrics
from fednode.core.pooling import pool
from fednode.core.records import Failure, Offer, Outcome, Update
from fednode.core.status import FailureCode, RoundKind
from fednode.core.units import seconds_text
from fednode.errors import BadConfig, Conflict, DataError, FednodeError, NotFound, StoreError, TaskFailed, Withdrawn
from fednode.failpoints import reach
from fednode.ports import Clock
from fednode.run_config import complete_task_config
from fednode.tasks.base import SET_BY_STRATEGY
from fednode.visit import Order
from fednode.wire.messages import AssignmentBody, EpochBody

T = TypeVar("T")

ASK_OPERATOR = "ask its operator, or start a run that it accepts"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OF_THE_SITE = (TaskFailed, StoreError, DataError)      # what goes wrong here, and is no refusal


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What all executions of a client node share."""

    client: str                             # its name
    offers: Mapping[str, Offered]           # by the task's name
    child: Child
    link: Link
    outbox: Outbox
    talk: Talk
    ledger: Ledger
    sharing: Sharing
    clock: Clock
    approvals: Approvals | None = None      # None: the operator approves nothing by hand


class Execution:
    """One assignment under way; the observer of its own visit."""

    def __init__(self, assignment: str, place: Workplace) -> None:
        self.assignment = assignment        # its id
        self._round = int(assignment.split(".")[1])
        self._place = place
        self._verdict: FednodeError | None = None       # why there is no point in going on
        self._metrics: tuple[Metric, ...] = ()          # that its task declares
        self._stopped = ""                              # why the site's owner ended it; "": did not
        self._over = asyncio.Event()
        self._evaluation: asyncio.Task[None] | None = None      # on its way
        self._epochs: list[EpochBody] = []
        self._telling: asyncio.Task[None] | None = None         # the local scores, on their way

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def withdraw(self) -> None:
        """The central node took it back: a visit is cancelled, an upload is broken off."""
        self._end(Withdrawn(f"assignment {self.assignment} was taken back", fix="nothing is to be done here"))

    def stop(self, reason: str) -> None:
        """The site's owner ends it: as a withdrawal does, and the central node is told why."""
        self._stopped = reason
        self._end(Withdrawn(f"assignment {self.assignment} was ended: {reason}", fix="nothing is to be done here"))

    async def run(self, body: AssignmentBody) -> None:
        """Check, fetch, visit, report. Raises only what ends the client node."""
        reach("order.received", self._round)
        self._place.ledger.knows(body.id, body.run_number)
        self._place.talk.assigned(body)
        if body.unfinished_runs is not None:
            await asyncio.to_thread(self._place.outbox.sweep_states, body.unfinished_runs)
        await self._concluded(self._execute(body))
        self._place.talk.idle()

    async def resend(self, finished: Finished) -> None:
        """Send what a process before this one trained. Raises only what ends the client node."""
        await self._concluded(self._deliver(finished))

    async def _execute(self, body: AssignmentBody) -> None:
        place = self._place
        offered = check_order(body, place.offers)
        if place.approvals is not None:
            await asyncio.to_thread(place.approvals.require, offered.spec, offered.offer)
        self._metrics = offered.offer.metrics
        base = await self._fetched(body) if body.base_model else None
        reach("model.fetched", self._round)
        update_file = place.outbox.update_file(self.assignment)
        if body.kind is RoundKind.TRAIN:
            self._say_start(body, offered.offer)
        with self._within(offered.offer.limits.max_wall_time_s):
            outcome = await place.child.visit(
                offered.spec, order_of(body, place.client), base, update_file, self,
                state=place.outbox.state_of(self.assignment),
            )
        reach("visit.done", self._round)
        await self._report(body, outcome)

    @contextmanager
    def _within(self, limit_s: float | None) -> Iterator[None]:
        """The visit ends, as a withdrawn one does, where it takes longer than this site's operator allows."""
        ending = None if limit_s is None else asyncio.create_task(self._end_after(limit_s))
        try:
            yield
        finally:
            if ending is not None:
                ending.cancel()

    async def _end_after(self, limit_s: float) -> None:
        await self._place.clock.sleep(limit_s)
        self._end(BadConfig(
            f"this site ends a visit that takes longer than {seconds_text(limit_s)} (max_wall_time)", fix=ASK_OPERATOR
        ))

    async def _fetched(self, body: AssignmentBody) -> Path:
        return await self._while_wanted(self._place.link.model(
            body.base_model, body.base_model_bytes, encoding=body.encoding, file_sha256=body.base_file
        ))

    async def _report(self, body: AssignmentBody, outcome: Outcome) -> None:
        """What the visit brought, kept before it is told: from here on a crash costs no training."""
        if outcome.update is None:
            await self._evaluation_told()
            if outcome.failure is not None:
                await self._fail(outcome.failure)
            return
        finished = await asyncio.to_thread(self._finish, outcome.update, outcome.evaluation)
        reach("update.saved", self._round)
        if body.kind is RoundKind.TRAIN:
            self._place.talk.training_finished(outcome.update.num_examples)
        await self._evaluation_told()
        await self._deliver(replace(finished, evaluation=None))

    def _finish(self, update: Update, evaluation: Metrics | None) -> Finished:
        return self._place.outbox.finish(
            self.assignment, num_examples=update.num_examples, environment=update.environment,
            evaluation=evaluation.to_json() if evaluation else None,
        )

    async def _deliver(self, finished: Finished) -> None:
        """The evaluation first, so that the round cannot close between the two, then the update."""
        link = self._place.link
        if finished.evaluation is not None:
            await self._while_wanted(link.report_evaluation(self.assignment, finished.evaluation))
        self._place.talk.sending(self.assignment, finished.announcement.num_bytes)
        try:
            await self._while_wanted(link.send(finished))
        except Withdrawn:
            if self._stopped or not self._place.outbox.has_state(self.assignment):
                raise
            await link.send(finished)       # it may have arrived just before: then its visit's state counts
        except NotFound as error:           # of another central node, or of one that has lost its state
            raise Withdrawn(error.message, fix=error.fix) from error
        reach("update.arrived", self._round)
        self._place.ledger.arrived(self.assignment, finished.announcement.digest)
        await asyncio.to_thread(self._place.outbox.arrived, self.assignment)
        reach("update.dropped", self._round)
        self._place.talk.sent(finished.announcement.num_bytes)
        if self._telling is not None:
            with suppress(Withdrawn):
                await self._while_wanted(self._telling)

    async def _concluded(self, work: Coroutine[Any, Any, None]) -> None:
        """Every end that `work` can have, told to whom it concerns. In the outbox stays only what may yet be sent."""
        try:
            await work
        except FATAL:
            raise
        except Conflict as error:
            await self._give_up(error)
        except FednodeError as error:
            await self._fail(failure_of(self._place.client, error))
        except OSError as error:            # of this disk: full, or not to be read
            reason = f"this client node's disk: {error.strerror or error} ({error.filename})"
            await self._fail(Failure(client=self._place.client, code=FailureCode.TASK_ERROR, reason=reason))
        except ValueError as error:         # of what the task brought: pydantic's, where JSON cannot say it
            reason = f"what the task brought cannot be told: {error}"
            await self._fail(Failure(client=self._place.client, code=FailureCode.TASK_ERROR, reason=reason))
        finally:
            self._stop_telling()
        self._place.outbox.drop(self.assignment)

    async def _give_up(self, conflict: Conflict) -> None:
        """Who ended it knows so: the central node, or the owner here, of whom the central node is told."""
        if not self._stopped:
            self._place.talk.dropped(conflict.message)
            return
        await self._fail(Failure(client=self._place.client, code=FailureCode.WITHDRAWN, reason=self._stopped))

    async def _fail(self, failure: Failure) -> None:
        """Tell both sides; only a withdrawal makes that needless."""
        self._verdict = None
        self._over.clear()
        self._place.talk.failed(failure.reason)
        try:
            await self._while_wanted(self._place.link.report_failure(self.assignment, failure))
        except FATAL:
            raise
        except FednodeError as error:       # the deadline will say it
            self._place.talk.dropped(error.message)

    def _end(self, verdict: FednodeError) -> None:
        self._verdict = self._verdict or verdict
        self._over.set()

    def _stop_telling(self) -> None:
        for task in (self._evaluation, self._telling):
            if task is not None:
                task.cancel()

    async def _while_wanted(self, work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
        """The result of `work`; broken off, with the verdict raised, where the assignment ends before it."""
        task, over = asyncio.ensure_future(work), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
            if self._verdict is not None and not task.done():
                raise self._verdict
            return task.result()
        finally:
            task.cancel()
            over.cancel()
            await asyncio.gather(task, over, return_exceptions=True)

    # --- the observer of the visit ----------------------------------------------------------------

    def evaluated(self, metrics: Metrics) -> None:
        reach("model.evaluated", self._round)
        self._place.talk.evaluated(site_scores(self._metrics, metrics))
        self._evaluation = asyncio.create_task(self._tell_evaluation(metrics))

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._place.talk.epoch(epoch, metrics)
        reach("epoch.told", self._round)
        values = {name: value for name, value in metrics.items() if math.isfinite(value)}    # JSON holds no NaN
        if epoch < 1 or not values:
            return
        self._epochs.append(EpochBody(epoch=epoch, values=values))
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_epochs())

    def is_cancelled(self) -> bool:
        return self.is_over

    async def _tell_evaluation(self, metrics: Metrics) -> None:
        """Where the central node does not take it, there is no point in training."""
        try:
            await self._place.link.report_evaluation(self.assignment, metrics.to_json())
            reach("evaluation.told", self._round)
        except FednodeError as error:
            self._end(error)

    async def _evaluation_told(self) -> None:
        if self._evaluation is not None:
            await self._while_wanted(self._evaluation)
        if self._verdict is not None:
            raise self._verdict

    async def _tell_epochs(self) -> None:
        """Local scores may be lost: people watch them, nothing depends on them."""
        while self._epochs:
            batch, self._epochs = self._epochs, []
            with suppress(FednodeError):
                await self._place.link.report_epochs(self.assignment, batch)

    def _say_start(self, body: AssignmentBody, offer: Offer) -> None:
        config = task_config(body, offer)
        self._place.talk.config(TrainingConfig(
            learning_rate=float(config["learning_rate"]), epochs=config["epochs"], batch_size=config["batch_size"]
        ))
        self._place.talk.training_started(body.run_number, body.number, body.rounds)


def check_order(body: AssignmentBody, offers: Mapping[str, Offered]) -> Offered:
    """The offer that the order asks for. Raises BadConfig where this site did not offer that, or not so."""
    if body.task not in offers:
        raise BadConfig(
            f"task {body.task!r} is not offered at this site",
            fix=f"it offers: {', '.join(sorted(offers)) or 'nothing'}; start the client node with --task for another",
        )
    offered = offers[body.task]
    if body.fingerprint != offered.offer.fingerprint:
        raise BadConfig(
            f"the run was started with task {body.fingerprint!r}, this site offers {offered.offer.fingerprint!r}",
            fix="give this client node the version that the run was started with, or start a new run",
        )
    _require_base(body)
    _require_known_encoding(body)
    _require_accepted(body, offered.offer)
    return offered


def task_config(body: AssignmentBody, offer: Offer) -> dict[str, Any]:
    """The order's config without what its strategy sets. Raises BadConfig where it is not what was offered."""
    people_set = {name: value for name, value in body.config.items() if name not in SET_BY_STRATEGY}
    return dict(complete_task_config(people_set, offer))


def _require_accepted(body: AssignmentBody, offer: Offer) -> None:
    """Raise BadConfig where the config is not what was offered, or the operator's word is against such a training."""
    epochs, limits = task_config(body, offer)["epochs"], offer.limits
    if body.kind is not RoundKind.TRAIN:
        return
    if limits.min_cohort is not None and body.cohort_size is None:
        raise BadConfig(
            f"this site accepts cohorts of {limits.min_cohort} or more (min_cohort), and the central node does not say "
            "how many take part", fix="upgrade the central node",
        )
    if against := limits.against(epochs, body.cohort_size or 0):
        raise BadConfig(f"this site {', and '.join(against)}", fix=ASK_OPERATOR)


def _require_base(body: AssignmentBody) -> None:
    is_init, has_base = body.kind is RoundKind.INIT, _SHA256.fullmatch(body.base_model) is not None
    if is_init == has_base or (is_init and body.base_model):
        raise BadConfig(
            f"an order of kind {body.kind} names {body.base_model!r} as its model",
            fix="the sha256 of a model, or nothing for the initial params",
        )


def _require_known_encoding(body: AssignmentBody) -> None:
    """Raise BadConfig where this client node could neither read what comes nor send what is waited for."""
    if body.encoding not in get_args(Encoding):
        raise BadConfig(
            f"the params of this run travel as {body.encoding!r}", fix="upgrade this client node, or leave it out"
        )
    if body.base_file and _SHA256.fullmatch(body.base_file) is None:
        raise BadConfig(f"{body.base_file!r} is no sha256 of a file", fix="the sha256 of what is to be fetched")


def site_scores(declared: Sequence[Metric], metrics: Metrics) -> dict[str, float]:
    """The numbers that people read of one site's evaluation; curves are left out."""
    pooled = pool(declared, {"": metrics})
    return {score.name: score.value for score in pooled if isinstance(score.value, float)}


def order_of(body: AssignmentBody, client: str) -> Order:
    return Order(
        run_id=body.run_id, number=body.number, attempt=body.attempt, client=client, kind=body.kind,
        task=body.task, fingerprint=body.fingerprint, config=body.config,
        run_seed=body.run_seed, base_model=body.base_model, encoding=body.encoding,
    )


def failure_of(client: str, error: FednodeError) -> Failure:
    """What the central node is told of an error: the site's own trouble, or a refusal by one of the two sides."""
    code = FailureCode.TASK_ERROR if isinstance(error, _OF_THE_SITE) else FailureCode.REFUSED
    return Failure(client=client, code=code, reason=f"{error.message}; {error.fix}")
