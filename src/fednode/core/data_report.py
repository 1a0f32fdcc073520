"""What a task found in a site's data folder: what it can use, what it skips, what is odd. Stays at the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fednode.core.json import JsonObject


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
    def is_usable(self) -> bool:
        return not any(problem.is_fatal for problem in self.problems)

    def to_json(self) -> JsonObject:
        return {
            "ok": self.is_usable,
            "splits": {split: dict(classes) for split, classes in self.splits.items()},
            "skipped": [{"path": file.path, "reason": file.reason} for file in self.skipped],
            "problems": [{"code": p.code, "message": p.message, "fix": p.fix} for p in self.problems],
        }
