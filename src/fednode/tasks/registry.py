"""Tasks by what people type: an installed name, `file.py:Class`, or the class itself.

A task's fingerprint says which code it is: a run pins one, and every client must have it. Only what is installed or
named at a site is ever loaded; nothing here comes over the wire. What a task is: `base.py`.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from fednode.core.json import JsonObject
from fednode.core.metrics import check_metrics
from fednode.core.records import Offer
from fednode.errors import NotFound, TaskFailed
from fednode.tasks.base import Site, Task, config_schema, parse_config
from fednode.tasks.torch_task import TorchTask

GROUP = "fednode.tasks"         # of entry points
_FILE_SPEC = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
UNSAVED = "unsaved"             # instead of a hash, of a class in no file: it never leaves its process


@dataclass(frozen=True, kw_only=True)
class TaskType:
    """A task that is there: its class, and how others know it."""

    spec: str                   # what loads it again
    name: str
    fingerprint: str            # `mnist@1`, or `digits#` + the hash of its file's source
    kind: type[Task]

    def bind(self, config: JsonObject) -> Task:
        """An instance for one config; what is missing gets its default. Raises BadConfig."""
        return self.kind(parse_config(self.kind.Config, config))


def load_task(spec: str | type[Task]) -> TaskType:
    """The task of that name, file and class. Raises NotFound (with what there is), TaskFailed (its code raises)."""
    if isinstance(spec, type):
        return _of_class(spec)
    if found := _FILE_SPEC.fullmatch(spec.strip()):
        return _of_file(Path(found["file"]).expanduser(), found["name"])
    return _of_entry_point(spec)


def installed_tasks() -> list[str]:
    """Names of the tasks that come with fednode and with other installed packages."""
    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def offer_of(task_type: TaskType, site: Site) -> Offer:
    """What a client with this site says of the task. Raises DataError where its data cannot be used."""
    kind = task_type.kind
    check_metrics(kind.measures)
    return Offer(
        task=task_type.name, fingerprint=task_type.fingerprint, schema=config_schema(kind.Config),
        metrics=kind.measures, supports=kind.supports, default_rounds=kind.default_rounds,
        summary=task_type.bind({}).check(site),
    )


def _of_class(kind: type) -> TaskType:
    _require_task(kind, kind.__qualname__)
    for point in metadata.entry_points(group=GROUP):
        if point.value == f"{kind.__module__}:{kind.__qualname__}":
            return _task_type(kind, point.name)
    file = _file_of(kind)
    return _task_type(kind, f"{file or kind.__module__}:{kind.__qualname__}")


def _of_entry_point(name: str) -> TaskType:
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in points:
        close = difflib.get_close_matches(name, points, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise NotFound(
            f"no installed task is called {name!r}",
            fix=f"{hint}installed: {', '.join(sorted(points)) or 'none'}; a task of your own is named as file.py:Class",
        )
    try:
        kind = points[name].load()
    except ModuleNotFoundError as error:
        raise _missing_module(name, error) from error
    except Exception as error:          # a stranger's package
        raise _cannot_import(name, error) from error
    _require_task(kind, name)
    return _task_type(kind, name)


def _of_file(path: Path, class_name: str | None) -> TaskType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"the task file {path} cannot be read: {error.strerror}",
            fix=f"check the path; it is looked for from {Path.cwd()}",
        ) from None
    module = _imported(path, source)
    kinds = {
        name: kind for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Task) and kind.__module__ == module.__name__
    }
    kind = _picked(path, class_name, kinds)
    _require_task(kind, f"{path}:{kind.__name__}")
    return _task_type(kind, f"{path.absolute()}:{kind.__name__}")


def _picked(path: Path, class_name: str | None, kinds: dict[str, type[Task]]) -> type[Task]:
    """The class that was named, or the only one there is."""
    names = ", ".join(sorted(kinds)) or "none"
    if class_name is None and len(kinds) == 1:
        return next(iter(kinds.values()))
    if class_name is None:
        raise NotFound(f"{path} holds {len(kinds)} tasks: {names}", fix=f"say which: {path}:ClassName")
    if class_name not in kinds:
        raise NotFound(f"{path} has no task {class_name!r}", fix=f"classes in it that extend Task: {names}")
    return kinds[class_name]


def _imported(path: Path, source: bytes) -> ModuleType:
    """The file as a module: one for each path and content, however often it is asked for."""
    path = path.resolve()
    name = f"fednode_task_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotFound(f"{path} is no Python file", fix="a task file ends in .py")
    module = sys.modules[name] = module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))       # its neighbours, last so that none hides an installed module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        raise _missing_module(str(path), error) from error
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _cannot_import(str(path), error) from error
    return module


def _require_task(kind: object, asked: str) -> None:
    """Raise NotFound unless `kind` is a task that can be used here."""
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise NotFound(f"{asked} is no task", fix="a task is a class that extends fednode.Task or fednode.TorchTask")
    if missing := ", ".join(sorted(kind.__abstractmethods__)):
        raise NotFound(f"the task {asked} does not define {missing}", fix=f"define it in the class {kind.__name__}")
    if issubclass(kind, TorchTask) and find_spec("torch") is None:
        raise _missing_module(asked, ModuleNotFoundError(name="torch"))


def _task_type(kind: type[Task], spec: str) -> TaskType:
    """Name and version count only where the class itself gives them: a subclass of `Mnist` is not `mnist@1`.

    A version is believed of installed tasks only: a file is edited without raising it.
    """
    own = vars(kind)
    name, version = own.get("name") or kind.__name__.lower(), own.get("version")
    if version is not None and spec in installed_tasks():
        return TaskType(spec=spec, name=name, fingerprint=f"{name}@{version}", kind=kind)
    file = _file_of(kind)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file else UNSAVED
    return TaskType(spec=spec, name=name, fingerprint=f"{name}#{digest}", kind=kind)


def _file_of(kind: type) -> Path | None:
    """The file that the class was read from; None where it was typed into a notebook or a prompt."""
    try:
        file = Path(inspect.getfile(kind))
    except (OSError, TypeError):
        return None
    return file if file.is_file() else None


def _missing_module(asked: str, error: ModuleNotFoundError) -> NotFound:
    name = (error.name or "").partition(".")[0]
    package = "'fednode[torch]'" if name == "torch" else name
    return NotFound(f"the task {asked} needs {name}, which is not installed here", fix=f"pip install {package}")


def _cannot_import(asked: str, error: BaseException) -> TaskFailed:
    where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return TaskFailed(
        f"the task {asked} cannot be imported: {type(error).__name__}: {error}{where}", fix="mend its code"
    )
