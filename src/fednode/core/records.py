"""What the house talks about: runs, rounds, updates, outcomes, checkpoints. Frozen values, nothing else.

`Run` is what was asked for; `Round` is one try of one round, with its cohort; an `Outcome` is what one
client brought or why it brought nothing; a `Checkpoint` is the state after a committed round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from fednode.core.encoding import F32
from fednode.core.json import JsonObject, sha256_of
from fednode.core.metrics import Metric, Metrics, Pooled
from fednode.core.params import Params
from fednode.core.policy import Limits
from fednode.core.status import AssignmentStatus, FailureCode, RoundKind, RoundStatus, RunStatus

MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a client says of a task that it has. No code: the central node builds forms and checks from this."""

    task: str                               # its name
    fingerprint: str                        # `mnist@1`, or `digits#` + the hash of a file's source
    schema: JsonObject                      # JSON schema of the task's config, with its defaults
    metrics: tuple[Metric, ...]
    supports: tuple[str, ...] = ()          # what a strategy may need, e.g. "proximal"
    default_rounds: int = 5
    summary: JsonObject = field(default_factory=dict)     # of the site's data: counts, no examples
    classes: tuple[str, ...] = ()           # what its models tell apart, in the order of a confusion matrix
    notice: str = ""                        # a sentence to be read wherever its models are shown
    limits: Limits = field(default_factory=Limits)        # of the site: what it accepts of a run

    def to_json(self) -> JsonObject:
        limits = self.limits.to_json()
        return {
            "task": self.task, "fingerprint": self.fingerprint, "schema": self.schema,
            "metrics": [metric.to_json() for metric in self.metrics], "supports": list(self.supports),
            "default_rounds": self.default_rounds, "summary": self.summary, "classes": list(self.classes),
            "notice": self.notice, **({"limits": limits} if limits else {}),
        }

    @staticmethod
    def from_json(row: JsonObject) -> Offer:
        fields = cast(dict[str, Any], dict(row))
        fields["metrics"] = tuple(Metric.from_json(metric) for metric in fields["metrics"])
        fields["supports"] = tuple(fields["supports"])
        fields["classes"] = tuple(fields.get("classes", ()))
        fields["limits"] = Limits(**(fields.get("limits") or {}))
        return Offer(**fields)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result, besides the sites. Complete: no default is filled in later."""

    task: str
    fingerprint: str
    task_config: JsonObject                 # valid by the offer's schema, defaults filled in
    strategy: str
    strategy_config: JsonObject             # the strategy's fields, defaults filled in
    rounds: int
    min_updates: int                        # fewer make no model
    cohort_fraction: float                  # of the roster that is there
    deadline_s: float                       # a round's budget of up-time
    seed: int
    clients: tuple[str, ...] = ()           # a fixed roster; empty: whoever offers the task
    start_model: str = ""                   # sha256 of the model to start from; empty: fresh
    best_metric: str = ""                   # by which the best model is told; empty: the first one with a goal
    patience: int | None = None             # rounds without a better model, after which it stops; None: never
    keep_every: int = 1                     # every how many rounds a model is kept; 0: first, best and last only
    encoding: str = F32                     # how params travel; a model is float32 whatever it says

    def to_json(self) -> JsonObject:
        """Without what fednode once did not know and nobody asked for: a config keeps its sha256 for ever."""
        added = {name for name, usual in ADDED_TO_CONFIG.items() if getattr(self, name) == usual}
        fields = {name: value for name, value in asdict(self).items() if name not in added}
        return cast(JsonObject, fields | {"clients": list(self.clients)})

    @staticmethod
    def from_json(row: JsonObject) -> RunConfig:
        fields = cast(dict[str, Any], dict(row))
        return RunConfig(**(fields | {"clients": tuple(fields["clients"])}))


ADDED_TO_CONFIG = {"best_metric": "", "patience": None, "keep_every": 1, "encoding": F32}     # since the first release


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a task."""

    id: str
    number: int                             # what people type: `#12`
    config: RunConfig
    metrics: tuple[Metric, ...]             # what the task declares; pinned with the fingerprint
    status: RunStatus = RunStatus.QUEUED
    reason: str = ""                        # one sentence: why it waits, is paused or failed

    @property
    def config_sha256(self) -> str:
        return sha256_of(self.config.to_json())


