"""What the page of a run shows, read in one place: the page renders it whole, its stream in parts."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fednode.central.node import CentralNode
from fednode.central.runs_api import summary_of
from fednode.central.start_model import FRESH
from fednode.central.timeline import Line, lines_of, slowest
from fednode.core.encoding import F32
from fednode.core.records import RunConfig
from fednode.core.status import RoundKind, RunStatus
from fednode.store.history import ChangesView, FailureView, RoundRow, RoundView
from fednode.store.run_views import RunView
from fednode.wire.messages import RunSummary

PAGE_ROUNDS = 25
MAX_LINES = 40                  # clients of the round that is shown; more: the slowest of them
VERBS = {"queued": ("pause", "cancel"), "running": ("pause", "cancel"), "paused": ("resume", "cancel")}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run at one moment."""

    view: RunView
    summary: RunSummary
    round: RoundView | None             # whose timeline is shown: the newest, or the one that was asked for
    lines: list[Line]                   # its clients
    changes: ChangesView | None         # of that round; of the newest one that made a model, where none was asked for
    eta_s: float | None                 # None: nothing to tell it by, or nothing left

    @property
    def is_live(self) -> bool:
        return self.summary.status in (RunStatus.QUEUED, RunStatus.RUNNING)

    @property
    def verbs(self) -> tuple[str, ...]:
        return VERBS.get(self.summary.status, ())


async def run_facts(node: CentralNode, ref: str, number: int | None = None) -> RunFacts:
    """Raises NotFound. `number`: the round whose timeline is wanted."""
    view = await node.queries.run_summary(ref)
    run_id = view.run.id
    shown = await (node.history.newest(run_id) if number is None else node.history.round(run_id, number))
    lines = lines_of(shown, node.clock.wall_s()) if shown else []
    newest = shown.round.number if shown else 0
    asked = (newest, newest - 1) if number is None else (number,)       # one that is open has made none yet
    return RunFacts(
        view=view, summary=summary_of(node, view), round=shown, lines=slowest(lines, MAX_LINES),
        changes=await node.history.changes(run_id, asked),
        eta_s=await _eta_s(node, view, shown is not None and shown.round.kind is RoundKind.EVALUATE),
    )


async def rounds_before(node: CentralNode, run_id: str, before: int | None) -> list[RoundRow]:
    """A page of the run's rounds, newest first."""
    return await node.history.rows(run_id, before=before, limit=PAGE_ROUNDS)


async def failures(node: CentralNode, run_id: str) -> list[FailureView]:
    return await node.history.failures(run_id)


async def scores_of_clients(node: CentralNode, view: RunView) -> dict[str, Mapping[str, float]]:
    """What each client measured of the newest model that anybody measured: by client, by metric."""
    found: dict[str, dict[str, float]] = {}
    if view.metrics_round is not None:
        points = await node.queries.metric_points(view.run.id, from_round=view.metrics_round)
        for point in points:
            if point.client and point.phase != "local" and point.value is not None:
                found.setdefault(point.client, {})[point.name] = point.value
    return {client: dict(values) for client, values in found.items()}


def command_of(config: RunConfig, usual: RunConfig | None = None, start_from: str = "") -> str:
    """The command line that asks for the same run again.

    `usual`: what a run is of which only the task is said; what is the same there is left out. `start_from`: in other
    words than the hash of the model.
    """
    start = start_from or config.start_model
    known = _options(usual) if usual else {}
    words = ["fednode", "run", config.task, *(["--start-from", start] if start not in ("", FRESH) else [])]
    for name, value in _options(config).items():
        if value != known.get(name, ""):
            words += [name, value] if name.startswith("--") else ["--set", f"{name}={value}"]
    return shlex.join(words)


def _options(config: RunConfig) -> dict[str, str]:
    """Everything that is set, by its flag, or by its name for `--set`."""
    flags = {
        "--rounds": str(config.rounds), "--strategy": config.strategy, "--seed": str(config.seed),
        "--min-updates": str(config.min_updates), "--deadline": f"{config.deadline_s:g}",
        "--cohort-fraction": f"{config.cohort_fraction:g}", "--clients": ",".join(config.clients),
        "--best-metric": config.best_metric, "--patience": str(config.patience or ""),
        "--keep-every": str(config.keep_every), "--encoding": "" if config.encoding == F32 else config.encoding,
    }
    task = {f"task.{name}": _typed(value) for name, value in config.task_config.items()}
    return flags | task | {f"strategy.{name}": _typed(value) for name, value in config.strategy_config.items()}


def _typed(value: Any) -> str:
    """As `--set` reads it: text that would be taken for JSON is quoted."""
    return value if isinstance(value, str) and not _is_json(value) else json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text != text.strip()         # `--set` strips
    return True


async def _eta_s(node: CentralNode, view: RunView, is_measuring: bool) -> float | None:
    """Rounds left, at the pace of the last ones; none once the final model is measured."""
    left = 0 if is_measuring else view.run.config.rounds - view.rounds
    if view.run.status is not RunStatus.RUNNING or left < 1:
        return None
    took = await node.history.train_seconds(view.run.id)
    return left * statistics.median(took) if took else None


def is_told(view: RoundRow) -> bool:
    """The round that only measures has no row of its own unless it is open."""
    return view.round.kind is not RoundKind.EVALUATE
