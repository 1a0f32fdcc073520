"""Which events deserve a line on a terminal while somebody waits, and the line. All of them: `fednode logs`, `--json`.

What an event says in words is `core/telling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fednode.core.telling import failure_text, scores_text, sentence

WORTH_A_LINE = ("round abandoned", "run paused", "run resumed", "late")


def event_line(event: Mapping[str, Any], rounds: int | None = None) -> str | None:
    """The line of an event; None where it has none. `rounds`: how many the run has, where known."""
    what, fields = event["what"], event["fields"]
    if what == "round committed":
        return _committed(fields, rounds)
    if what in WORTH_A_LINE or (what == "run ended" and fields["status"] == "failed"):
        return sentence(what, fields)
    return None


def _committed(fields: Mapping[str, Any], rounds: int | None) -> str | None:
    """The score of the model that the cohort received; the round's own is known with the next."""
    lines = [f"  {failure_text(failure)}" for failure in fields["failures"]]
    if scores := scores_text(fields["metrics"], between="  "):
        of = f"/{rounds}" if rounds else ""
        where = f"round {fields['model_round']}{of}" if fields["model_round"] else "before training"
        lines.insert(0, f"{where:<16}{scores}")
    return "\n".join(lines) or None


def log_line(event: Mapping[str, Any]) -> str:
    """Every event as one line, for `fednode logs`."""
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(event["wall_s"], UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{when}  {sentence(event['what'], event['fields'])}"
