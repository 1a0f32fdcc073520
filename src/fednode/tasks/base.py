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
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from fednode.core.data_report import DataReport
from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.errors import BadConfig, FieldErrors, TaskFailed
from fednode.tasks.state_dirs import StateDir

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]

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
    device: str = "cpu"             # where to compute: cpu, cuda, cuda:1, mps; a task is never told `auto`


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
    state: StateDir | None = None   # see `state_dir`
    report: Callable[[int, Mapping[str, float]], None] = field(default=_say_nothing)   # (epoch from 1, local metrics)
    is_cancelled: Callable[[], bool] = field(default=_never)

    @property
    def state_dir(self) -> Path:
        """A folder of this client alone that stays from round to round of a run, as its last visit left it.

        What a visit writes there counts once its update is reported: a visit that is repeated finds what the first
        one found, and what an evaluation without training writes is dropped. Nothing of it ever leaves the site. Of a
        run that has ended it is deleted. Raises TaskFailed in a Visit made by hand without `state`.
        """
        if self.state is None:
            raise TaskFailed("this visit has no state dir", fix="make it as Visit(..., state=StateDir(folder=...))")
        return self.state.open()


class Cancelled(Exception):
    """Raised by a task that saw `visit.is_cancelled()`; the visit ends without an update."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What one input of `predict` is: whole numbers from 0 to 255, as the task's data have them."""

    height: int
    width: int
    channels: int = 1
    is_drawn: bool = False          # by hand, ink (255) on paper (0): Try it has a sheet for it, of 28 x 28

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its array; a grey picture has no axis for its one channel."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    @property
    def num_values(self) -> int:
        return self.height * self.width * self.channels

    def __str__(self) -> str:
        return " x ".join(str(size) for size in self.shape)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A few pictures to try a model with, which anybody may see: never a site's own."""

    pictures: Bytes                 # (n, *picture.shape)
    labels: tuple[str, ...]         # what each of them shows: one of the task's `classes`
    source: str                     # in words: where they come from


class Task(ABC):
    """A learning problem. Subclasses set the class variables and implement the three verbs.

    A task whose models people may try also declares `picture` and `classes`, and has `predict`.
    """

    name: ClassVar[str] = ""                            # empty: the class's name in lower case
    version: ClassVar[int | None] = None                # built-in tasks: raised when results change
    Config: ClassVar[type[TrainConfig]] = TrainConfig
    measures: ClassVar[tuple[Metric, ...]] = (Metric(name="accuracy"), Metric(name="loss", goal="min"))
    supports: ClassVar[tuple[str, ...]] = ()            # what strategies may need, e.g. "proximal"
    default_rounds: ClassVar[int] = 5
    picture: Picture | None = None      # what `predict` takes, set in __init__ if the config decides; None: no trying
    classes: ClassVar[tuple[str, ...]] = ()             # what they tell apart, in the order of `predict`'s columns
    notice: ClassVar[str] = ""                          # a sentence to be read wherever its models are shown or tried

    device: str = "cpu"                                 # where `predict` computes; whoever asks it may name another

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

    def report(self, site: Site) -> DataReport | None:
        """All that is to be said of the site's data, file by file; it stays there. None: `check` says it all."""
        return None

    def predict(self, params: Params, pictures: Bytes) -> Floats:
        """The probability of each class, (n, classes), for pictures (n, *picture.shape)."""
        raise TaskFailed(
            f"the task {type(self).__name__} declares what its models predict, and not how",
            fix="define predict(self, params, pictures) in its class",
        )

    def picture_from_file(self, content: bytes) -> Bytes:
        """One picture, *picture.shape, as `dataset` makes it of such a file.

        Raises NotAPicture, as `pictures.decode` does, where the file is none.
        """
        raise TaskFailed(
            f"the task {type(self).__name__} reads no files of pictures",
            fix="define picture_from_file(self, content) in its class, or send whole numbers",
        )

    def explain(self, params: Params, pictures: Bytes, labels: NDArray[np.int64]) -> Floats | None:
        """Heat maps, (n, height, width) from 0 to 1: what in each picture speaks for its label, an index of `classes`.

        They may be coarser than the pictures: whoever shows them stretches them. None: the task has no such maps.
        """
        return None

    def samples(self) -> Samples | None:
        """Pictures to try its models with at once; None: it brings none."""
        return None


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    return _ADAPTERS.setdefault(kind, TypeAdapter(kind))


def config_schema(kind: type) -> JsonObject:
    """JSON schema of a config dataclass, as forms and `--set` need it: closed, with defaults."""
    schema: dict[str, Any] = _adapter(kind).json_schema()
    for name in SET_BY_STRATEGY:
        schema.get("properties", {}).pop(name, None)
    return schema | {"additionalProperties": False}


def parse_config(kind: type, values: JsonObject, place: str = "") -> Any:
    """The dataclass `kind` from JSON values, checked. Raises BadConfig naming every field that is wrong.

    `place`: what these values are of a request, so that a field is `strategy.mu`.
    """
    known = {known.name for known in fields(kind)}
    wrong = FieldErrors()
    for name in values.keys() - known:
        told, fix = f"{kind.__name__} has no field {name!r}", f"its fields: {', '.join(sorted(known)) or 'none'}"
        wrong.add(BadConfig(told, fix=fix, field=_within(place, name)))
    try:
        found = _adapter(kind).validate_python({name: values[name] for name in values if name in known})
    except ValidationError as error:
        wrong.add(*(bad_field(told, place) for told in error.errors()))
    wrong.raise_any()
    return found


def bad_field(told: Any, place: str = "") -> BadConfig:
    """What pydantic says of one field, as we say it."""
    where = ".".join(str(part) for part in told["loc"])
    limits = [words.format(_told(told["ctx"][name])) for name, words in _LIMITS.items() if name in told.get("ctx", {})]
    return BadConfig(
        f"{where} = {told.get('input')!r}: {told['msg']}",
        fix=f"set {where} to {limits[0]}" if limits else f"correct the field {where!r}",
        field=_within(place, str(told["loc"][0]) if told["loc"] else ""),
    )


def _told(limit: object) -> str:
    return str(limit).removesuffix(".0")


_LIMITS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}"}      # pydantic's words


def _within(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
