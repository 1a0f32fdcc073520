"""Launch: the form that starts a run, and the panel beside it that says whether it can start."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from fednode.central.asked import Seq
from fednode.central.launch_check import LaunchCheck, absence, usual_config
from fednode.central.node import CentralNode, Node
from fednode.central.offers import MergedOffer, merged_offers
from fednode.central.pages.form_fields import element_id
from fednode.central.pages.frame import SEE_OTHER, HTMLResponse, fragment, newest_seq, page_router, render
from fednode.central.pages.launch_form import (
    CHOSEN,
    EACH_ROUND,
    NOT_TYPED,
    OF_MODELS,
    LaunchForm,
    blank_form,
    judged,
    request_of,
    told,
    typed_form,
)
from fednode.central.pages.live import Change, if_absent, in_place, stream
from fednode.central.pages.run_facts import command_of
from fednode.central.start_model import FRESH, LATEST, START_FROM, latest_model
from fednode.errors import FieldErrors, UsageError
from fednode.store.queries import ModelView
from fednode.store.records import Event
from fednode.wire.messages import RunRequest

MAX_MODELS = 20                 # to start from, by name
MAX_ROWS = 500                  # clients to tick; more: the command line names them
MAX_INPUTS = 5_000
MAX_TASK = 100                  # characters of a name
WRONG = 422

router = page_router()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A client that may be ticked."""

    name: str
    version: str                # of the task, that it offers; "" where all offer the same
    note: str                   # why it is not there

    @property
    def id(self) -> str:
        """Fit for a selector, which a name with dots is not."""
        return f"roster-{hashlib.sha256(self.name.encode()).hexdigest()[:12]}"


@router.get("/launch")
async def show(
    request: Request, node: Node, task: str = "", version: str = "", start_from: str = "",
    client: Annotated[tuple[str, ...], Query()] = (),
) -> Response:
    """The form with its defaults. `client`: who is ticked; `start_from`: the model to go on from."""
    seq = await newest_seq(node)
    tasks = sorted({merged.offer.task for merged in merged_offers(node.presence.members())})
    task = task or (tasks[0] if len(tasks) == 1 else "")
    if not task:
        return await render(request, "launch_choice.html", tasks=tasks, url=node.base_url(request), seq=seq)
    form = _form(node, task, version)
    if form is not None:
        form = replace(form, roster=CHOSEN if client else form.roster, clients=client)
        form = _starting(form, start_from) if start_from else await _from_latest(node, form)
    form, check = await _check(node, task, form)
    form = form and replace(form, errors={})        # nobody has typed anything yet
    return await _page(request, node, form, check, seq=seq)


@router.post("/launch")
async def launch(request: Request, node: Node) -> Response:
    """Start the run and go to its page. What is wrong is said beside each field, and nothing has started."""
    seq = await newest_seq(node)
    form, check = await _typed(request, node)
    if form is not None and check.is_ok:
        try:
            run = await node.runs.create(request_of(form)[0])
            return RedirectResponse(f"/runs/{run.number}", SEE_OTHER)
        except UsageError as error:         # something has changed since the check
            form, check = judged(form, replace(check, problems=error.parts or (error,)), FieldErrors())
    return await _page(request, node, form, check, seq=seq, status_code=WRONG)


@router.post("/launch/check")
async def checked(request: Request, node: Node) -> Response:
    """The panel, for the form as it stands now."""
    form, check = await _typed(request, node)
    return HTMLResponse(fragment("launch_check.html", **_panel(request, node, form, check)))


@router.get("/launch/roster")
async def roster(node: Node, task: str, version: str = "") -> Response:
    """Rows for clients that may be ticked since; of the others only whether they are there: a tick is the reader's."""
    rows = _rows(node, task, version)
    return HTMLResponse("".join(
        if_absent("roster", row.id, fragment("launch_roster_row.html", row=row, ticked=()))
        + in_place(f"{row.id}-note", fragment("launch_roster_note.html", row=row))
        for row in rows
    ))


