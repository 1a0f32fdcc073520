"""The pages: overview and run, rendered on the central node, enough to train from a browser.

Every page has a JSON twin in `runs_api` and `clients_api`; what a form asks for goes the way of every other request for
a run. Templates lie in `templates/`, the style sheet in `static/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from pydantic import ValidationError

from fednode.central.clients_api import client_row
from fednode.central.node import CentralNode, Node, Operator
from fednode.central.offers import MergedOffer, merged_offers
from fednode.central.runs_api import summary_of
from fednode.core.status import RoundKind, RunStatus
from fednode.errors import BadConfig, FednodeError
from fednode.store.queries import RoundView
from fednode.wire.messages import RunRequest

HERE = Path(__file__).parent
STATIC_DIR = HERE / "static"
SEE_OTHER = 303
LIVE = (RunStatus.QUEUED.value, RunStatus.RUNNING.value)
VERBS = {"queued": ("pause", "cancel"), "running": ("pause", "cancel"), "paused": ("resume", "cancel")}

router = APIRouter(include_in_schema=False, dependencies=[Operator])
templates = Jinja2Templates(HERE / "templates")


def _score(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float | int) else ""


def _scores(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_score(value)}" for name, value in metrics.items())


templates.env.filters |= {"score": _score, "scores": _scores}


@dataclass(frozen=True)
class LaunchForm:
    """One task that clients offer, with the defaults that its offer gives."""

    task: str
    rounds: int
    epochs: int
    batch_size: int
    learning_rate: float
    num_clients: int


@router.get("/", response_class=HTMLResponse)
async def overview(request: Request, node: Node) -> Response:
    """What the federation is doing, who belongs to it, and the button."""
    return await _overview(request, node)


@router.post("/launch")
async def launch(
    request: Request, node: Node, task: Annotated[str, Form()], rounds: Annotated[str, Form()],
    epochs: Annotated[str, Form()], batch_size: Annotated[str, Form()], learning_rate: Annotated[str, Form()],
) -> Response:
    """Start a run and go to its page; what is wrong with the form is said above it."""
    fields = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    try:
        run = await node.runs.create(_request(task, rounds, fields))
    except FednodeError as error:
        return await _overview(request, node, error)
    return RedirectResponse(f"/runs/{run.number}", SEE_OTHER)


@router.get("/runs/{ref}", response_class=HTMLResponse)
async def run_page(request: Request, ref: str, node: Node) -> Response:
    """One run: how far it is, the score of each round's model, what went wrong."""
    view = await node.queries.run_summary(ref)
    summary = summary_of(node, view)
    history = [_row(round_) for round_ in await node.queries.run_rounds(view.run.id) if _is_told(round_)]
    names = list(dict.fromkeys(name for row in history for name in row["metrics"]))
    return templates.TemplateResponse(request, "run.html", {
        "run": summary, "history": history, "names": names, "is_live": summary.status in LIVE,
        "verbs": VERBS.get(summary.status, ()),
    })


@router.post("/runs/{ref}/{verb}")
async def act(ref: str, verb: Literal["pause", "resume", "cancel"], node: Node) -> Response:
    """A button of the run page."""
    run = await node.queries.resolve_run(ref)
    await getattr(node.runs, verb)(run.id)
    return RedirectResponse(f"/runs/{run.number}", SEE_OTHER)


async def _overview(request: Request, node: CentralNode, problem: FednodeError | None = None) -> Response:
    clients = [client_row(node, record) for record in await node.store.clients()]
    runs = [summary_of(node, view) for view in await node.queries.run_summaries()]
    active = [run.status for run in runs if run.status in LIVE]
    facts = {
        "clients": clients, "runs": runs, "problem": problem,
        "num_online": sum(client["status"] in ("online", "busy") for client in clients),
        "status": "running" if "running" in active else active[0] if active else "idle",
        "forms": [_form(merged) for merged in merged_offers(node.presence.members())],
        "url": str(request.base_url).rstrip("/"),
    }
    return templates.TemplateResponse(
        request, "overview.html", facts, status_code=problem.http_status if problem else 200
    )


def _form(merged: MergedOffer) -> LaunchForm:
    fields: Any = merged.offer.schema.get("properties", {})
    defaults = {name: fields.get(name, {}).get("default", 1) for name in ("epochs", "batch_size", "learning_rate")}
    return LaunchForm(
        task=merged.offer.task, rounds=merged.offer.default_rounds, num_clients=len(merged.clients), **defaults
    )


def _request(task: str, rounds: str, fields: Mapping[str, str]) -> RunRequest:
    """The form as a request. Raises BadConfig naming the field that is no number or out of range."""
    try:
        config = {name: _number(name, text) for name, text in fields.items()}
        return RunRequest(task=task, rounds=int(_number("rounds", rounds)), task_config=config)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadConfig(f"{first['loc'][0]}: {first['msg']}", fix="correct the field") from None


def _number(name: str, text: str) -> float | int:
    try:
        number = float(text)
    except ValueError:
        raise BadConfig(f"{name} = {text!r} is no number", fix="write a number, such as 5 or 0.1") from None
    return int(number) if number.is_integer() else number


def _is_told(view: RoundView) -> bool:
    """The round that only measures has no row of its own; one that is open or failed has."""
    return view.round.kind is not RoundKind.EVALUATE


def _row(view: RoundView) -> dict[str, Any]:
    failures: Sequence[str] = [f"{c.client}: {c.failure.reason}" for c in view.clients if c.failure]
    return {
        "round": view.round.number, "attempt": view.round.attempt, "status": view.round.status.value,
        "metrics": view.metrics, "num_updates": sum(c.num_examples is not None for c in view.clients),
        "num_clients": len(view.clients), "failures": "; ".join(failures),
    }
