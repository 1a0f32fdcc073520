"""What a check says: a level, a sentence, and for all that is not well the fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fednode.core.data_report import DataReport
from fednode.errors import FednodeError


class Level(StrEnum):
    OK = "OK"
    WARN = "WARN"       # works, and may not do so for long
    FAIL = "FAIL"       # will not work


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's answer."""

    check: str          # its name, the same in every answer
    level: Level
    told: str
    fix: str = ""       # of what is not OK
    exit_code: int = 0  # of a FAIL: what the command ends with where this is the first
    report: DataReport | None = None    # of a task that was asked for, where it has one


def good(check: str, told: str) -> Finding:
    return Finding(check=check, level=Level.OK, told=told)


def doubtful(check: str, told: str, fix: str) -> Finding:
    return Finding(check=check, level=Level.WARN, told=told, fix=fix)


def bad(check: str, told: str, fix: str, exit_code: int = 1) -> Finding:
    return Finding(check=check, level=Level.FAIL, told=told, fix=fix, exit_code=exit_code)


def of_error(check: str, error: FednodeError) -> Finding:
    return bad(check, error.message, error.fix, error.exit_code)


def exit_code_of(findings: Sequence[Finding]) -> int:
    """That of the first FAIL, 0 where nothing fails."""
    return next((finding.exit_code for finding in findings if finding.level is Level.FAIL), 0)
