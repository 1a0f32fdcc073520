"""The federated model against each client's own local-only run: why one would federate, client by client.

A local-only run has a roster of one; it counts beside a federated run when task, task config and start are the same.
Both models are scored by the client itself on its own test data. The client's data stays where it is, so nobody here
can see that it was the same: a different number of test examples tells that it was not, and such a run is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from fednode.core.json import canonical_json
from fednode.core.metrics import Goal, Metric
from fednode.core.records import Run
from fednode.store import rows, schema
from fednode.store.scores import Score, Scores, newest_measured, with_numbers


@dataclass(frozen=True, kw_only=True)
class AloneScore:
    """One client's two scores on its own test data."""

    client: str
    run: int                        # number of its local-only run
    rounds: int                     # that the local-only model was trained for
    federated: float
    alone: float
    difference: float               # federated - alone
    num_test_examples: int
    num_examples: int               # that the local-only model was trained on: the client's own


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Of the clients' scores, each client counting the same."""

    federated: float
    alone: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class AloneTable:
    """A federated run's newest pooled model, and what each of its clients reached alone."""

    run: int                        # number of the federated run
    rounds: int                     # that its model was trained for
    name: str                       # the metric: the first that the task declares
    unit: str
    goal: Goal
    num_clients: int                # that scored the federated model; not all of them need have trained alone
    clients: tuple[AloneScore, ...]  # in name order
    mean: Mean


@dataclass(frozen=True)
class _Measured:
    """A run's newest pooled model and what its clients measured of it."""

    run: Run
    spec: Metric
    rounds: int
    scores: dict[str, Score]


def alone_of(c: Connection, run: Run, preferred: Collection[str] = ()) -> AloneTable | None:
    """None where the run is not federated, or none of its clients trained alone.

    A client with several local-only runs is shown with that of `preferred` (run ids), else with the one that is most
    like the federated run, else with the newest.
    """
    federated = _measured(c, run)
    if len(run.config.clients) == 1 or federated is None or len(federated.scores) < 2:
        return None
    found: dict[str, AloneScore] = {}
    for local in sorted(_local_only(c, run), key=lambda local: _likeness(local, run, preferred), reverse=True):
        (client,) = local.config.clients
        if client not in found and (score := _score(c, federated, local, client)) is not None:
            found[client] = score
    return _table(federated, [found[client] for client in federated.scores if client in found])


def _local_only(c: Connection, run: Run) -> list[Run]:
    """The runs with a roster of one, and otherwise of the same beginnings."""
    wanted = select(schema.run).where(schema.run.c.fingerprint == run.config.fingerprint, schema.run.c.id != run.id)
    return [local for local in map(rows.run_from, c.execute(wanted)) if _is_local_only(local, run)]


def _is_local_only(local: Run, run: Run) -> bool:
    is_same_task = canonical_json(local.config.task_config) == canonical_json(run.config.task_config)
    is_same_start = local.config.start_model == run.config.start_model
    return len(local.config.clients) == 1 and is_same_task and is_same_start


def _likeness(local: Run, run: Run, preferred: Collection[str]) -> tuple[bool, bool, bool, int]:
    is_as_long, is_same_seed = local.config.rounds == run.config.rounds, local.config.seed == run.config.seed
    return local.id in preferred, is_as_long, is_same_seed, local.number


def _measured(c: Connection, run: Run) -> _Measured | None:
    """None before a trained model is pooled."""
    newest = newest_measured(c, run.id)
    for spec in with_numbers(c, run, newest)[:1]:
        scores = Scores(c, run.id, spec)
        rounds = scores.newest_pooled((newest, newest - 1))
        if rounds > 0:
            return _Measured(run, spec, rounds, scores.by_client(rounds))
    return None


def _score(c: Connection, federated: _Measured, local: Run, client: str) -> AloneScore | None:
    """None where the two were not measured on the same number of examples, or one of them not at all."""
    alone = _measured(c, local)
    with_others, by_itself = federated.scores.get(client), alone.scores.get(client) if alone else None
    if alone is None or with_others is None or by_itself is None:
        return None
    if alone.spec != federated.spec or by_itself.num_examples != with_others.num_examples:
        return None
    return AloneScore(
        client=client, run=local.number, rounds=alone.rounds, federated=with_others.value, alone=by_itself.value,
        difference=with_others.value - by_itself.value, num_test_examples=by_itself.num_examples,
        num_examples=_num_examples(c, local, alone.rounds),
    )


def _num_examples(c: Connection, run: Run, number: int) -> int:
    """How many examples the round's model was made of."""
    brought = schema.update
    wanted = select(func.max(brought.c.num_examples)).where(brought.c.run_id == run.id, brought.c.number == number)
    return int(c.execute(wanted).scalar() or 0)


def _table(federated: _Measured, scores: list[AloneScore]) -> AloneTable | None:
    if not scores:
        return None
    spec = federated.spec
    mean = Mean(
        federated=_mean(score.federated for score in scores), alone=_mean(score.alone for score in scores),
        difference=_mean(score.difference for score in scores),
    )
    return AloneTable(
        run=federated.run.number, rounds=federated.rounds, name=spec.name, unit=spec.unit, goal=spec.goal,
        num_clients=len(federated.scores), clients=tuple(scores), mean=mean,
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
