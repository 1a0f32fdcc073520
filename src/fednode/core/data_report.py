"""What a task found in a site's data folder: what it can use, what it skips, what is odd. Stays at the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


def printable(text: str) -> str:
    """On one line, whatever people put into the names of their files."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file that looks as if it were meant, and cannot be used."""

    path: str                       # below the data folder
    reason: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that a person should know of the data; `is_fatal`: nothing can be trained on them."""

    code: str                       # one word, the same for the same kind of thing
    message: str
    fix: str
    is_fatal: bool = False


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """One look at a data folder."""

    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)      # split -> class -> usable examples
    skipped: tuple[SkippedFile, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def fatal(self) -> Problem | None:
        """Why nothing can be trained on these data, where that is so."""
        return next((problem for problem in self.problems if problem.is_fatal), None)

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(name for counts in self.splits.values() for name in counts))

    def to_json(self) -> dict[str, Any]:
        return {
            "splits": {split: dict(counts) for split, counts in self.splits.items()},
            "skipped": [asdict(file) for file in self.skipped],
            "problems": [asdict(problem) for problem in self.problems],
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> DataReport:
        return DataReport(
            splits=row["splits"], skipped=tuple(SkippedFile(**file) for file in row["skipped"]),
            problems=tuple(Problem(**problem) for problem in row["problems"]),
        )
