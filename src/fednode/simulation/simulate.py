"""A whole federation in one call: the round loop over simulated clients, with the bits of a served run.

Start reading at `simulate`. The loop itself is `rounds.py`; who is asked is `fleet.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from fednode.child.link import is_child
from fednode.clock import SystemClock
from fednode.core.best import best_measure, best_of
from fednode.core.encoding import F32, Encoding
from fednode.core.ids import is_name
from fednode.core.journal import JournalRow
from fednode.core.metrics import Pooled
from fednode.core.params import Params
from fednode.core.records import Best, Change, Run
from fednode.core.status import RunStatus
from fednode.errors import BadConfig, UsageError
from fednode.ports import Clock
from fednode.rounds import run_rounds
from fednode.run_config import complete_config
from fednode.simulation.fleet import InProcessFleet
from fednode.simulation.workplaces import Children, ThisProcess, Workplace
from fednode.store.memory import MemoryStore
from fednode.store.records import Event
from fednode.strategies.base import Strategy
from fednode.strategies.registry import StrategyType, own_strategy
from fednode.tasks.base import Site, Task
from fednode.tasks.devices import prepare
from fednode.tasks.partition import parse_partition
from fednode.tasks.registry import load_task
from fednode.wire.messages import RunRequest

SEED_BITS = 32                  # of a seed that is drawn here: short enough to be typed again

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What a simulated run came to. Rounds, metrics and model are those of its last committed model."""

    run_id: str
    status: str                             # completed, paused or failed
    reason: str                             # one sentence: why it is not completed, or was so before its last round
    rounds: int                             # committed train rounds
    metrics: dict[str, float]
    best: Best | None                       # which model that was; None: nothing was measured by which one could be
    model_sha256: str | None                # None where the run ended before it had a model
    params: Params | None = field(repr=False)
    seconds: float
    seed: int                               # the same seed, sites and settings give the same model again
    history: list[dict[str, float]] = field(repr=False)         # the federation's metrics of model 0, 1, ...
    changes: dict[int, dict[str, Change]] = field(repr=False)   # by round, client: how far its update led
    journal: tuple[JournalRow, ...] = field(repr=False)


