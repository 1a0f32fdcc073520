"""What a task is: a learning problem. Initial params, local training, evaluation, and the site's data check.

Implement `Task` for any framework, or `torch_task.TorchTask` for PyTorch. An instance is bound to one config
(`self.config`); a new one is made for every new config, so it may keep what it loaded. Nothing here is async,
and nothing a task returns may depend on a clock, on the order of arrival or on a generator it did not seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.errors import BadConfig

SET_BY_STRATEGY = frozenset({"proximal_mu"})     # fields of TrainConfig that no person sets


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Which part of a shared folder is this site's: part `index` (from 1) of `count`."""

    index: int
    count: int
    split: str = "iid"              # iid | dirichlet:ALPHA | shards:N
    seed: int = 0                   # apart from the run's seed: the data stays while the runs change


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a client node tells a task."""

    client: str                     # its name
    data: Path | None = None        # the data folder; None: the task knows where to look
    partition: Partition | None = None
    offline_sample: bool = False    # use the sample bundled with fednode
    threads: int = 1                # 0: as many as there are cores


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training has. A task's `Config` extends it by its own fields and may set other defaults."""

    epochs: Annotated[int, Field(ge=1, le=10_000, description="Passes over the local data in one round")] = 1
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="Examples in one step")] = 32
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, description="Step size of local training")] = 0.1
    proximal_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0     # set by FedProx, not by people


def _say_nothing(epoch: int, metrics: Mapping[str, float]) -> None: ...


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One execution of an assignment, as the task sees it."""

    site: Site
    config: Any                     # the task's own Config; the same as `task.config`
    seed: int                       # of this client in this round
    client_seed: int                # of this client in this run: for what is drawn once
    round: int
    state_dir: Path | None = None   # stays at this client between rounds; None in a simulation without one
    report: Callable[[int, Mapping[str, float]], None] = field(default=_say_nothing)   # (epoch from 1, local metrics)
    is_cancelled: Callable[[], bool] = field(default=_never)


class Cancelled(Exception):
    """Raised by a task that saw `visit.is_cancelled()`; the visit ends without an update."""


class Task(ABC):
    """A learning problem. Subclasses set the class variables and implement the three verbs."""

    name: ClassVar[str] = ""                            # empty: the class's name in lower case
    version: ClassVar[int | None] = None                # built-in tasks: raised when results change
    Config: ClassVar[type[TrainConfig]] = TrainConfig
    measures: ClassVar[tuple[Metric, ...]] = (Metric(name="accuracy"), Metric(name="loss", goal="min"))
    supports: ClassVar[tuple[str, ...]] = ()            # what strategies may need, e.g. "proximal"
    default_rounds: ClassVar[int] = 5

    def __init__(self, config: TrainConfig | None = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @abstractmethod
    def initial_params(self, seed: int) -> Params:
        """The params that a fresh run starts from; equal for equal seeds."""

    @abstractmethod
    def train(self, params: Params, visit: Visit) -> Update:
        """Local training from `params`: new params of the same manifest, and the examples they were trained on."""

    @abstractmethod
    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        """What `params` achieve on this site's held-out data."""

    def check(self, site: Site) -> JsonObject:
        """A summary of the site's data (counts, never examples). Raises DataError where it cannot be used."""
        return {}


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    return _ADAPTERS.setdefault(kind, TypeAdapter(kind))


def config_schema(kind: type) -> JsonObject:
    """JSON schema of a config dataclass, as forms and `--set` need it: closed, with defaults."""
    schema: dict[str, Any] = _adapter(kind).json_schema()
    for name in SET_BY_STRATEGY:
        schema.get("properties", {}).pop(name, None)
    return schema | {"additionalProperties": False}


def parse_config(kind: type, values: JsonObject) -> Any:
    """The dataclass `kind` from JSON values, checked. Raises BadConfig naming the first field that is wrong."""
    known = {known.name for known in fields(kind)}
    for name in values:
        if name not in known:
            raise BadConfig(f"{kind.__name__} has no field {name!r}", fix=f"its fields: {', '.join(sorted(known))}")
    try:
        return _adapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        wrong = f"{where} = {first.get('input')!r}: {first['msg']}"
        raise BadConfig(wrong, fix=f"correct the field {where!r}") from None
