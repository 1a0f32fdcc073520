"""Launch: the form that starts a run, built from what the clients offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from fednode.central.node import CentralNode, Node
from fednode.central.offers import MergedOffer, merged_offers
from fednode.central.pages.frame import SEE_OTHER, page_router, render
from fednode.errors import BadConfig, FednodeError
from fednode.wire.messages import RunRequest

router = page_router()


@dataclass(frozen=True)
class LaunchForm:
    """One task that clients offer, with the defaults that its offer gives."""

    task: str
    rounds: int
    epochs: int
    batch_size: int
    learning_rate: float
    num_clients: int


@router.get("/launch")
async def form(request: Request, node: Node, task: str = "") -> Response:
    """The form."""
    return await _page(request, node, task)


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
        return await _page(request, node, task, error)
    return RedirectResponse(f"/runs/{run.number}", SEE_OTHER)


async def _page(request: Request, node: CentralNode, task: str, problem: FednodeError | None = None) -> Response:
    forms = [_form(merged) for merged in merged_offers(node.presence.members())]
    return await render(
        request, "launch.html", problem.http_status if problem else 200, problem=problem, task=task,
        forms=[form for form in forms if form.task == task] or forms, url=str(request.base_url).rstrip("/"),
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
