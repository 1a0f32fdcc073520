"""The long fault matrices: a short form in `make test`, the full one in `make torture`, which stores a report.

The same tests make both. `torture_scale.pick` and `sample` say how much of a matrix is tried; `figures.note(...)` puts
what was counted or timed into the report: one JSON line a test, with the seed, the commit and the machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from torture_scale import IS_FULL

REPORT = os.environ.get("FEDNODE_TORTURE_REPORT", "")


class Figures:
    """What a test counted and timed."""

    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}

    def note(self, **figures: Any) -> None:
        self.noted.update(figures)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    noted, began_s = Figures(), time.monotonic()
    yield noted
    if REPORT:
        line = {
            "test": request.node.nodeid, "form": "full" if IS_FULL else "short", "commit": _commit(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "seconds": round(time.monotonic() - began_s, 1), **noted.noted,
        }
        with Path(REPORT).open("a") as file:        # one write a line: several workers append to it
            file.write(json.dumps(line) + "\n")


def _commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip()
