"""Classes by what people type: an installed name, or `file.py:Class`. Tasks and strategies are found in this one way.

Only what is installed or named at this machine is ever loaded; nothing here comes over the wire. What makes a class a
task or a strategy is said in `tasks/registry.py` and `strategies/registry.py`.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from fednode.errors import BadConfig, NotFound, TaskFailed

_FILE_SPEC = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
UNSAVED = "unsaved"             # instead of a hash, of a class in no file: it never leaves its process


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where classes of one sort are looked for."""

    word: str                               # what one of them is called: "task"
    base: type                              # what they extend
    group: str                              # of entry points
    require: Callable[[type, str], None]    # raises NotFound where a class (asked for by that text) cannot be used
    own: str                                # how people name one of their own: the end of a fix
    built_in: Mapping[str, type] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Of what comes with fednode and with other installed packages."""
        found = {point.name for point in metadata.entry_points(group=self.group)}
        return [*self.built_in, *sorted(found - self.built_in.keys())]

    def installed(self, name: str) -> type:
        """Raises NotFound (with what there is), TaskFailed (its code raises)."""
        if name in self.built_in:
            return self.built_in[name]
        points = {point.name: point for point in metadata.entry_points(group=self.group)}
        if name not in points:
            raise self._unknown(name)
        try:
            kind: type = points[name].load()
        except ModuleNotFoundError as error:
            raise missing_module(self.word, name, error) from error
        except Exception as error:          # a stranger's package
            raise _cannot_import(self.word, name, error) from error
        self._require(kind, name)
        return kind

    def in_file(self, spec: str) -> type:
        """The class that `spec`, of the form file.py:Class or file.py, names. Raises as `installed` does."""
        found = _FILE_SPEC.fullmatch(spec.strip())
        assert found is not None, f"ask is_file_spec first: {spec}"
        path = Path(found["file"]).expanduser()
        try:
            source = path.read_bytes()
        except OSError as error:
            raise NotFound(
                f"the {self.word} file {path} cannot be read: {error.strerror}",
                fix=f"check the path; it is looked for from {Path.cwd()}",
            ) from None
        kind = self._picked(path, found["name"], _imported(self.word, path, source))
        self._require(kind, f"{path}:{kind.__name__}")
        return kind

    def name_of(self, kind: type) -> str | None:
        """The name under which the class is installed; None where it is not."""
        built_in = next((name for name, known in self.built_in.items() if known is kind), None)
        place = f"{kind.__module__}:{kind.__qualname__}"
        points = (point.name for point in metadata.entry_points(group=self.group) if point.value == place)
        return built_in or next(points, None)

    def checked(self, kind: type) -> type:
        """A class that was handed over. Raises NotFound where it cannot be used."""
        self._require(kind, kind.__qualname__)
        return kind

    def _require(self, kind: object, asked: str) -> None:
        if not (isinstance(kind, type) and issubclass(kind, self.base)):
            base = f"fednode.{self.base.__name__}"
            raise NotFound(f"{asked} is no {self.word}", fix=f"a {self.word} is a class that extends {base}")
        self.require(kind, asked)

    def _unknown(self, name: str) -> NotFound:
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return NotFound(
            f"no installed {self.word} is called {name!r}",
            fix=f"{hint}installed: {', '.join(names) or 'none'}; {self.own}",
        )

    def _picked(self, path: Path, class_name: str | None, module: ModuleType) -> type:
        """The class that was named, or the only one there is."""
        kinds = {
            name: kind for name, kind in vars(module).items()
            if isinstance(kind, type) and issubclass(kind, self.base) and kind.__module__ == module.__name__
        }
        names = ", ".join(sorted(kinds)) or "none"
        if class_name is None and len(kinds) == 1:
            return next(iter(kinds.values()))
        if class_name is None:
            plural = self.word.removesuffix("y") + ("ies" if self.word.endswith("y") else "s")
            raise NotFound(f"{path} holds {len(kinds)} {plural}: {names}", fix=f"say which: {path}:ClassName")
        if class_name not in kinds:
            raise NotFound(
                f"{path} has no {self.word} {class_name!r}",
                fix=f"classes in it that extend {self.base.__name__}: {names}",
            )
        return kinds[class_name]


def is_file_spec(text: str) -> bool:
    """Whether `text` is of the form file.py:Class or file.py."""
    return _FILE_SPEC.fullmatch(text.strip()) is not None


def refusal_of_file(strategy: str) -> BadConfig:
    """Why a central node's run cannot have a strategy from a file: who asks for it may be anywhere."""
    return BadConfig(
        f"the strategy {strategy!r} is a file, and a central node takes no code over the wire",
        fix="install it at the central node (entry point in fednode.strategies) and name it, or simulate it: "
        f"fednode simulate TASK --strategy {strategy}",
    )


def file_of(kind: type) -> Path | None:
    """The file that the class was read from; None where it was typed into a notebook or a prompt."""
    try:
        file = Path(inspect.getfile(kind))
    except (OSError, TypeError):
        return None
    return file if file.is_file() else None


def source_fingerprint(kind: type, name: str) -> str:
    """`name#` + the start of the hash of its file's source: the same file elsewhere has the same."""
    file = file_of(kind)
    return f"{name}#{hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file else UNSAVED}"


def place_of(error: BaseException, kind: type) -> str:
    """`my_strategy.py, line 12`: the last line of the class's own file on the way to the error, else where it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == file_of(kind)] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


def missing_module(word: str, asked: str, error: ModuleNotFoundError) -> NotFound:
    name = (error.name or "").partition(".")[0]
    package = "'fednode[torch]'" if name == "torch" else name
    return NotFound(f"the {word} {asked} needs {name}, which is not installed here", fix=f"pip install {package}")


def _cannot_import(word: str, asked: str, error: BaseException) -> TaskFailed:
    where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return TaskFailed(
        f"the {word} {asked} cannot be imported: {type(error).__name__}: {error}{where}", fix="mend its code"
    )


def _imported(word: str, path: Path, source: bytes) -> ModuleType:
    """The file as a module: one for each path and content, however often it is asked for."""
    path = path.resolve()
    name = f"fednode_own_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotFound(f"{path} is no Python file", fix=f"a {word} file ends in .py")
    module = sys.modules[name] = module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))       # its neighbours, last so that none hides an installed module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        raise missing_module(word, str(path), error) from error
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _cannot_import(word, str(path), error) from error
    return module
