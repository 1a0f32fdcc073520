"""Make docs/reference/torture.md of the lines that `make torture` leaves: what was tried in full, and what came of it.

    python scripts/torture_report.py build/torture.jsonl [MORE.jsonl ...]

The full forms take hours and may be run file by file, in any order; of a test that was run twice the newer line counts.
What pytest finds in tests/torture and no line is of is named as not run.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_text import parts, table, wrapped

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "torture.md"
HEAD = """
The fault matrices of `tests/torture` have a short form, which `make test` runs, and a full one, which takes hours:
`make torture`, or file by file, `make torture TORTURE=tests/torture/test_soak.py`. This page is what the full forms
have shown last: how each test ended, what it counted and timed, and at which commit. It is made by
`scripts/torture_report.py` from the lines that the tests leave; nothing here was written by hand. What these tests are
for: [what you can rely on](../explanation/reliability.md). Times are those of one machine that had other work to do.
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one test left."""

    test: str                       # path::name[case]
    outcome: str
    said: str                       # why it failed or was skipped
    seconds: float
    commit: str
    date: str
    machine: str
    figures: Mapping[str, Any]

    @property
    def function(self) -> str:
        return self.test.partition("[")[0]


def lines_in(files: Iterable[Path]) -> dict[str, Line]:
    """The newest of each test's full form."""
    found = [json.loads(row) for file in files for row in file.read_text().splitlines()]
    rows = sorted((row for row in found if row.pop("form") == "full"), key=lambda row: row["date"])
    return {row["test"]: Line(**row) for row in rows}


def tests_there_are() -> list[str]:
    """As pytest collects the full form."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "tests/torture"], cwd=ROOT, capture_output=True,
        text=True, check=True, env=os.environ | {"FEDNODE_TORTURE": "full"},
    )
    return [row for row in done.stdout.splitlines() if "::" in row]


# --- the page ---------------------------------------------------------------------------------------------


def page(lines: Mapping[str, Line], tests: Sequence[str]) -> str:
    of_file = grouped(tests, lambda test: test.partition("::")[0])
    tried = {file: [lines[test] for test in those if test in lines] for file, those in of_file.items()}
    return parts(
        "# Fault matrices in full", wrapped(HEAD), summary(lines.values(), tests),
        table(("file", "tests", "passed", "failed", "skipped", "not run", "minutes", "commit", "date (UTC)"), [
            [f"`{Path(file).name}`", *counts(found, len(of_file[file]))] for file, found in tried.items()
        ]),
        *(section(file, found) for file, found in tried.items() if found),
        amiss([lines[test] for test in tests if test in lines]), not_run([test for test in tests if test not in lines]),
    ) + "\n"


def summary(lines: Iterable[Line], tests: Sequence[str]) -> str:
    found = [line for line in lines if line.test in tests]
    machines = sorted({line.machine for line in found})
    return wrapped(f"{len(found):,} of {len(tests):,} tests were run in full. Machine: {'; '.join(machines)}.")


def counts(found: Sequence[Line], num_tests: int) -> list[str]:
    ended = [sum(line.outcome == outcome for line in found) for outcome in ("passed", "failed", "skipped")]
    minutes = f"{sum(line.seconds for line in found) / 60:,.1f}" if found else ""
    told = [str(number or "") for number in (num_tests, *ended, num_tests - len(found))]
    commits, days = sorted({line.commit for line in found}), sorted({line.date[:10] for line in found})
    return [*told, minutes, ", ".join(commits), ", ".join(days)]


def section(file: str, found: Sequence[Line]) -> str:
    """A file's tests, the cases of one in one row."""
    rows = [
        [sentence(function), str(len(those)), f"{sum(line.seconds for line in those):,.0f}", told_of(those)]
        for function, those in grouped(found, lambda line: line.function).items()
    ]
    purpose = (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "").partition("\n\n")[0]
    return parts(f"## {Path(file).stem}", wrapped(purpose), table(("test", "cases", "seconds", "figures"), rows))


def told_of(lines: Sequence[Line]) -> str:
    """The figures of a test's cases together: what is the same in all, else the sum and the range."""
    names = dict.fromkeys(name for line in lines for name in line.figures)
    told = [(name, together([line.figures[name] for line in lines if name in line.figures])) for name in names]
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in told if value)


def together(values: Sequence[Any]) -> str:
    """Nothing where they differ and are no numbers."""
    if all(value == values[0] for value in values):
        return text_of(values[0])
    if all(isinstance(value, int | float) for value in values):
        return f"{text_of(sum(values))} ({text_of(min(values))} to {text_of(max(values))})"
    return ""


def text_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    is_count = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{round(value, 3):,}" if is_count else str(value)


def amiss(lines: Iterable[Line]) -> str:
    """What failed, and what could not be tried there, with what was said."""
    rows = [[f"`{line.test}`", line.outcome, without_paths(line.said)] for line in lines if line.outcome != "passed"]
    return parts("## Failed or skipped", table(("test", "ended", "because"), rows)) if rows else ""


def without_paths(said: str) -> str:
    """What was said, each file by its name: where it lay is nobody's business."""
    return re.sub(r"(?:/[\w.\-]+)+/([\w.\-]+)", r"\1", said)


def not_run(tests: Sequence[str]) -> str:
    rows = [
        [f"`{Path(function.partition('::')[0]).name}`", sentence(function), str(len(cases))]
        for function, cases in grouped(tests, lambda test: test.partition("[")[0]).items()
    ]
    return parts("## Not run", table(("file", "test", "cases"), rows)) if rows else ""


def sentence(function: str) -> str:
    return function.rpartition("::")[2].removeprefix("test_").replace("_", " ")


def grouped(things: Iterable[Any], key: Any) -> dict[str, list[Any]]:
    found = defaultdict[str, list[Any]](list)
    for thing in things:
        found[key(thing)].append(thing)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=Path)
    PAGE.write_text(page(lines_in(parser.parse_args().lines), tests_there_are()))


if __name__ == "__main__":
    main()
