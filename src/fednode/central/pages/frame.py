"""What every page has around it: the template environment, the navigation, and how a page is rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.templating import Jinja2Templates

from fednode.central.node import CentralNode, Operator, node_of
from fednode.web.look import environment

TEMPLATE_DIR = Path(__file__).parents[1] / "templates"
SEE_OTHER = 303
NAVIGATION = (
    ("/", "Overview"), ("/runs", "Runs"), ("/clients", "Clients"), ("/models", "Models"), ("/try", "Try it"),
    ("/events", "Events"), ("/settings", "Settings"),
)

templates = Jinja2Templates(env=environment(TEMPLATE_DIR))


def page_router() -> APIRouter:
    """The router of a page: for operators only, and no part of the published API."""
    return APIRouter(include_in_schema=False, dependencies=[Operator])


async def render(request: Request, template: str, status_code: int = 200, **facts: Any) -> Response:
    """A whole page. `live` names its stream; without one the page only hears whether the central node is there."""
    node = node_of(request)
    around = {
        "navigation": NAVIGATION, "path": request.url.path, "seq": await newest_seq(node), "live": "/live",
        "is_signed_in": node.doors.is_signed_in(request),
    }
    return templates.TemplateResponse(request, template, around | facts, status_code=status_code)


def fragment(template: str, **facts: Any) -> str:
    """A part of a page, as it is included in the page and pushed by its stream."""
    return str(templates.env.get_template(template).render(facts))


async def newest_seq(node: CentralNode) -> int:
    """Of the newest event: a page's stream goes on from here. Ask before the page's facts are read."""
    return await node.store.wait_for_event(0, 0.0)


__all__ = ["SEE_OTHER", "HTMLResponse", "fragment", "newest_seq", "page_router", "render", "templates"]
