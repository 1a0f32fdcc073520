"""One client's visit: make the initial params, or evaluate what came and train, or only evaluate.

The same function runs in a client node's child process and in a simulation, so both give the same bits.
A task is a stranger's code: whatever it does comes back as an Outcome, never as an exception.
"""

from __future__ import annotations

import platform
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata
from typing import Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from fednode.core.encoding import F32
from fednode.core.json import JsonObject
from fednode.core.metrics import MAX_EXAMPLES, Metrics
from fednode.core.narrowed import encoded, widened
from fednode.core.params import Params, require_finite, require_match
from fednode.core.pooling import require_declared, require_poolable
from fednode.core.records import Failure, Outcome, Round, Run, Update
from fednode.core.seeds import client_seed, init_seed, visit_seed
from fednode.core.status import FailureCode, RoundKind
from fednode.errors import FednodeError, ParamsMismatch, TaskFailed
from fednode.own_code import place_of
from fednode.tasks import devices
from fednode.tasks.base import Cancelled, Site, Task, Visit
from fednode.tasks.state_dirs import StateDir

T = TypeVar("T")

MAX_EPOCHS = 2**31              # what every database holds
PACKAGES_THAT_COUNT = ("fednode", "numpy", "torch")      # their versions are part of "the same bits"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a client is asked to do. Transport (leases, URLs) is not part of it."""

    run_id: str
    number: int
    attempt: int
    client: str
    kind: RoundKind
    task: str
    fingerprint: str
    config: JsonObject
    run_seed: int
    base_model: str                 # sha256; "" for init
    encoding: str = F32             # how the update goes out


def order_of(run: Run, round_: Round, client: str) -> Order:
    """The order of one of the round's cohort."""
    return Order(
        run_id=run.id, number=round_.number, attempt=round_.attempt, client=client, kind=round_.kind,
        task=run.config.task, fingerprint=run.config.fingerprint, config=round_.config,
        run_seed=run.config.seed, base_model=round_.base_model, encoding=run.config.encoding,
    )


class Observer(Protocol):
    """Who is told of a visit while it is under way."""

    def evaluated(self, metrics: Metrics) -> None: ...

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def is_cancelled(self) -> bool: ...


class Silent:
    """An observer that nobody needs."""

    def evaluated(self, metrics: Metrics) -> None: ...

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def is_cancelled(self) -> bool:
        return False


def run_visit(
    task: Task, site: Site, order: Order, params: Params | None, observer: Observer, state: StateDir | None = None
) -> Outcome:
    """Execute `order`. `params` is what the order's `base_model` names (None for init), as it came over the wire.

    The outcome's update is as it goes out. What the visit leaves in its state dir counts where the outcome has an
    update, which is for the caller to say.
    """
    visit = Visit(
        site=site, config=task.config, round=order.number, state=state,
        seed=visit_seed(order.run_seed, order.number, order.client),
        client_seed=client_seed(order.run_seed, order.client),
        report=partial(_report, observer), is_cancelled=observer.is_cancelled,
    )
    environment(site)               # the versions are found now: a task may leave a process in which nothing is found
    with threadpool_limits(site.threads or None):
        return _guarded(task, order, None if params is None else widened(params), visit, observer)


def _guarded(task: Task, order: Order, params: Params | None, visit: Visit, observer: Observer) -> Outcome:
    seen: list[Metrics] = []
    fails = partial(_failed, order.client, seen)
    try:
        if params is None:
            return Outcome(client=order.client, update=_initial(task, order, visit))
        metrics = _require_kind(task.evaluate(params, visit), Metrics, "evaluate")
        require_declared(task.measures, metrics)
        require_poolable(task.measures, metrics)
        seen.append(metrics)
        observer.evaluated(seen[0])
        update = _trained(task, order, params, visit) if order.kind is RoundKind.TRAIN else None
        return Outcome(client=order.client, update=update, evaluation=seen[0])
    except Cancelled:
        return fails(FailureCode.WITHDRAWN, "taken back while it was training")
    except FednodeError as error:
        return fails(FailureCode.TASK_ERROR, f"{error.message}; {error.fix}", traceback.format_exc())
    except (Exception, SystemExit) as error:    # a stranger's code: whatever it does, the client node must outlive it
        told = f"{described(error)} ({place_of(error, type(task))})"
        return fails(FailureCode.TASK_ERROR, told, traceback.format_exc())


def described(error: BaseException) -> str:
    """A stranger's error in one line; it may have no words at all."""
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:
        return type(error).__name__


def _failed(client: str, seen: list[Metrics], code: FailureCode, reason: str, trace: str = "") -> Outcome:
    failure = Failure(client=client, code=code, reason=reason, traceback=trace)
    return Outcome(client=client, failure=failure, evaluation=seen[0] if seen else None)


def _initial(task: Task, order: Order, visit: Visit) -> Update:
    params = _require_kind(task.initial_params(init_seed(order.run_seed)), Params, "initial_params")
    require_finite(params)
    return Update(client=order.client, params=widened(params), num_examples=0, environment=environment(visit.site))


def _trained(task: Task, order: Order, params: Params, visit: Visit) -> Update:
    update = _require_kind(task.train(params, visit), Update, "train")
    _require_same_manifest(_require_kind(update.params, Params, "train, in its update"), params)
    require_finite(update.params)
    count: object = update.num_examples
    if not isinstance(count, int | np.integer) or not 1 <= count <= MAX_EXAMPLES:
        raise TaskFailed(f"the task trained on {count!r} examples", fix="check this site's data, or its partition")
    found = {**update.environment, **environment(visit.site)}       # a task may add what else its bits depend on
    sent = encoded(update.params, order.encoding)
    return replace(update, client=visit.site.client, params=sent, num_examples=int(count), environment=found)


def _require_same_manifest(trained: Params, received: Params) -> None:
    try:
        require_match(trained, received.manifest)
    except ParamsMismatch as error:
        fix = "return the names, shapes and dtypes that it received: array.astype(params[name].dtype), for example"
        raise TaskFailed(f"train() returned other params than it received: {error.message}", fix=fix) from None


def _require_kind(found: object, kind: type[T], verb: str) -> T:
    """What a task's verb returned. Raises TaskFailed where that is of another kind."""
    if not isinstance(found, kind):
        raise TaskFailed(f"the task returned a {type(found).__name__} from {verb}", fix=f"return {_EXAMPLES[kind]}")
    return found


_EXAMPLES: Mapping[type, str] = {
    Params: 'Params({"name": array, ...})',
    Update: "Update(client=visit.site.client, params=Params(...), num_examples=...)",
    Metrics: 'Metrics(values={...}, num_examples={"test": ...})',
}


def _report(observer: Observer, epoch: int, metrics: Mapping[str, float]) -> None:
    """Pass on a task's local scores. What could not travel fails here, where the task's traceback shows it."""
    count: object = epoch
    if not isinstance(count, int | np.integer) or not 0 <= count < MAX_EPOCHS:
        raise TaskFailed(f"the task reported on epoch {count!r}", fix="count epochs from 1")
    for name in metrics:
        name.encode()
    observer.progressed(int(count), {name: float(value) for name, value in metrics.items()})


def environment(site: Site) -> JsonObject:
    """What the promise "the same bits" depends on."""
    versions = {name: _version(name) for name in PACKAGES_THAT_COUNT if name in sys.modules}
    return {
        "python": platform.python_version(), "machine": platform.machine(), "threads": site.threads,
        "device": devices.described(site.device), **versions,
    }


@cache
def _version(package: str) -> str:
    """Read once: parsing a package's metadata takes longer than a small visit."""
    return metadata.version(package)
