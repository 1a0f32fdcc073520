"""Classes by what people type: an installed name, or `file.py:Class`. Tasks and strategies are found in this one way.

Only what is installed or named at this machine is ever loaded; nothing here comes over the wire. A file is known by its
source, and by that of the files beside it that it imports: its neighbours. What makes a class a task or a strategy is
said in `tasks/registry.py` and `strategies/registry.py`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from fednode.errors import BadConfig, FednodeError, NotFound, TaskFailed

_FILE_SPEC = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
NOT_BESIDE = frozenset({"fednode", *sys.stdlib_module_names})      # what these names mean is no neighbour's to say
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
            module = _imported(self.word, path)
        except OSError as error:
            raise NotFound(
                f"the {self.word} file {path} cannot be read: {error.strerror}",
                fix=f"check the path; it is looked for from {Path.cwd()}",
            ) from None
        kind = self._picked(path, found["name"], module)
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
        if class_name is None:
            return self._only(path, kinds)
        if class_name not in kinds:
            close = difflib.get_close_matches(class_name, kinds, n=1)
            hint = f"did you mean {path}:{close[0]}? " if close else ""
            told = f"{path} has no {self.word} {class_name!r}{_what_else(vars(module).get(class_name), module)}"
            raise NotFound(told, fix=f"{hint}classes in it that extend {self.base.__name__}: {_listed(kinds)}")
        return kinds[class_name]

    def _only(self, path: Path, kinds: Mapping[str, type]) -> type:
        if not kinds:
            fix = f"write a class in it that extends fednode.{self.base.__name__}; what it imports lies elsewhere"
            raise NotFound(f"there is no {self.word} in {path}", fix=fix)
        if len(kinds) > 1:
            plural = self.word.removesuffix("y") + ("ies" if self.word.endswith("y") else "s")
            fix = f"say which, for example {path}:{next(iter(kinds))}"
            raise NotFound(f"{path} holds {len(kinds)} {plural}: {_listed(kinds)}", fix=fix)
        return next(iter(kinds.values()))


def _listed(kinds: Mapping[str, type]) -> str:
    return ", ".join(sorted(kinds)) or "none"


def _what_else(found: object, module: ModuleType) -> str:
    """What a name means in the file that is no class of the right sort; empty where it means nothing."""
    if not isinstance(found, type):
        return "" if found is None else f": that is a {type(found).__name__}"
    return ": that class extends something else" if found.__module__ == module.__name__ else (
        f": it is imported there from {found.__module__}, so name that file"
    )


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
    """`name#` + the start of the hash of its source: the same files elsewhere have the same."""
    file = file_of(kind)
    return f"{name}#{hashlib.sha256(source_of(file)).hexdigest()[:12] if file else UNSAVED}"


def source_of(file: Path) -> bytes:
    """What the file says, and after it what its neighbours say, each under its name. Raises OSError."""
    parts = [file.read_bytes()]
    for path in sorted(path for paths in neighbours_of(file).values() for path in paths):
        parts.append(f"\n# --- {path.relative_to(file.resolve().parent).as_posix()}, beside it ---\n".encode())
        parts.append(path.read_bytes())
    return b"".join(parts)


def neighbours_of(file: Path) -> dict[str, list[Path]]:
    """The modules beside the file that it imports, anywhere in it or by way of one another: their files, by name."""
    folder = file.resolve().parent
    if str(folder) in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}                           # a package that was installed has neighbours that are nothing to it
    found: dict[str, list[Path]] = {}
    waiting = [file]
    while waiting:
        for name in _imports(waiting.pop().read_bytes()) - found.keys() - NOT_BESIDE:
            if files := [path for path in _files_of(folder / name) if path != file.resolve()]:
                found[name] = files
                waiting.extend(files)
    return found


def _imports(source: bytes) -> set[str]:
    """First names of the modules that a source imports; of no source that is no Python."""
    with suppress(SyntaxError, ValueError):
        return {name.partition(".")[0] for node in ast.walk(ast.parse(source)) for name in _imported_by(node)}
    return set()


def _imported_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level <= 1:
        yield from [node.module] if node.module else [alias.name for alias in node.names]


def _files_of(module: Path) -> list[Path]:
    """Of the module or package that lies there; of a folder that is no package, none."""
    if (module / "__init__.py").is_file():
        return sorted(path for path in module.rglob("*.py") if path.is_file())
    file = module.with_name(f"{module.name}.py")
    return [file] if file.is_file() else []


def place_of(error: BaseException, kind: type) -> str:
    """`my_strategy.py, line 12`: the last line of the class's own file on the way to the error, else where it arose."""
    return _place(error, file_of(kind))


def _place(error: BaseException, file: Path | None) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == file] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


def missing_module(word: str, asked: str, error: ModuleNotFoundError) -> NotFound:
    name = (error.name or "").partition(".")[0]
    package = "'fednode[torch]'" if name == "torch" else name
    return NotFound(f"the {word} {asked} needs {name}, which is not installed here", fix=f"pip install {package}")


def _cannot_import(word: str, asked: str, error: BaseException, file: Path | None = None) -> TaskFailed:
    where = f"line {error.lineno}" if isinstance(error, SyntaxError) else _place(error, file)
    if isinstance(error, FednodeError):
        return TaskFailed(f"the {word} {asked} cannot be imported: {error.message} ({where})", fix=error.fix)
    fix = "mend its code"
    if isinstance(error, ImportError) and "relative import" in str(error):
        fix = "import what lies beside it without the dot: `from model import Net`, not `from .model import Net`"
    return TaskFailed(f"the {word} {asked} cannot be imported: {type(error).__name__}: {error} ({where})", fix=fix)


def _imported(word: str, path: Path) -> ModuleType:
    """The file as a module: one for each path and content, however often it is asked for."""
    path = path.resolve()
    name = f"fednode_own_{hashlib.sha256(str(path).encode() + source_of(path)).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotFound(f"{path} is no Python file", fix=f"a {word} file ends in .py")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))       # its neighbours, last so that none hides an installed module
    _forget_edited(path)
    _require_own_neighbours(word, path)
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        raise missing_module(word, str(path), error) from error
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _cannot_import(word, str(path), error, path) from error
    return module


def _require_own_neighbours(word: str, path: Path) -> None:
    """Raise NotFound where a neighbour's name means another module here: another code would run than the file's own."""
    for name, files in neighbours_of(path).items():
        found = _meaning(name)
        if found is not None and found.resolve() not in files:
            raise NotFound(
                f"the {word} {path} imports {name!r}, which lies beside it, but here that name means {found}",
                fix=f"give {files[0].name if len(files) == 1 else name} another name",
            )


def _meaning(name: str) -> Path | None:
    """The file that `import name` would take, or has taken."""
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if loaded is None and (spec := find_spec(name)) is not None:
        file = spec.origin
    return Path(file) if file else None


def _forget_edited(path: Path) -> None:
    """Have neighbours that were loaded and then edited be loaded again: a module is else kept as it was."""
    for name, files in neighbours_of(path).items():
        now = hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
        if _LOADED.setdefault(files[0], now) != now:
            for loaded in [known for known in sys.modules if known.partition(".")[0] == name]:
                del sys.modules[loaded]
        _LOADED[files[0]] = now


_LOADED: dict[Path, bytes] = {}     # first files of neighbours, and the hash of what was loaded