def simulate(
    task: str | type[Task],
    *,
    clients: int | Sequence[str] = 2,
    rounds: int | None = None,
    strategy: str | type[Strategy] | Strategy = "fedavg",
    strategy_config: Mapping[str, Any] | None = None,
    task_config: Mapping[str, Any] | None = None,
    data: Path | str | None = None,
    split: str = "iid",
    partition_seed: int = 0,
    offline_sample: bool = False,
    min_updates: int | None = None,
    cohort_fraction: float = 1.0,
    seed: int | None = None,
    best_metric: str | None = None,
    patience: int | None = None,
    encoding: Encoding = F32,
    workers: int = 1,
    threads: int = 1,
    device: str = "cpu",
    deadline_s: float = 600.0,
    state_dir: Path | str | None = None,
    on_event: OnEvent | None = None,
) -> Simulation:
    """Train `task` with simulated clients, and return when the run has ended. Works in a notebook too.

    `clients` is a number (they are called client-1, client-2, ...) or names; each gets its part of `data`, cut by
    `split` in the order given. `workers`: processes that train side by side; any number gives the same bits, and
    1 stays in this process. `threads`: of each worker's numeric libraries. `device`: cpu, cuda, cuda:1, mps, or auto.
    `deadline_s`: what one visit may take. `state_dir`: where clients keep what stays with them; None: nowhere for long.
    `strategy`: a name, file.py:Class, or a Strategy (its class, with `strategy_config`, or an instance).
    `patience`: rounds without a better model, by `best_metric`, after which it stops; None: never. `encoding`: f32, or
    bf16, which rounds params on their way. `on_event` hears of every event: a dict `seq, wall_s, what, run_id, fields`.

    Raises BadConfig, NotFound, DataError and their kin before anything is trained; what fails later is its result.
    """
    _require_no_child()
    names, (kind, settings) = _names(clients), _strategy(strategy, strategy_config)
    plan = _Plan(
        task=task, strategy=kind, num_workers=min(_at_least(1, "workers", workers), len(names)),
        request=_request(
            task="task", rounds=rounds, encoding=encoding, task_config=dict(task_config or {}), strategy=kind.name,
            strategy_config=settings, min_updates=min_updates, cohort_fraction=cohort_fraction, deadline_s=deadline_s,
            seed=secrets.randbits(SEED_BITS) if seed is None else seed, best_metric=best_metric, patience=patience,
        ),
        sites=_sites(names, data, split, partition_seed, offline_sample, _at_least(0, "threads", threads), device),
        state_dir=_folder(state_dir), on_event=on_event,
    )
    return _blocking(lambda: _play(plan, SystemClock()))


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What was asked for, checked as far as that can be done without the task."""

    task: str | type[Task]
    strategy: StrategyType
    request: RunRequest
    sites: Mapping[str, Site]               # by client name, in the order of the partition
    num_workers: int
    state_dir: Path | None
    on_event: OnEvent | None


async def _play(plan: _Plan, clock: Clock) -> Simulation:
    start_s = clock.now_s()
    store = MemoryStore(clock, _teller(plan.on_event))
    workplace = _workplace(plan, clock)
    try:
        offer = await workplace.offer(next(iter(plan.sites.values())))
        config = complete_config(plan.request, offer, len(plan.sites), plan.request.seed or 0, plan.strategy)
        _require_enough(config.min_updates, len(plan.sites))
        run = await store.create_run(config, offer.metrics)
        run = await store.move_run(run.id, RunStatus.RUNNING)
        with _state_dir(plan) as state_dir:
            fleet = InProcessFleet(plan.sites, workplace, store, clock, state_dir)
            await run_rounds(run, plan.strategy.bind(config.strategy_config), fleet, store)
    finally:
        await workplace.close()
    return await _result(store, run.id, clock.now_s() - start_s)


@contextmanager
def _state_dir(plan: _Plan) -> Iterator[Path]:
    if plan.state_dir is not None:
        yield plan.state_dir
        return
    with TemporaryDirectory(prefix="fednode-state-") as folder:
        yield Path(folder)


def _workplace(plan: _Plan, clock: Clock) -> Workplace:
    """One worker stays in this process. Children load the task themselves, so this process imports no framework."""
    if plan.num_workers == 1:
        prepare(next(iter(plan.sites.values())).device)     # before the task's file imports torch
        return ThisProcess(load_task(plan.task))
    spec = plan.task if isinstance(plan.task, str) else _spec_of(plan.task)
    return Children(spec, next(iter(plan.sites.values())), plan.num_workers, clock)


def _spec_of(kind: type[Task]) -> str:
    """What makes a child load this class. Raises UsageError where it lies in no module that a child can import."""
    if kind.__module__ == "__main__" or kind.__qualname__ != kind.__name__:
        raise UsageError(
            f"the class {kind.__name__} of {kind.__module__} cannot be handed to worker processes",
            fix="set workers=1, or put the class in a file of its own, at its top level",
        )
    return load_task(kind).spec


async def _result(store: MemoryStore, run_id: str, seconds: float) -> Simulation:
    run, pooled = await store.run(run_id), await store.pooled(run_id)
    checkpoint = (await store.position(run_id)).checkpoint
    return Simulation(
        run_id=run_id,
        status=run.status.value,
        reason=run.reason,
        rounds=checkpoint.round if checkpoint else 0,
        metrics=_numbers(pooled.get(checkpoint.round, ())) if checkpoint else {},
        best=_best(run, pooled),
        model_sha256=checkpoint.model_sha256 if checkpoint else None,
        params=checkpoint.state.params if checkpoint else None,
        seconds=seconds,
        seed=run.config.seed,
        history=[_numbers(pooled[model_round]) for model_round in sorted(pooled)],
        changes=await store.changes(run_id),
        journal=await store.journal(run_id),
    )


def _best(run: Run, pooled: Mapping[int, Sequence[Pooled]]) -> Best | None:
    measure = best_measure(run.config, run.metrics)
    scores = {number: _numbers(found) for number, found in pooled.items()}
    name = measure.name if measure else ""
    return best_of(measure, {n: found[name] for n, found in scores.items() if name in found}) if measure else None


def _numbers(pooled: Sequence[Pooled]) -> dict[str, float]:
    return {metric.name: metric.value for metric in pooled if isinstance(metric.value, float)}


def _teller(on_event: OnEvent | None) -> Callable[[Event], None] | None:
    if on_event is None:
        return None
    return lambda event: on_event(asdict(event))


# --- what was asked for --------------------------------------------------------------------------------


def _require_no_child() -> None:
    """Raise UsageError where a task's file, imported by a worker, starts a simulation: it would never end."""
    if is_child():
        raise UsageError(
            "the file of this task starts a simulation when it is imported, and workers import it",
            fix="put the call of `simulate` below `if __name__ == '__main__':`",
        )


