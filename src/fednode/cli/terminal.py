"""A terminal, a file or a pipe to write to, and what happens when its reader goes: `fednode runs | head -1`.

A command that only tells then has nothing left to do, and ends (`output.plain`). A node goes on without words: whoever
pipes a client's lines into a program must not lose the client with it.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from rich.console import Console


class Terminal(Console):
    """Rich's console, but for that one case, in which Rich would end the process from wherever it is."""

    def __init__(self, *, outlives_reader: bool = False, **settings: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **settings)
        self._outlives_reader = outlives_reader

    def on_broken_pipe(self) -> None:
        if not self._outlives_reader:
            raise BrokenPipeError
        self.quiet = True
        fall_silent()


def is_reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more: other pipes break too, and for other reasons."""
    try:
        watch = select.poll()
        watch.register(sys.stdout.fileno(), 0)
        return any(found & select.POLLERR for _, found in watch.poll(0))
    except (OSError, ValueError):
        return False                # no file behind it


def fall_silent() -> None:
    """Whatever is written to stdout from now on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
