"""Fill in the parts of docs/reference/*.md that are made from the code itself, so that they say what it does.

    python scripts/make_reference.py            # write
    python scripts/make_reference.py --check    # exit 1 where a page says something else

A page holds `<!-- made: NAME -->`, what was made, `<!-- end -->`; the words around it are written by hand. Made are
the tree of commands, the settings, the errors, the metrics, the API, strategies and tasks: the same on every machine.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import typer
from reference_api import api
from reference_text import anchor, code, config_table, parts, prose, table, wrapped

from fednode import errors, settings
from fednode.cli.app import app as cli
from fednode.core import pooling
from fednode.core.metrics import Histogram, Sum
from fednode.errors import FednodeError
from fednode.strategies.adaptive import Adaptive
from fednode.strategies.registry import STRATEGIES
from fednode.tasks.base import config_schema
from fednode.tasks.registry import load_task

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
REGION = re.compile(r"<!-- made: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


# --- the command line -----------------------------------------------------------------------------------

_BRACKET = re.compile(r"\s*\[([^\[\]]*(?:FEDNODE_|default: )[^\[\]]*)\]\s*$")


def commands() -> str:
    found = list(walk(typer.main.get_command(cli), "fednode"))
    index = [(f"[`{path}`](#{anchor(path)})", first_line(command.help)) for path, command in found[1:]]
    return parts(table(("command", "what it does"), index), *(command_section(*row) for row in found))


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if not child.hidden:
            yield from walk(child, f"{path} {name}")


def first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def command_section(path: str, command: Any) -> str:
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if not param.opts[0].startswith("-")]
    options = [param for param in shown if param.opts[0].startswith("-")]
    usage = " ".join([path, *map(argument_text, arguments), *(["[OPTIONS]"] if options else [])])
    alone = inspect.getdoc(command.callback) if hasattr(command, "commands") and path != "fednode" else ""
    return parts(
        f"## {path}", prose(command.help), prose(f"Alone: {alone}") if alone else "", f"```text\n{usage}\n```",
        table(("argument", "default", "meaning"), [(code(p.metavar or p.name), *facts(p)[::2]) for p in arguments]),
        table(("option", "default", "environment", "meaning"), [(option_text(p), *facts(p)) for p in options]),
    )


def argument_text(param: Any) -> str:
    name = param.metavar or param.name.upper()
    return name if param.required else f"[{name}]"


def option_text(param: Any) -> str:
    value = f" {param.metavar}" if param.metavar and not param.is_flag else ""
    return ", ".join(code(name + value) for name in (*param.opts, *param.secondary_opts))


def facts(param: Any) -> tuple[str, str, str]:
    """Default, environment and meaning: our help texts end with [FEDNODE_X; default: y]."""
    meaning, bracket = param.help or "", _BRACKET.search(param.help or "")
    told = [part.strip() for part in bracket[1].split(";")] if bracket else []
    meaning = meaning[: bracket.start()] if bracket else meaning
    default = next((part.removeprefix("default: ") for part in told if part.startswith("default: ")), "")
    if not default and param.default not in (None, False, ""):
        default = str(param.default)
    variables = [code(part) for part in told if part.startswith("FEDNODE_")]
    return default, ", ".join(variables), meaning


# --- settings, errors, metrics --------------------------------------------------------------------------

TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path"}


def all_settings() -> str:
    rows = [
        (code(name), setting_type(field.annotation), setting_default(name, field.default),
         ", ".join(code(choice) for choice in field.validation_alias.choices if choice != name),
         field.description or "")
        for name, field in settings.Settings.model_fields.items()
    ]
    return table(("setting", "type", "default", "environment", "meaning"), rows)


def setting_type(annotation: Any) -> str:
    """Of `X | None` that of X: not set is not a type."""
    return TYPES[getattr(annotation, "__args__", (annotation,))[0].__name__]


def setting_default(name: str, default: object) -> str:
    if name == "state_dir":
        return "the user's state folder"        # another path on every machine
    return code(default) if default not in (None, "") else ""


def all_errors() -> str:
    meanings = {"FednodeError": "the root of them all", **dict(re.findall(r"── (\w+) +(.+)", errors.__doc__ or ""))}
    kinds = [kind for kind in tree(FednodeError) if kind.__module__ == errors.__name__]
    rows = [
        (code(kind.code), code(kind.__name__), str(kind.http_status), str(kind.exit_code), meanings[kind.__name__])
        for kind in kinds
    ]
    return table(("code", "class", "HTTP", "exit code", "when"), rows)


def tree(kind: type[FednodeError]) -> Iterator[type[FednodeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


SPECIMENS = {
    "a number": 0.5, "`Sum([part, all])`": Sum([1, 2]), "a 2 x 2 `Sum`": Sum(np.eye(2)),
    "an n x n `Sum`": Sum(np.eye(3)), "a `Histogram`": Histogram(np.ones((2, 4))),
}


def combine_functions() -> str:
    rows = [
        (code(name), (inspect.getdoc(function) or "").rstrip("."), ", ".join(takes(function)))
        for name, function in pooling.FUNCTIONS.items()
    ]
    return table(("`combine`", "the value", "made of"), rows)


def takes(function: Callable[[Any, float], object]) -> Iterator[str]:
    """The kinds of values that the function can read, asked of itself."""
    for told, specimen in SPECIMENS.items():
        try:
            function(specimen, pooling.DEFAULT_CUT)
        except FednodeError:
            continue
        yield told


# --- strategies and tasks -------------------------------------------------------------------------------


def strategies() -> str:
    return parts(*map(strategy_section, STRATEGIES), "## Adaptive", prose(Adaptive.__doc__))


def strategy_section(name: str) -> str:
    kind = STRATEGIES[name]
    shared = "What it shares with its kin: [Adaptive](#adaptive)." if issubclass(kind, Adaptive) else ""
    needs = f"The task must support {', '.join(map(code, kind.requires))}." if kind.requires else ""
    return parts(
        f"## {name}", prose(kind.__doc__), shared, needs, config_table(config_schema(kind)) or "No settings.",
    )


def tasks() -> str:
    points = metadata.entry_points(group="fednode.tasks")
    own = [point.name for point in points if point.dist and point.dist.name == "fednode"]
    return parts(*map(task_section, sorted(own)))


def task_section(name: str) -> str:
    found = load_task(name)
    kind, module = found.kind, inspect.getmodule(found.kind)
    splits = ", ".join(map(code, ("train", *getattr(kind, "splits", ("test",)))))
    supports = ", ".join(map(code, kind.supports)) or "nothing more"
    told = f"Fingerprint {code(found.fingerprint)}. Splits: {splits}. Supports: {supports}. Rounds, where a run names "
    rows = [(code(metric.name), code(metric.combine), metric.goal, metric.split) for metric in kind.measures]
    return parts(
        f"## {name}", prose(module.__doc__ if module else ""), prose(kind.__doc__),
        wrapped(f"{told}none: {kind.default_rounds}."), config_table(config_schema(kind.Config)),
        table(("metric", "combine", "goal", "split"), rows),
    )


# --- pages ----------------------------------------------------------------------------------------------

MADE: Mapping[str, Callable[[], str]] = {
    "commands": commands, "settings": all_settings, "errors": all_errors, "combine": combine_functions, "api": api,
    "strategies": strategies, "tasks": tasks,
}


def filled(text: str) -> str:
    """The page with what is made now between its marks."""
    return REGION.sub(lambda found: f"<!-- made: {found[1]} -->\n\n{MADE[found[1]]()}\n\n<!-- end -->", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page says something else")
    is_check = parser.parse_args().check
    stale = []
    for path in sorted(REFERENCE.glob("*.md")):
        old = path.read_text()
        new = filled(old)
        if is_check and new != old:
            stale.append(path.name)
        if not is_check:
            path.write_text(new)
    if stale:
        sys.stderr.write(f"not what the code says: {', '.join(stale)}. Run: make docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
