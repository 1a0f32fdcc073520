"""Which events deserve a line on a terminal, and the line. All of them are in the store and in `--json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fednode.cli.output import metrics_text
from fednode.core.units import size_text

Fields = Mapping[str, Any]


def event_line(event: Mapping[str, Any], rounds: int | None = None) -> str | None:
    """The line of an event; None where it has none. `rounds`: how many the run has, where known."""
    line = _LINES.get(event["what"])
    return line(event["fields"], rounds) if line else None


def _committed(fields: Fields, rounds: int | None) -> str | None:
    """The score of the model that the cohort received; the round's own is known with the next."""
    lines = [_failure(failure, None) for failure in fields["failures"]]
    scores = {name: value for name, value in fields["metrics"].items() if isinstance(value, int | float)}
    if scores:
        of = f"/{rounds}" if rounds else ""
        where = f"round {fields['model_round']}{of}" if fields["model_round"] else "before training"
        lines.insert(0, f"{where:<16}{metrics_text(scores)}")
    return "\n".join(lines) or None


def _failure(failure: Fields, rounds: int | None) -> str:
    return f"  {failure['client']}: {failure['code']}: {failure['reason']}"


def _ended(fields: Fields, rounds: int | None) -> str | None:
    return f"failed: {fields['reason']}" if fields["status"] == "failed" else None


_LINES: dict[str, Callable[[Fields, int | None], str | None]] = {
    "round committed": _committed,
    "round abandoned": lambda fields, rounds: f"round {fields['round']}: attempt {fields['attempt']} made no model: {fields['reason']}",
    "run paused": lambda fields, rounds: f"paused: {fields['reason'] or 'by a person'}",
    "run resumed": lambda fields, rounds: "resumed",
    "run waits": lambda fields, rounds: fields["reason"] or None,
    "run ended": _ended,
    "late": lambda fields, rounds: f"round {fields['round']}: {fields['client']} reported too late",
}


def log_line(event: Mapping[str, Any]) -> str:
    """Every event as one line, for `fednode logs`."""
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(event["wall_s"], UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{when}  {event['what']:<18}{_told(event['fields'])}".rstrip()


def _told(fields: Fields) -> str:
    """The fields of an event, the round first; what only programs need is left out."""
    parts = [f"round {fields['round']}"] if "round" in fields else []
    for name, value in fields.items():
        if name == "metrics":
            parts.append(metrics_text({n: v for n, v in value.items() if isinstance(v, int | float)}))
        elif name == "failures":
            parts += [f"{failure['client']}: {failure['code']}: {failure['reason']}" for failure in value]
        elif name == "num_bytes":
            parts.append(size_text(value))
        elif name not in _FOR_PROGRAMS and value not in ("", [], None):
            parts.append(f"{name}={','.join(value) if isinstance(value, list) else value}")
    return "  ".join(part for part in parts if part)


_FOR_PROGRAMS = ("round", "traceback", "model_sha256", "model_round", "from")
