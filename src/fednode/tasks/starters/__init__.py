"""The first file of a task of one's own: which names are fit, and what is written. The words are in the texts beside.

`fednode task new` is its door. A task's name is its module's too, so it must not hide what others import.
"""

from __future__ import annotations

import builtins
import keyword
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import fednode
from fednode.errors import NotFound, UsageError

HERE = Path(__file__).parent
FRAMEWORKS = {"torch": "hidden", "numpy": "decay", "sklearn": "alpha"}      # and the field that its starter has
TRIED_VALUES = {"hidden": "8", "decay": "0.01", "alpha": "0.001"}           # of that field, in the starter's test
PACKAGES = {"torch": "'fednode[torch]'", "sklearn": "scikit-learn"}         # what pip calls them
MAX_NAME = 40
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Starter:
    """What was written."""

    task: Path
    test: Path
    class_name: str
    own_field: str              # of its config
    own_value: str              # another than the default
    missing: Mapping[str, str]  # what it needs and is not installed here -> what pip calls it

    @property
    def spec(self) -> str:
        return f"{self.task}:{self.class_name}"


def write_starter(name: str, framework: str, folder: Path) -> Starter:
    """A task that works, and its test. Raises UsageError (a name that is not fit, a file that is there already)."""
    if framework not in FRAMEWORKS:
        fix = f"take one of: {', '.join(FRAMEWORKS)}; with any other, begin with numpy and change `train`"
        raise NotFound(f"there is no starter for {framework!r}", fix=fix)
    task, test = folder / f"{name}.py", folder / f"test_{name}.py"
    class_name = class_of(name)
    _require_fit(name, class_name, folder)
    own_field = FRAMEWORKS[framework]
    words = {
        "TASK_NAME": name, "TASK_CLASS": class_name, "OWN_FIELD": own_field, "OWN_VALUE": TRIED_VALUES[own_field],
    }
    _write({task: _filled(framework, words), test: _filled("test", words)})
    missing = {module: PACKAGES.get(module, module) for module in (framework, "pytest") if find_spec(module) is None}
    return Starter(
        task=task, test=test, class_name=class_name, own_field=own_field, own_value=TRIED_VALUES[own_field],
        missing=missing,
    )


def class_of(name: str) -> str:
    """`chest_ct` as ChestCt."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _require_fit(name: str, class_name: str, folder: Path) -> None:
    if reason := _unfit(name, class_name):
        raise UsageError(f"a task cannot be called {name!r}: {reason}", fix=f"for example {_fit(name)!r}")
    for path in (folder / f"{name}.py", folder / f"test_{name}.py"):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} is there already", fix="take another name or another --dir, or move it away")


def _unfit(name: str, class_name: str) -> str:
    """Why not; empty where it is fit."""
    from fednode.tasks.registry import installed_tasks

    if not _NAME.fullmatch(name):
        return "its file is called so too, and that takes lower-case letters, digits and _, a letter first"
    if len(name) > MAX_NAME:
        return f"it has {len(name)} letters, {MAX_NAME} are the most"
    if keyword.iskeyword(name) or keyword.iskeyword(class_name):
        return "that is a word of Python"
    if name.startswith("test_") or name == "conftest":
        return "pytest would take its file for tests"
    if name in installed_tasks():
        return "a task of that name is installed here"
    if _is_module(name):
        return f"{name}.py would hide the module {name!r} from whoever imports that"
    if class_name in fednode.__all__ or class_name in _NAMES_IN_USE or hasattr(builtins, class_name):
        return f"its class would be {class_name}, which the file needs for something else"
    return ""


def _is_module(name: str) -> bool:
    """Whether `import NAME` means something already. A mere folder does not count: any module comes before it."""
    if name in sys.stdlib_module_names:
        return True
    spec = find_spec(name)
    return spec is not None and spec.origin is not None and not _is_here(Path(spec.origin))


def _is_here(file: Path) -> bool:
    """`python -m fednode` finds the files of the folder that it is started in: those hide nothing installed."""
    return file.parent == Path.cwd()


_NAMES_IN_USE = frozenset(["Any", "Annotated", "Config", "Field", "Generator", "Tensor", "SGDClassifier"])


def _fit(name: str) -> str:
    """The nearest name that can be had."""
    plain = unicodedata.normalize("NFKD", name.removesuffix(".py")).encode("ascii", "ignore").decode()
    near = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()
    near = re.sub(r"[^a-z0-9]+", "_", near, flags=re.ASCII).strip("_").removeprefix("test_")[:MAX_NAME].rstrip("_")
    near = near if near[:1].isalpha() else f"task_{near}".rstrip("_")
    tried = (near, f"my_{near}", f"{near}_task", f"my_{near}_task")
    return next((text for text in tried if not _unfit(text, class_of(text))), "my_task")


def _filled(which: str, words: Mapping[str, str]) -> str:
    text = (HERE / f"{which}.py.txt").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _write(texts: Mapping[Path, str]) -> None:
    """All or nothing, and nothing over what is there. Raises UsageError."""
    written: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        told = f"{error.filename or path} cannot be written: {error.strerror}"
        raise UsageError(told, fix="name another folder by --dir") from error
