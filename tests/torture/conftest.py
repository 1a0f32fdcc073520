"""The long fault matrices: a short form in `make test`, the full one in `make torture`, which stores a report.

The same tests make both. `torture_scale.pick` and `sample` say how much of a matrix is tried; `figures.note(...)` puts
what was counted or timed into the report: one JSON line a test, with how it ended, the commit, the machine and the
date. `scripts/torture_report.py` makes a page of them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from torture_scale import IS_FULL

REPORT = os.environ.get("FEDNODE_TORTURE_REPORT", "")
MOST_WORDS = 300                # of why a test failed or was skipped, in characters


class Figures:
    """What a test counted and timed."""

    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}

    def note(self, **figures: Any) -> None:
        self.noted.update(figures)


FIGURES = pytest.StashKey[Figures]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    made = request.node.stash[FIGURES] = Figures()
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every test leaves a line: also one that notes nothing, fails, or could not be tried here."""
    report = yield
    if REPORT and (report.when == "call" or report.outcome != "passed"):
        line = {
            "test": item.nodeid, "form": "full" if IS_FULL else "short", "outcome": report.outcome,
            "said": call.excinfo.exconly()[:MOST_WORDS] if call.excinfo else "", "seconds": round(report.duration, 1),
            "commit": _commit(), "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "figures": item.stash.get(FIGURES, Figures()).noted,
        }
        with Path(REPORT).open("a") as file:        # one write a line: several workers append to it
            file.write(json.dumps(line) + "\n")
    return report


@cache
def _commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip()