@router.get("/live/launch")
async def changes(request: Request, node: Node, after: Seq = 0) -> StreamingResponse:
    """A sign to the form that clients or runs have changed: it asks for its panel and its roster again."""

    async def news(events: Sequence[Event], clients: Collection[str]) -> Change:
        return Change(signals={"changed": {}})

    return stream(request, node, after, news)


def _form(node: CentralNode, task: str, version: str) -> LaunchForm | None:
    """None where nobody offers the task."""
    if not (versions := _versions(node, task)):
        return None
    num_there = {
        merged.offer.fingerprint: sum(node.presence.is_there(name) for name in merged.clients) for merged in versions
    }
    return blank_form(task, versions, version, num_there)


async def _typed(request: Request, node: CentralNode) -> tuple[LaunchForm | None, LaunchCheck]:
    """The form that came, and what there is to say of it."""
    data = await request.form(max_fields=MAX_INPUTS)
    task = str(data.get("task", ""))
    form = _form(node, task, str(data.get("pinned", "")))
    return await _check(node, task, form and typed_form(form, data))


async def _check(node: CentralNode, task: str, form: LaunchForm | None) -> tuple[LaunchForm | None, LaunchCheck]:
    if form is None:
        return None, await node.runs.check(RunRequest(task=task[:MAX_TASK] or "?"))
    request, unread = request_of(form)
    return judged(form, await node.runs.check(request), unread)


async def _from_latest(node: CentralNode, form: LaunchForm) -> LaunchForm:
    """The form, going on from the newest model of the same version and settings where there is one."""
    plan = (await node.runs.check(request_of(form)[0])).plan
    model = plan.config and await latest_model(node.store, node.queries, plan.config)
    is_same = model is not None and model.fingerprint == form.version
    return _starting(form, LATEST if is_same else FRESH)


def _starting(form: LaunchForm, start_from: str) -> LaunchForm:
    return replace(form, run={**form.run, START_FROM: form.run[START_FROM].typed(start_from)})


async def _page(
    request: Request, node: CentralNode, form: LaunchForm | None, check: LaunchCheck, *, seq: int,
    status_code: int = 200,
) -> Response:
    task = check.task
    pinned = form.version if form and form.is_pinned else ""
    return await render(
        request, "launch.html", status_code, **_panel(request, node, form, check), seq=seq,
        rows=_rows(node, task, pinned), models=await _models(node, task),
        roster_url=f"/launch/roster?task={quote(task, safe='')}&version={quote(pinned, safe='')}", live="/live/launch",
    )


def _panel(request: Request, node: CentralNode, form: LaunchForm | None, check: LaunchCheck) -> dict[str, Any]:
    """What the panel shows. The button works unless something is wrong that nobody can type away."""
    is_stuck = form is None or any(problem.field in NOT_TYPED for problem in check.problems)
    return {
        "form": form, "check": check, "told": told, "element_id": element_id,
        "groups": (("Each round", EACH_ROUND), ("Models", OF_MODELS)), "task": check.task, "is_stuck": is_stuck,
        "url": node.base_url(request), "command": _command(form, check) if form else "",
    }


def _command(form: LaunchForm, check: LaunchCheck) -> str:
    """The same run on the command line; "" as long as something is wrong."""
    plan, request = check.plan, request_of(form)[0]
    if plan.config is None or plan.chosen is None or check.problems:
        return ""
    return command_of(replace(plan.config, start_model=""), usual_config(request, plan), request.start_from)


def _versions(node: CentralNode, task: str) -> list[MergedOffer]:
    return [merged for merged in merged_offers(node.presence.members()) if merged.offer.task == task]


def _rows(node: CentralNode, task: str, version: str) -> list[Row]:
    """Whom a person may tick: who offers the task, in that version where one is wanted."""
    versions = _versions(node, task)
    found = [
        (name, merged.offer.fingerprint if len(versions) > 1 else "")
        for merged in versions if version in ("", merged.offer.fingerprint) for name in merged.clients
    ]
    shown = sorted(found, key=lambda pair: pair[0].encode())[:MAX_ROWS]
    return [Row(name=name, version=told, note=absence(name, node.presence)) for name, told in shown]


async def _models(node: CentralNode, task: str) -> list[ModelView]:
    return (await node.queries.last_models(task))[:MAX_MODELS]
