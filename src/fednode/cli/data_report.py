"""What a task found in a data folder, on a terminal and as JSON. Also what the demo says before it trains."""

from __future__ import annotations

from typing import Any

from fednode.cli.output import Voice
from fednode.core.data_report import DataReport, printable
from fednode.core.units import count_text


def tell_report(voice: Voice, report: DataReport) -> None:
    """Splits by classes, then each file that cannot be used, then each problem with its fix."""
    if report.splits:
        rows = [(split, *(f"{counts.get(name, 0):,}" for name in report.classes)) for split, counts in report.splits.items()]
        voice.table(("can be used", *report.classes), rows)
    if report.skipped:
        voice.say(f"Skipped: {count_text(len(report.skipped), 'file')}", "yellow")
    for file in report.skipped:
        voice.say(f"  {printable(file.path)}: {file.reason}")
    for problem in report.problems:
        voice.say(f"Problem: {problem.message} ({problem.code})", "red" if problem.is_fatal else "yellow")
        voice.say(f"  Fix: {problem.fix}")


def report_json(report: DataReport) -> dict[str, Any]:
    """`splits`, `skipped` and `problems`, as machines read them."""
    problems = [{"code": problem.code, "message": problem.message, "fix": problem.fix} for problem in report.problems]
    return report.to_json() | {"problems": problems}
