"""How commands speak: lines for people on stdout, or JSON alone on stdout and the talk on stderr.

Errors become one sentence, one fix and an exit code, here and nowhere else.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import typer

from fednode.core.telling import scores_text
from fednode.errors import FednodeError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")
Command: TypeAlias = Callable[..., None]
INTERRUPTED = 130


def plain(command: Callable[P, R]) -> Callable[P, R]:
    """`command`, with our errors told in plain words and turned into exit codes."""

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FednodeError as error:
            typer.echo(f"Error: {error.message}\n  Fix: {error.fix}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _end_unread()
            raise typer.Exit(0) from None

    return told


def _end_unread() -> None:
    """The reader has seen enough. Raises again what was another pipe."""
    from fednode.cli.terminal import fall_silent, is_reader_gone

    if not is_reader_gone():
        raise
    fall_silent()


@dataclass(frozen=True)
class Voice:
    """Where a command's words go. `is_json`: stdout holds JSON only."""

    is_json: bool = False

    @property
    def console(self) -> Console:
        from fednode.cli.terminal import Terminal

        console = Terminal(stderr=self.is_json)
        if not console.is_terminal:
            console.width = 10_000          # a file or a pipe has no edge to wrap at
        return console

    def say(self, text: str, style: str = "") -> None:
        """One line for people."""
        self.console.print(text, style=style or None)

    def note(self, text: str) -> None:
        """A line beside the result: always on stderr."""
        typer.echo(text, err=True)

    def result(self, value: object) -> None:
        """The one line of `--json`."""
        typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": ")))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], marked: Collection[int] = ()) -> None:
        """Rows under bold column titles, aligned, without lines: easy to read and to cut. `marked` rows are bold."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for place, row in enumerate(rows):
            table.add_row(*row, style="bold" if place in marked else None)
        self.console.print(table)


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """`accuracy 0.9630  loss 0.1203`."""
    return scores_text(metrics, between="  ")
