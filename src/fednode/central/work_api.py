"""Work, from a client's side: ask for it, and tell how it goes.

A poll is held open until there is something to say. What a client measured is in the store before the answer leaves.
How it brings an update: `updates_api`. Who gets what: `leases`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from fednode.central.leases import Post
from fednode.central.node import CentralNode, Client, Node
from fednode.core.metrics import Metrics
from fednode.core.records import Assignment, Failure, Outcome, Round
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus, is_final
from fednode.errors import BadConfig, NotFound, TaskFailed
from fednode.failpoints import reach
from fednode.store.received import part_of
from fednode.wire.messages import AssignmentBody, FailureBody, Progress, Work

MAX_WAIT_S = 25.0           # proxies cut what is silent for longer

router = APIRouter(prefix="/api/v1", tags=["work"])
Wait = Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)]


# --- asking ---------------------------------------------------------------------------------------


@router.get("/clients/me/work")
async def get_work(client: Client, node: Node, request: Request, wait: Wait = 0.0, holding: str = "") -> Work:
    """The next piece of work, as soon as there is one; `holding` renews what the client is at, and hears its end."""
    until_s = node.clock.now_s() + min(wait, MAX_WAIT_S)
    if not holding:
        node.presence.wants_work(client.name)
    bell = node.leases.client_bell(client.name)
    while True:
        rung = bell.listen()
        work = await _look(node, client.name, holding)
        left_s = until_s - node.clock.now_s()
        if work is not None or left_s <= 0 or node.closing.is_set():
            return work or Work()
        if not await bell.hold_the_line(request, rung, left_s):
            return Work()       # nobody hears it: nothing may be leased any more
        await node.doors.client_of(request)         # it may have been revoked meanwhile


async def _look(node: CentralNode, client: str, holding: str) -> Work | None:
    """What is to be said now; None: nothing yet."""
    if holding:
        return None if await _may_go_on(node, client, holding) else Work(withdrawn=True)
    post = node.leases.lease(client)
    if post is None:
        node.activity.rest(client)
        return None
    node.activity.note(client, post.round, "preparing" if post.round.kind is RoundKind.INIT else "evaluating")
    return Work(assignment=await _body_of(node, post))


async def _may_go_on(node: CentralNode, client: str, holding: str) -> bool:
    """Whether what the client holds is still wanted. Right after a restart only the store knows."""
    if node.leases.renew(client, holding):
        return True
    try:
        round_, assignment = await find_assignment(node, client, holding)
    except NotFound:
        return False
    run = await node.store.run(round_.run_id)
    is_wanted = assignment.status in (AssignmentStatus.WAITING, AssignmentStatus.LEASED)
    return is_wanted and not is_final(run.status) and round_.status is RoundStatus.OPEN


async def _body_of(node: CentralNode, post: Post) -> AssignmentBody:
    """The answer; that it was delivered is noted in the store's own time: a lost note is a delivery more."""
    run, round_ = post.run, post.round
    await node.store.mark_leased(post.assignment)
    reach("assignment.leased", round_.number)
    return AssignmentBody(
        id=post.id, run_id=run.id, run_number=run.number, number=round_.number, attempt=round_.attempt,
        kind=round_.kind, rounds=run.config.rounds, task=run.config.task, fingerprint=run.config.fingerprint,
        config=dict(round_.config), run_seed=run.config.seed, base_model=round_.base_model,
        cohort_size=len(round_.cohort),
        base_model_bytes=await node.store.model_bytes(round_.base_model) if round_.base_model else 0,
        unfinished_runs=await node.store.unfinished_runs() if round_.number == 1 else None,
    )


async def find_assignment(node: CentralNode, client: str, assignment: str) -> tuple[Round, Assignment]:
    """The round of an assignment id, and this client's part in it. Raises NotFound.

    What is waited for is known without the store, which has the last word when it takes the report.
    """
    if (post := node.leases.find(client, assignment)) is not None:
        return post.round, post.assignment
    run_id, _, rest = assignment.partition(".")
    number, _, attempt = rest.partition(".")
    if not (number.isdecimal() and attempt.isdecimal() and rest.isascii() and len(rest) < 20):
        raise NotFound(f"there is no assignment {assignment[:100]!r}", fix="ask for work again")
    return await node.store.read(lambda c: part_of(c, run_id, int(number), int(attempt), client))


# --- telling --------------------------------------------------------------------------------------


@router.post("/assignments/{assignment}/metrics")
async def report_metrics(assignment: str, body: Progress, client: Client, node: Node) -> dict[str, Any]:
    """What the client measured of the model that it received (durable), and how its own training goes."""
    round_, _ = await find_assignment(node, client.name, assignment)
    for epoch in body.local:
        node.store.report_progress(round_, client.name, epoch.epoch, epoch.values)
        node.activity.note(client.name, round_, "training", epoch=epoch.epoch, values=epoch.values)
    if body.evaluation is not None:
        await node.store.report_evaluation(round_, client.name, _metrics(body.evaluation))
        reach("evaluation.committed", round_.number)
        if round_.kind is RoundKind.EVALUATE:
            node.leases.settle(round_, client.name)
            node.activity.rest(client.name)
        elif not body.local:
            node.activity.note(client.name, round_, "training")
    return {}


@router.post("/assignments/{assignment}/failure")
async def report_failure(assignment: str, body: FailureBody, client: Client, node: Node) -> dict[str, Any]:
    """There will be no update, and why."""
    round_, _ = await find_assignment(node, client.name, assignment)
    failure = Failure(client=client.name, code=body.code, reason=body.reason, traceback=body.traceback)
    await node.store.report(round_, Outcome(client=client.name, failure=failure))
    node.leases.settle(round_, client.name)
    node.activity.rest(client.name)
    return {}


def _metrics(body: dict[str, Any]) -> Metrics:
    """Null stands for what JSON cannot say: a loss that is not a number. Raises BadConfig."""
    try:
        values = {name: float("nan") if value is None else value for name, value in body["values"].items()}
        counts = {split: int(count) for split, count in body["num_examples"].items()}
        return Metrics.from_json({"values": values, "num_examples": counts})
    except (KeyError, AttributeError, TypeError, ValueError, OverflowError, TaskFailed) as error:
        raise BadConfig(f"evaluation: no metrics ({error})", fix="send `core.metrics.Metrics` as JSON") from None
