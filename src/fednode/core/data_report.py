"""What a task found in a site's data folder: what it can use, what it skips, what is odd. Stays at the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
