"""The round loop: select, assign, train, aggregate, commit. Start reading at `run_rounds`.

Round 0 makes the initial params, rounds 1..N train, the one after them measures the final model (`core/best.py` says
which is due). No clock, no socket and no disk live here: the world is reached through `ports`. What is not committed
did not happen, so a restart is nothing special: `run_rounds` always begins by asking the store where the run stands.
Simulation and deployment are this loop with another fleet and another store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fednode.core.aggregation import Updates
from fednode.core.best import due, why_stopped
from fednode.core.changes import with_changes
from fednode.core.params import require_finite
from fednode.core.records import MAX_ATTEMPTS, Checkpoint, Outcome, Position, Round, Run, State, updates_of
from fednode.core.seeds import selection_rng
from fednode.core.status import RoundKind, RunStatus
from fednode.errors import FednodeError, StrategyFailed
from fednode.failpoints import reach
from fednode.own_code import place_of
from fednode.ports import Fleet, Store
from fednode.strategies.base import Strategy


async def run_rounds(run: Run, strategy: Strategy, fleet: Fleet, store: Store) -> None:
    """Play the run from where it stands to its end. Raises RunHalted where a person paused or cancelled it."""
    while (kind := due(run.config, position := await store.position(run.id))) is not None:
        try:
            round_ = position.open_round or await _open_next(run, kind, position, strategy, fleet, store)
            outcomes = await _collect(run, round_, fleet, store)
            if len(updates_of(outcomes)) >= _num_needed(run, round_.kind):
                await _finish(round_, outcomes, position.checkpoint, strategy, store)
            elif not await _try_again(round_, outcomes, store):
                return
        except StrategyFailed as error:
            reason = f"round {position.next_round}: {error.message}. {error.fix}"
            await store.end_run(run.id, RunStatus.FAILED, reason)
            return
    await store.end_run(run.id, RunStatus.COMPLETED, why_stopped(run.config, position))


async def _open_next(
    run: Run, kind: RoundKind, position: Position, strategy: Strategy, fleet: Fleet, store: Store
) -> Round:
    """Select a cohort among those who are there, and write the round down before anybody hears of it."""
    number, attempt = position.next_round, position.next_attempt
    present = await fleet.gather(run, max(1, _num_needed(run, kind)), attempt)
    checkpoint = position.checkpoint
    with _its_own_code(strategy):
        cohort = _cohort(run, kind, number, attempt, present, strategy)
        config = strategy.configure(run.config.task_config)
    round_ = Round(
        run_id=run.id, number=number, attempt=attempt, kind=kind, cohort=cohort, config=config,
        base_model=checkpoint.model_sha256 if checkpoint else "",
        budget_s=run.config.deadline_s,
    )
    return await store.open_round(round_)


def _cohort(
    run: Run, kind: RoundKind, number: int, attempt: int, present: tuple[str, ...], strategy: Strategy
) -> tuple[str, ...]:
    """Who is asked: one client to begin (the next one at each attempt), everybody at the end, else as selected."""
    if kind is RoundKind.INIT:
        return (present[(attempt - 1) % len(present)],)
    if kind is RoundKind.EVALUATE:
        return present
    chosen = strategy.select(present, run.config, selection_rng(run.config.seed, number, attempt))
    return tuple(sorted(chosen, key=str.encode))


def _num_needed(run: Run, kind: RoundKind) -> int:
    """How many updates make the round. Measuring needs none: it completes with whoever answers."""
    return {RoundKind.INIT: 1, RoundKind.TRAIN: run.config.min_updates, RoundKind.EVALUATE: 0}[kind]


async def _collect(run: Run, round_: Round, fleet: Fleet, store: Store) -> tuple[Outcome, ...]:
    """Everybody's outcome. Where somebody is missing, the store freezes what is there before we go on."""
    by_client = {outcome.client: outcome async for outcome in fleet.dispatch(run, round_)}
    outcomes = tuple(by_client[name] for name in round_.cohort)
    reach("outcomes.collected", round_.number)
    if any(outcome.is_missing for outcome in outcomes):
        return await store.close_round(round_, outcomes)
    return outcomes


async def _finish(
    round_: Round, outcomes: tuple[Outcome, ...], checkpoint: Checkpoint | None, strategy: Strategy, store: Store
) -> None:
    """Make the next state and commit it, with how far each update led."""
    with _its_own_code(strategy):
        state = await asyncio.to_thread(next_state, round_, outcomes, checkpoint, strategy)
    reach("state.aggregated", round_.number)
    if checkpoint is not None:
        outcomes = await asyncio.to_thread(with_changes, outcomes, checkpoint.state.params)
    await store.commit_round(round_, outcomes, state)


def next_state(
    round_: Round, outcomes: tuple[Outcome, ...], checkpoint: Checkpoint | None, strategy: Strategy
) -> State | None:
    """What the outcomes make of the checkpoint; None where a round only measures. Reads every update once."""
    updates = updates_of(outcomes)
    if round_.kind is RoundKind.EVALUATE:
        return None
    if checkpoint is None:
        return State(params=updates[0].params)
    manifest = checkpoint.state.params.manifest
    state = strategy.aggregate(checkpoint.state, Updates(round_.cohort, updates, manifest))
    if not isinstance(state, State):
        told = f"the strategy {type(strategy).__name__} returned a {type(state).__name__} from aggregate"
        raise StrategyFailed(told, fix="return State(params, memory={...})")
    require_finite(state.params)
    return replace(state, params=state.params.cast(manifest))


@contextmanager
def _its_own_code(strategy: Strategy) -> Iterator[None]:
    """A strategy may be anybody's: whatever it raises, or cannot aggregate, is StrategyFailed, and ends its run."""
    try:
        yield
    except FednodeError as error:
        raise StrategyFailed(error.message, fix=error.fix) from error
    except Exception as error:
        told = f"the strategy {type(strategy).__name__} raised {type(error).__name__}: {error}"
        raise StrategyFailed(f"{told} ({place_of(error, type(strategy))})", fix="mend its code") from error


async def _try_again(round_: Round, outcomes: tuple[Outcome, ...], store: Store) -> bool:
    """End this attempt; after the last one pause the run, so that a person can look. Whether to go on."""
    failed = "; ".join(f"{o.client}: {o.failure.reason}" for o in outcomes if o.failure)
    reason = f"round {round_.number}, attempt {round_.attempt}: {len(updates_of(outcomes))} updates. {failed}"
    await store.abandon_round(round_, outcomes, reason)
    if round_.attempt % MAX_ATTEMPTS != 0:      # a resumed run has three attempts again
        return True
    await store.end_run(round_.run_id, RunStatus.PAUSED, f"{MAX_ATTEMPTS} attempts failed; the last: {reason}")
    return False
