"""The house keeps its shape: floors, walls, budgets, no cycle. Parsed from the source, nothing is run."""

from __future__ import annotations

import ast
import graphlib
import statistics
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "fednode"

# Imports point down this list. Rooms in one line are neighbours: those of `APART` may not know one another.
FLOORS = (
    {"errors"},
    {"core"},
    {"strategies", "tasks", "own_code", "ports", "wire", "settings", "logs", "clock", "web", "failpoints"},
    {"visit", "child", "run_config", "rounds", "store"},
    {"central", "client", "simulation"},
    {"demo", "doctor", "bench"},
    {"cli"},
    {"__main__"},
)
APART = {"central", "client", "simulation"}

WALLS = {
    "torch": ("tasks/",),
    "sqlalchemy": ("store/",),
    "alembic": ("store/",),
    "sqlite3": ("store/",),
    "fastapi": ("central/", "client/page.py"),
    "starlette": ("central/", "client/page.py"),
    "uvicorn": ("central/", "client/page.py", "web/connections.py"),
    "httpx2": ("wire/",),
    "http.client": ("wire/",),
    "urllib.request": ("wire/",),
    "tensorboardX": ("cli/event_files.py",),
    "pickle": (),
    "multiprocessing": (),
}
HIDDEN_WORLD = {"time": ("clock.py",), "random": ("clock.py", "core/seeds.py")}
MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_ROUNDS_LINES, MAX_STRATEGY_LINES = 400, 50, 150, 80


@dataclass(unsafe_hash=True)
class Module:
    path: Path

    @property
    def place(self) -> str:
        return self.path.relative_to(SRC).as_posix()

    @property
    def name(self) -> str:
        parts = ("fednode", *self.path.relative_to(SRC).with_suffix("").parts)
        return ".".join(parts).removesuffix(".__init__")

    @property
    def room(self) -> str:
        return self.path.relative_to(SRC).with_suffix("").parts[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @property
    def num_lines(self) -> int:
        return len(self.path.read_text().splitlines())


@cache
def modules() -> dict[str, Module]:
    found = [Module(path) for path in sorted(SRC.rglob("*.py"))]
    return {module.name: module for module in found}


def imported(module: Module) -> set[str]:
    """Every module that `module` imports anywhere, type-checking blocks apart (they cost nothing at run time)."""
    names: set[str] = set()
    for node in _nodes_that_run(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _nodes_that_run(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes_that_run(node)


def own_imports(module: Module) -> set[Module]:
    return {modules()[name] for name in imported(module) if name in modules() and name != module.name}


def floor_of(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


ALL = pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.place)


@ALL
def test_imports_point_down(module: Module) -> None:
    if module.place == "__init__.py":
        return
    for other in own_imports(module):
        if other.place == "__init__.py" or other.room == module.room:
            continue
        assert floor_of(other.room) <= floor_of(module.room), f"{module.place} imports up: {other.place}"
        assert not {module.room, other.room} <= APART, f"{module.place} knows its neighbour {other.place}"


@ALL
def test_frameworks_stay_behind_their_wall(module: Module) -> None:
    for name, rooms in WALLS.items():
        uses = any(found == name or found.startswith(name + ".") for found in imported(module))
        assert not uses or any(module.place.startswith(room) for room in rooms), f"{module.place} imports {name}"


@ALL
def test_time_and_chance_come_in_by_the_door(module: Module) -> None:
    calls = [node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    used = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
    for name, places in HIDDEN_WORLD.items():
        assert module.place in places or not {call for call in used if call.startswith(f"{name}.")}
    assert module.place == "clock.py" or "asyncio.sleep" not in used


@ALL
def test_only_the_command_line_prints(module: Module) -> None:
    prints = [n for n in ast.walk(module.tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
    assert not prints or module.room == "cli"


@ALL
def test_modules_and_functions_stay_within_their_budget(module: Module) -> None:
    limit = {"rounds": MAX_ROUNDS_LINES, "strategies": MAX_STRATEGY_LINES}.get(module.room, MAX_MODULE_LINES)
    assert module.num_lines <= limit
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= MAX_FUNCTION_LINES, f"{module.place}: {node.name}"


@ALL
def test_every_module_says_what_lives_there(module: Module) -> None:
    assert len(ast.get_docstring(module.tree) or "") > 20


def test_functions_are_short_as_a_rule() -> None:
    sizes = [
        (node.end_lineno or 0) - node.lineno + 1
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert statistics.median(sizes) <= 9


def test_there_is_no_import_cycle() -> None:
    graph = {module.name: {other.name for other in own_imports(module)} for module in modules().values()}
    graph["fednode"] = set()        # resolves its names on first use, see test_public_names.py
    list(graphlib.TopologicalSorter(graph).static_order())
