"""Events as people read them: one sentence each, the same in `fednode logs`, beside a run and on the Events page.

Which run an event belongs to is not in its sentence: whoever shows it says so beside it. What each event is made of is
in `store/events.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fednode.core.units import count_text, number_text, seconds_text, size_text

Fields: TypeAlias = Mapping[str, Any]
NUM_NAMED = 8                   # of a list of clients; the rest are counted

KINDS: Mapping[str, tuple[str, ...]] = {
    "runs": (
        "run created", "run started", "run paused", "run resumed", "run ended", "run crashed", "run deleted",
    ),
    "rounds": ("round opened", "round closed", "round committed", "round abandoned"),
    "reports": ("update received", "evaluation received", "progress", "late"),
    "failures": ("failure received", "round abandoned", "run crashed", "late"),
    "clients": ("client joined", "client gone", "client back", "client rotated", "client revoked"),
}


def sentence(what: str, fields: Fields) -> str:
    """One line. An event that an older or newer fednode wrote is told by its name."""
    tell = _SENTENCES.get(what)
    return tell(fields) if tell else what


def tracebacks(fields: Fields) -> list[tuple[str, str]]:
    """(client, traceback) of everything that went wrong in somebody's code; client "": in the central node's."""
    found = [fields, *fields.get("failures", ())]
    return [(part.get("client", ""), part["traceback"]) for part in found if part.get("traceback")]


def failure_text(failure: Fields) -> str:
    return f"{failure['client']}: {failure['code']}: {failure['reason']}"


def scores_text(metrics: Mapping[str, Any], between: str = ", ") -> str:
    """`accuracy 0.9630, loss 0.1203`; curves and what is no number are left out."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return between.join(f"{name} {number_text(float(value))}" for name, value in numbers.items())


def names_text(names: Sequence[str]) -> str:
    """`a, b and c`; of many the first few."""
    if len(names) > NUM_NAMED:
        return f"{', '.join(names[:NUM_NAMED])} and {len(names) - NUM_NAMED} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _because(fields: Fields, otherwise: str = "") -> str:
    reason = fields.get("reason") or otherwise
    return f": {reason}" if reason else ""


def _round(fields: Fields) -> str:
    attempt = fields["attempt"]
    return f"Round {fields['round']}" + (f", attempt {attempt}" if attempt > 1 else "")


def _opened(fields: Fields) -> str:
    what = {"init": "the initial params by", "train": "training by", "evaluate": "the final model is measured by"}
    return f"{_round(fields)} began: {what[fields['kind']]} {names_text(fields['cohort'])}"


def _brought(fields: Fields) -> str:
    """How many of the cohort brought what was asked for, and what became of the others."""
    if fields.get("kind") == "evaluate":        # which brings scores, and no update
        told = f"scores of {fields['num_clients'] - len(fields['failures'])} of {fields['num_clients']} clients"
    else:
        told = f"{fields['num_updates']} of {fields['num_clients']} updates"
    failures = "; ".join(failure_text(failure) for failure in fields["failures"][:NUM_NAMED])
    return f"{told} ({failures})" if failures else told


def _committed(fields: Fields) -> str:
    """The scores are those of the model that the cohort received; what it made is measured in the next round."""
    scores, before = scores_text(fields["metrics"]), fields["model_round"]
    of = f"the model of round {before}" if before > 0 else "the untrained model"
    measured = f"; {of} scored {scores}" if scores else ""
    if fields["kind"] == "evaluate":
        return f"{_round(fields)} measured the final model" + (f": {scores}" if scores else "")
    if fields["kind"] == "init":
        return f"{_round(fields)} made the initial params"
    return f"{_round(fields)} made a model of {_brought(fields)}{measured}"


def _ended(fields: Fields) -> str:
    verb = "was cancelled" if fields["status"] == "cancelled" else fields["status"]
    return f"The run {verb}{_because(fields)}"


def _deleted(fields: Fields) -> str:
    models = count_text(fields["num_models"], "model")
    return f"Run #{fields['number']} of {fields['task']} was deleted, with {models} and {fields['num_rows']:,} rows"


def _update(fields: Fields) -> str:
    brought = f"{fields['num_examples']:,} examples, {size_text(fields['num_bytes'])}"
    return f"{fields['client']} sent its update of round {fields['round']} ({brought})"


def _progress(fields: Fields) -> str:
    scores = scores_text(fields["values"])
    told = f"{fields['client']} finished epoch {fields['epoch']} of round {fields['round']}"
    return f"{told}: {scores}" if scores else told


def _back(fields: Fields) -> str:
    after = f" after {seconds_text(fields['away_s'])}" if len(fields["clients"]) == 1 else ""
    return f"{names_text(fields['clients'])} came back{after}"


def _gone(fields: Fields) -> str:
    verb = "is" if len(fields["clients"]) == 1 else "are"
    return f"{names_text(fields['clients'])} {verb} gone{_because(fields)}"


_SENTENCES: Mapping[str, Callable[[Fields], str]] = {
    "run created": lambda f: f"Run #{f['number']} was asked for: {f['task']} by {f['strategy']}",
    "run started": lambda f: f"The run started{_because(f)}",
    "run paused": lambda f: f"The run is paused{_because(f, 'by a person')}",
    "run resumed": lambda f: "The run was resumed",
    "run ended": _ended,
    "run crashed": lambda f: f"The run crashed: {f['error']}",
    "run deleted": _deleted,
    "round opened": _opened,
    "round closed": lambda f: f"{_round(f)} closed with {_brought(f)}",
    "round committed": _committed,
    "round abandoned": lambda f: f"Round {f['round']}: attempt {f['attempt']} made no model{_because(f)}",
    "failure received": lambda f: f"{f['client']} failed in round {f['round']}: {f['code']}: {f['reason']}",
    "evaluation received": lambda f: f"{f['client']} measured the model that it got in round {f['round']}",
    "update received": _update,
    "progress": _progress,
    "late": lambda f: f"{f['client']} reported to round {f['round']} too late",
    "client joined": lambda f: f"{f['client']} joined the federation",
    "client gone": _gone,
    "client back": _back,
    "client rotated": lambda f: f"The secret of {f['client']} was made void",
    "client revoked": lambda f: f"{f['client']} was revoked",
}


def decision(entry: Fields) -> str:
    """A row of a run's journal in words: what is hashed is `entry` itself."""
    what = entry["what"]
    if what == "created":
        return f"The run was asked for, with seed {entry['seed']}"
    if what == "round opened":
        return _opened(entry)
    if what == "round closed":
        return f"{_round(entry)} closed: {', '.join(_outcome(*outcome) for outcome in entry['outcomes'])}"
    if what == "model committed":
        return f"Round {entry['round']} ended with the model {entry['model_sha256'][:12]}"
    return f"The run ended: {entry['status']}" if what == "ended" else what


def _outcome(client: str, brought: int | str | None) -> str:
    """A number of examples, or the code of a failure; neither where it only measured."""
    if isinstance(brought, str):
        return f"{client} failed ({brought})"
    return f"{client} measured" if brought is None else f"{client} brought {brought:,} examples"
