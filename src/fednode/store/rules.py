"""What every store decides alike: who may still report, whose word counts, when a run is halted.

Pure functions over records; `memory.py` and `sql.py` ask them and keep what they answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fednode.core.metrics import Metrics
from fednode.core.records import Assignment, Outcome, Round, Run
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus, RunStatus
from fednode.errors import AlreadyReported, Freed, IllegalMove, NotFound, RoundClosed, RunHalted, StoreError, Withdrawn

LIVE_ROUND = (RoundStatus.OPEN, RoundStatus.CLOSED)
UNREPORTED = (AssignmentStatus.WAITING, AssignmentStatus.LEASED, AssignmentStatus.WITHDRAWN)


def require_running(run: Run) -> None:
    """Raise RunHalted unless the run is running: so pause and cancel reach its loop."""
    if run.status is not RunStatus.RUNNING:
        raise RunHalted(f"run #{run.number} is {run.status}, so its round goes no further", fix="resume the run")


def require_new_round(round_: Round, old: Round | None) -> None:
    """Raise IllegalMove where this attempt has ended already."""
    if old is not None:
        raise IllegalMove(
            f"{describe(round_)} is {old.status} and cannot be opened again", fix="ask for the run's position anew"
        )


def require_news(round_: Round, assignment: Assignment, *, is_same: bool) -> bool:
    """Whether a report is news (False: it is what was reported before).

    Raises AlreadyReported, Withdrawn, RoundClosed.
    """
    is_failed = assignment.status is AssignmentStatus.FAILED and round_.status is RoundStatus.OPEN
    if assignment.status is AssignmentStatus.REPORTED or is_failed:
        if is_same:
            return False
        raise AlreadyReported(
            f"{assignment.client!r} reported something else to {describe(round_)} before",
            fix="nothing to do: the first report counts",
        )
    if assignment.status is AssignmentStatus.WITHDRAWN:
        raise Withdrawn(
            f"the assignment of {assignment.client!r} in {describe(round_)} was taken back",
            fix="drop this work and ask for work again",
        )
    require_open(round_, assignment.client)
    return True


def require_open(round_: Round, client: str) -> None:
    """Raise RoundClosed where the round's outcomes are frozen."""
    if round_.status is not RoundStatus.OPEN:
        raise RoundClosed(
            f"{describe(round_)} is {round_.status}: what {client!r} sends came too late",
            fix="drop this work and ask for work again",
        )


def status_after(outcome: Outcome) -> AssignmentStatus:
    return AssignmentStatus.REPORTED if outcome.failure is None else AssignmentStatus.FAILED


def frozen(
    round_: Round, reported: Mapping[str, Outcome], given: Sequence[Outcome], evaluations: Mapping[str, Metrics]
) -> tuple[Outcome, ...]:
    """The outcomes of the whole cohort in name order: what was reported, else what the loop gives.

    Raises StoreError where the loop gives nothing, or an update that nobody reported.
    """
    by_client = {outcome.client: outcome for outcome in given}
    outcomes = []
    for client in sorted(round_.cohort, key=str.encode):
        if client in reported:
            outcomes.append(reported[client])
            continue
        outcome = by_client.get(client)
        if outcome is None or outcome.update is not None:
            raise StoreError(
                f"{describe(round_)} cannot be closed: {client!r} has no report in the store",
                fix="report every outcome that is no failure before its round is closed",
            )
        outcomes.append(replace(outcome, evaluation=evaluations.get(client, outcome.evaluation)))
    return tuple(outcomes)


def is_repeat(old: Round, new: Round) -> bool:
    """Whether an update for `old` is also one for `new`: the attempt is in no client's seed."""
    return (old.number, old.kind, old.base_model, old.config) == (new.number, new.kind, new.base_model, new.config)


def makes_report(round_: Round) -> bool:
    """Whether an evaluation is all that is asked of a client."""
    return round_.kind is RoundKind.EVALUATE


def may_wait(run: Run) -> bool:
    """Whether it is under way, or stands in the queue."""
    return run.status in (RunStatus.QUEUED, RunStatus.RUNNING)


def describe(round_: Round) -> str:
    return f"round {round_.number}, attempt {round_.attempt}"


def no_run(ref: str) -> NotFound:
    return NotFound(f"there is no run {ref!r}", fix="`fednode runs` lists them")


def no_model(sha256: str) -> NotFound:
    return NotFound(f"there is no model {sha256!r}", fix="`fednode models` lists them")


def freed(sha256: str) -> Freed:
    return Freed(
        f"the params of model {sha256[:12]} are not kept any more",
        fix="take the best, the final or another model of its run: `fednode models --run` lists them",
    )


def no_assignment(round_: Round, client: str) -> NotFound:
    return NotFound(f"{client!r} has no assignment in {describe(round_)}", fix="ask for work again")


def no_round(run_id: str, number: int, attempt: int) -> NotFound:
    return NotFound(f"run {run_id!r} has no round {number}, attempt {attempt}", fix="ask for work again")


def start_round(run: Run) -> Round:
    """Round 0 of a run that starts from a model that is there already: nobody is asked."""
    return Round(
        run_id=run.id, number=0, attempt=1, kind=RoundKind.INIT, cohort=(), config=run.config.task_config,
        base_model=run.config.start_model, budget_s=0.0, status=RoundStatus.COMMITTED,
    )