def _strategy(
    strategy: str | type[Strategy] | Strategy, config: Mapping[str, Any] | None
) -> tuple[StrategyType, dict[str, Any]]:
    """The strategy and its settings. Raises UsageError where an instance, which has its own, comes with others."""
    if not isinstance(strategy, Strategy):
        return own_strategy(strategy), dict(config or {})
    if config:
        raise UsageError(
            f"strategy_config says {', '.join(config)}, but {strategy!r} has its settings already",
            fix="give the settings to the instance, or hand over its class",
        )
    return own_strategy(type(strategy)), asdict(strategy)


def _names(clients: int | Sequence[str]) -> list[str]:
    """Raises UsageError where they are none, or not fit to be names."""
    if isinstance(clients, int):
        return [f"client-{number}" for number in range(1, _at_least(1, "clients", clients) + 1)]
    names = [clients] if isinstance(clients, str) else list(clients)
    _at_least(1, "the number of clients", len(names))
    for name in names:
        if not is_name(name):
            raise UsageError(
                f"no client can be called {name!r}",
                fix="use lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit; at most 63",
            )
        if names.count(name) > 1:
            raise UsageError(f"two clients are called {name!r}", fix="give each client a name of its own")
    return names


def _at_least(least: int, what: str, number: int) -> int:
    if number < least:
        raise UsageError(f"{what} = {number}, which is less than {least}", fix=f"give {least} or more")
    return number


def _sites(
    names: Sequence[str], data: Path | str | None, split: str, partition_seed: int, offline_sample: bool, threads: int,
    device: str,
) -> dict[str, Site]:
    """One data folder, cut into as many parts as there are clients, in their order. Raises BadConfig."""
    return {
        name: Site(
            client=name, data=_folder(data), offline_sample=offline_sample, threads=threads, device=device,
            partition=parse_partition(f"{index}/{len(names)}", split, partition_seed),
        )
        for index, name in enumerate(names, start=1)
    }


def _folder(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path).expanduser().absolute()


def _request(**fields: Any) -> RunRequest:
    """Raises BadConfig naming the field that is wrong."""
    try:
        return RunRequest(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadConfig(f"{where} = {first['input']!r}: {first['msg']}", fix=f"correct {where!r}") from None


def _require_enough(min_updates: int, num_clients: int) -> None:
    """A served run waits for the clients that it needs; here nobody else will come."""
    if min_updates > num_clients:
        raise BadConfig(
            f"min_updates = {min_updates}, but there are only {num_clients} clients",
            fix=f"simulate more clients, or lower min_updates to {num_clients}",
        )


# --- event loops ---------------------------------------------------------------------------------------


def _blocking(main: Callable[[], Coroutine[Any, Any, Simulation]]) -> Simulation:
    """Run to the end. A notebook's thread has an event loop already: there a fresh thread gets its own."""
    return _in_fresh_thread(main) if _is_in_loop() else asyncio.run(main())


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_fresh_thread(main: Callable[[], Coroutine[Any, Any, Simulation]]) -> Simulation:
    result: Future[Simulation] = Future()
    started: Future[Callable[[], object]] = Future()

    async def cancellable() -> Simulation:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel) if task else None)
        return await main()

    def work() -> None:
        try:
            result.set_result(asyncio.run(cancellable()))
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=work, name="fednode-simulation")
    thread.start()
    try:
        return result.result()
    except KeyboardInterrupt:
        started.result()()
        thread.join()
        raise
