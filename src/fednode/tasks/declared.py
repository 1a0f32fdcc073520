"""What is checked of a task's class before it is offered: its metrics, its config, its own check of the data.

Each of these would else go wrong later, or without a word: a setting that nobody can set, a metric that nobody sees.
A task is a stranger's code: what it raises here is TaskFailed, with the file and the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from fednode.core.json import JsonObject, canonical_json
from fednode.core.metrics import Metric, check_metrics
from fednode.errors import BadConfig, FednodeError, TaskFailed
from fednode.own_code import place_of
from fednode.tasks.base import Site, Task, TrainConfig, config_schema, parse_config

T = TypeVar("T")

_INIT = "begin it so: def __init__(self, config=None): super().__init__(config)"
_AS_DATACLASS = "write @dataclass(frozen=True, kw_only=True) above `class Config(TrainConfig)`"


def require_declared(kind: type[Task]) -> None:
    """Raise TaskFailed or BadConfig, naming the class variable that is not what it should be."""
    for name, wanted in (("measures", Metric), ("supports", str), ("classes", str)):
        found: object = getattr(kind, name)
        if not isinstance(found, tuple | list) or not all(isinstance(each, wanted) for each in found):
            raise TaskFailed(
                f"`{name}` of the task {kind.__name__} is {found!r}, and no tuple of {wanted.__name__}",
                fix=f"write {name} = ({_example(wanted)},), with its comma",
            )
    check_metrics(kind.measures)
    _require_config(kind)


def _example(wanted: type) -> str:
    return 'Metric(name="accuracy")' if wanted is Metric else '"..."'


def _require_config(kind: type[Task]) -> None:
    config: object = kind.Config
    if not (isinstance(config, type) and issubclass(config, TrainConfig) and is_dataclass(config)):
        told = f"`Config` of the task {kind.__name__} does not extend fednode.TrainConfig"
        raise TaskFailed(told, fix=f"{_AS_DATACLASS}, and say Config = Config in the task")
    for name in sorted(_unsettable(config)):
        fix = f"{_AS_DATACLASS}, and a type behind the name: {name}: int = ..."
        raise TaskFailed(f"{name!r} in `Config` of the task {kind.__name__} is no field: nobody could set it", fix=fix)
    try:
        config_schema(config)
        parse_config(config, {})
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        told = f"`Config` of the task {kind.__name__} has a field that no form can show: {str(error).partition('.')[0]}"
        raise TaskFailed(told, fix="give fields of the types int, float, bool, str, Literal[...] or list") from None
    except BadConfig as error:
        told = f"`Config` of the task {kind.__name__} cannot be made of its defaults: {error.message}"
        raise TaskFailed(told, fix="give every field a default that is allowed: the data are checked with it") from None


def _unsettable(config: type) -> set[str]:
    """What looks like a setting and is none: in a class that is no dataclass, or without a type."""
    known = {field.name for field in fields(config)} if is_dataclass(config) else set()
    found: set[str] = set()
    for kind in config.__mro__[: config.__mro__.index(TrainConfig)]:
        typed = {name: str(told) for name, told in vars(kind).get("__annotations__", {}).items()}
        is_bare = "__dataclass_fields__" not in vars(kind)
        found |= {name for name, told in typed.items() if "ClassVar" not in told and (is_bare or name not in known)}
        found |= {name for name, value in vars(kind).items() if name not in typed and _is_value(name, value)}
    return {name for name in found if not name.startswith("_")}


def _is_value(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, bool | int | float | str | tuple | list | dict)


def require_bound(task: Task) -> None:
    """Raise TaskFailed where its own __init__ has left out what every task has."""
    if not hasattr(task, "config"):
        told = f"__init__ of the task {type(task).__name__} does not call that of Task or TorchTask"
        raise TaskFailed(told, fix=_INIT)


def summary_of(task: Task, site: Site) -> JsonObject:
    """What the task's own check says of the site's data. Raises DataError (they cannot be used), TaskFailed."""
    kind = type(task)
    with its_own_code(kind, "check()"):
        found: Any = task.check(site)
    try:
        canonical_json(found)
    except Exception:                   # of whatever type its values are
        is_plain = False
    else:
        is_plain = isinstance(found, Mapping)
    if not is_plain:
        told = f"check() of the task {kind.__name__} returns {found!r:.200}, which cannot be sent as it is"
        raise TaskFailed(told, fix='return a dict of texts and plain numbers, int(...) of numpy\'s: {"rows": 120}')
    return found  # type: ignore[no-any-return]


def returned(found: T, kind: type, method: str) -> T:
    """What a method of a task gave. Raises TaskFailed where that is of another kind."""
    if not isinstance(found, kind):
        told = f"{method}() returned a {type(found).__name__}, and no {kind.__name__}"
        raise TaskFailed(told, fix=f"return a {kind.__name__} from it")
    return found


@contextmanager
def its_own_code(kind: type[Task], verb: str) -> Iterator[None]:
    """Whatever else a task's code raises in here is TaskFailed, with the file and the line."""
    try:
        yield
    except FednodeError:
        raise
    except Exception as error:
        told = f"{verb} of the task {kind.__name__} raised {type(error).__name__}: {error} ({place_of(error, kind)})"
        raise TaskFailed(told, fix=_fix_of(error, kind)) from error


def _fix_of(error: Exception, kind: type[Task]) -> str:
    is_unmade = isinstance(error, AttributeError) and isinstance(getattr(error, "obj", None), Task)
    is_of_init = "__init__" in vars(kind) and (is_unmade or "__init__()" in str(error))
    if is_of_init:
        return _INIT
    return "mend its code; `fednode doctor --task FILE:CLASS --data DIR` tries it again"