@dataclass(frozen=True, kw_only=True)
class Round:
    """One attempt of one round: its cohort, what it is told, and the seconds of up-time that it has."""

    run_id: str
    number: int                             # 0 = init, then train; the one after the last of these = evaluate
    attempt: int                            # from 1
    kind: RoundKind
    cohort: tuple[str, ...]                 # in name order
    config: JsonObject                      # the task's config, as the strategy sends it out
    base_model: str                         # sha256 of what the cohort receives; "" for init
    budget_s: float
    status: RoundStatus = RoundStatus.OPEN
    reason: str = ""

    @property
    def model_round(self) -> int:
        """The round whose committed model this round's evaluations measure."""
        return self.number - 1


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One client's work in one attempt of a round."""

    run_id: str
    number: int
    attempt: int
    client: str                             # its name
    kind: RoundKind
    status: AssignmentStatus = AssignmentStatus.WAITING
    deliveries: int = 0

    @property
    def key(self) -> tuple[str, int, int, str]:
        return (self.run_id, self.number, self.attempt, self.client)


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one client's training brought."""

    client: str                             # its name
    params: Params
    num_examples: int
    environment: JsonObject = field(default_factory=dict)     # versions, device, threads: the scope of "same bits"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An assignment that brought no update, and why."""

    client: str                             # its name
    code: FailureCode
    reason: str                             # one sentence, fit for the dashboard
    traceback: str = ""

    def __post_init__(self) -> None:
        """A stranger's words may hold a NUL, which no database takes."""
        for name in ("reason", "traceback"):
            object.__setattr__(self, name, getattr(self, name).replace("\0", "\\0"))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What leads from the model that a round started from to one of its updates. For people: it decides nothing."""

    norm: float                             # its length
    cosine: float | None                    # of its angle to the round's mean change; None: one of them is nothing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one client of a cohort brought: an update or a failure, and what it measured before."""

    client: str                             # its name
    update: Update | None = None
    failure: Failure | None = None
    evaluation: Metrics | None = None       # of the model that it received
    change: Change | None = None            # of its update, once that is in a model

    @property
    def is_missing(self) -> bool:
        """Whether the client was silent, so that the store must freeze the round before it goes on."""
        return self.failure is not None and self.failure.code in (FailureCode.DEADLINE, FailureCode.GONE)


@dataclass(frozen=True)
class State:
    """What a strategy carries from round to round: the params, and its memory as named params."""

    params: Params
    memory: Mapping[str, Params] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state after a committed round: what a restart goes on from."""

    run_id: str
    round: int
    state: State
    model_sha256: str


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best model of a run, among those that were measured."""

    metric: str                             # by which it is
    round: int
    value: float                            # pooled


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands: its last checkpoint, the round that is open (if one is), the next attempt.

    `next_round` is 0 before model 0; `core/best.py` says of which kind it is.
    """

    checkpoint: Checkpoint | None
    open_round: Round | None
    next_round: int
    next_attempt: int
    last_kind: RoundKind | None = None      # of the last committed round
    best: Best | None = None                # of the models before the newest; only where the run has patience


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """What a committed round says of itself."""

    number: int
    kind: RoundKind
    num_updates: int
    failures: tuple[Failure, ...]
    pooled: tuple[Pooled, ...]              # of the model that the cohort received
    model_sha256: str                       # of the model that the round made (or measured)


def by_client_name(thing: Outcome | Update | Failure | Assignment) -> bytes:
    """The order of everything that is summed, listed or hashed: byte order of names."""
    return thing.client.encode()


def evaluations_of(outcomes: Sequence[Outcome]) -> dict[str, Metrics]:
    return {o.client: o.evaluation for o in outcomes if o.evaluation is not None}


def changes_of(outcomes: Sequence[Outcome]) -> dict[str, Change]:
    return {o.client: o.change for o in outcomes if o.change is not None}


def updates_of(outcomes: Sequence[Outcome]) -> tuple[Update, ...]:
    return tuple(o.update for o in sorted(outcomes, key=by_client_name) if o.update is not None)


def failures_of(outcomes: Sequence[Outcome]) -> tuple[Failure, ...]:
    return tuple(o.failure for o in sorted(outcomes, key=by_client_name) if o.failure is not None)
