"""`fednode task`: tasks of one's own and those that are installed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fednode.cli import options as o
from fednode.cli.output import Voice, plain

if TYPE_CHECKING:
    from fednode.tasks.starters import Starter

TaskName = Annotated[str, typer.Argument(metavar="NAME", help="What the task is called: lower-case letters, digits and _.")]
Framework = Annotated[str, typer.Option("--framework", metavar="torch|numpy|sklearn", help="What it is written in.")]
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The folder to write it in; made where there is none.")]

app = typer.Typer(
    help="Tasks of one's own, and those that are installed.", rich_markup_mode=None, pretty_exceptions_enable=False,
    no_args_is_help=True,
)


@app.callback()
def task() -> None:
    """Tasks of one's own, and those that are installed."""


@app.command()
@plain
def new(name: TaskName, framework: Framework = "torch", folder: Folder = Path(), as_json: o.AsJson = False) -> None:
    """Write a task that works at once, on made-up data: NAME.py, and test_NAME.py. Nothing is overwritten."""
    from fednode.tasks.starters import write_starter

    voice, starter = Voice(as_json), write_starter(name, framework, folder)
    _tell(voice, name, starter)
    if as_json:
        voice.result({"task": str(starter.task), "test": str(starter.test), "spec": starter.spec})


def _tell(voice: Voice, name: str, starter: Starter) -> None:
    spec = shlex.quote(starter.spec)
    changed = f"--set task.{starter.own_field}={starter.own_value}"
    voice.say(f"Wrote {starter.task} and {starter.test}: a task that works, on made-up data.\n")
    commands = (
        ("Try it", f"fednode simulate {spec} --clients 3"),
        ("with its own setting", f"fednode simulate {spec} --clients 3 {changed}"),
        ("Test it", f"pytest {shlex.quote(str(starter.test))}"),
        ("Put your data in", f"{starter.task}, at REPLACE THIS; then fednode doctor --task {spec} --data DIR"),
        ("Offer it", f"fednode client --task {spec}"),
        ("Train it", f"fednode run {name} {changed}, or on the dashboard"),
    )
    for title, command in commands:
        voice.say(f"{title:<21} {command}")
    for module, package in starter.missing.items():
        voice.note(f"{module} is not installed here: pip install {package}")


@app.command("list")
@plain
def list_tasks(as_json: o.AsJson = False) -> None:
    """The tasks that are installed here, and whether their code can run. Whether there are data: `fednode doctor`."""
    from fednode.tasks.registry import installed_tasks

    found = [_row(name) for name in installed_tasks()]
    voice = Voice(as_json)
    if as_json:
        voice.result(found)
    else:
        voice.table(("task", "fingerprint", "what it is"), [
            (row["task"], row["fingerprint"] or "-", row["about"] if row["can_run"] else row["reason"]) for row in found
        ])


def _row(name: str) -> dict[str, Any]:
    import inspect

    from fednode.errors import FednodeError
    from fednode.tasks.registry import load_task

    row = {"task": name, "fingerprint": None, "can_run": False, "about": "", "reason": ""}
    try:
        found = load_task(name)
    except FednodeError as error:
        return row | {"reason": f"{error.message}; {error.fix}"}
    about = (inspect.getdoc(found.kind) or "").partition("\n")[0]
    return row | {"fingerprint": found.fingerprint, "can_run": True, "about": about}
