"""Tasks by what people type: an installed name, `file.py:Class`, or the class itself.

A task's fingerprint says which code it is: a run pins one, and every client must have it. How a class is found is in
`own_code.py`; what a task is, in `base.py`; what is checked of one before it is offered, in `declared.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

from fednode.core.json import JsonObject
from fednode.core.records import Offer
from fednode.errors import NotFound
from fednode.own_code import Shelf, file_of, is_file_spec, missing_module, source_fingerprint
from fednode.tasks.base import Site, Task, config_schema, parse_config
from fednode.tasks.declared import its_own_code, require_bound, require_declared, summary_of
from fednode.tasks.torch_task import TorchTask


@dataclass(frozen=True, kw_only=True)
class TaskType:
    """A task that is there: its class, and how others know it."""

    spec: str                   # what loads it again
    name: str
    fingerprint: str            # `mnist@1`, or `digits#` + the hash of its file's source
    kind: type[Task]

    def bind(self, config: JsonObject) -> Task:
        """An instance for one config; what is missing gets its default. Raises BadConfig, TaskFailed."""
        values = parse_config(self.kind.Config, config)
        with its_own_code(self.kind, "__init__"):
            task = self.kind(values)
        require_bound(task)
        return task


def load_task(spec: str | type[Task]) -> TaskType:
    """The task of that name, file and class. Raises NotFound (with what there is), TaskFailed (its code raises)."""
    if isinstance(spec, type):
        return _of_class(spec)
    if is_file_spec(spec):
        kind = cast(type[Task], _SHELF.in_file(spec))
        return _task_type(kind, _place(kind))
    return _task_type(cast(type[Task], _SHELF.installed(spec)), spec)


def load_installed(name: str) -> TaskType:
    """The installed task of that name, and never a file: the name may come from another machine. Raises as above."""
    if name not in installed_tasks():
        raise NotFound(
            f"no task {name!r} is installed here",
            fix="install the package that has it, with its entry point in fednode.tasks",
        )
    return _task_type(cast(type[Task], _SHELF.installed(name)), name)


def installed_tasks() -> list[str]:
    """Names of the tasks that come with fednode and with other installed packages."""
    return _SHELF.names()


def offer_of(task_type: TaskType, site: Site) -> Offer:
    """What a client with this site says of the task. Raises DataError (its data cannot be used), TaskFailed."""
    kind = task_type.kind
    require_declared(kind)
    return Offer(
        task=task_type.name, fingerprint=task_type.fingerprint, schema=config_schema(kind.Config),
        metrics=kind.measures, supports=kind.supports, default_rounds=kind.default_rounds,
        summary=summary_of(task_type.bind({}), site), classes=kind.classes, notice=kind.notice,
    )


def _of_class(kind: type[Task]) -> TaskType:
    _SHELF.checked(kind)
    return _task_type(kind, _SHELF.name_of(kind) or _place(kind))


def _place(kind: type[Task]) -> str:
    file = file_of(kind)
    return f"{file.absolute() if file else kind.__module__}:{kind.__qualname__}"


def _require_task(kind: type, asked: str) -> None:
    """Raise NotFound unless the task can be used here."""
    if missing := ", ".join(sorted(getattr(kind, "__abstractmethods__", ()))):
        raise NotFound(f"the task {asked} does not define {missing}", fix=f"define it in the class {kind.__name__}")
    if issubclass(kind, TorchTask) and find_spec("torch") is None:
        raise missing_module("task", asked, ModuleNotFoundError(name="torch"))


def _task_type(kind: type[Task], spec: str) -> TaskType:
    """Name and version count only where the class itself gives them: a subclass of `Mnist` is not `mnist@1`.

    A version is believed of installed tasks only: a file is edited without raising it.
    """
    own = vars(kind)
    name, version = own.get("name") or kind.__name__.lower(), own.get("version")
    if version is not None and spec in installed_tasks():
        return TaskType(spec=spec, name=name, fingerprint=f"{name}@{version}", kind=kind)
    return TaskType(spec=spec, name=name, fingerprint=source_fingerprint(kind, name), kind=kind)


_SHELF = Shelf(
    word="task", base=Task, group="fednode.tasks", require=_require_task,
    own="a task of your own is named as file.py:Class",
)
