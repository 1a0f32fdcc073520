"""Trying a model over HTTP: which models can be tried, pictures for it, and the predictions. Nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from fastapi import APIRouter

from fednode.central.node import CentralNode, Node, Operator
from fednode.central.predictions import picture_of
from fednode.core.json import finite
from fednode.core.records import Run, RunConfig
from fednode.core.status import is_final
from fednode.errors import CannotPredict, FednodeError, NotFound
from fednode.store.run_views import RunView
from fednode.tasks.predictions import TaskCard
from fednode.wire.messages import (
    Choice,
    ErrorBody,
    PictureBody,
    PredictionBody,
    PredictionRequest,
    SampleBody,
    SamplesBody,
)

MAX_CHOICES = 50        # the newest runs

router = APIRouter(prefix="/api/v1", tags=["predictions"], dependencies=[Operator])


@router.post("/models/{ref}/predictions")
async def predict(ref: str, body: PredictionRequest, node: Node) -> PredictionBody:
    """What a model, by id, sha256 or a unique prefix of either, makes of up to 16 pictures."""
    model = await node.queries.model(ref)
    run = await node.queries.resolve_run(model.run_id)
    card, found = await node.predictions.predict(run.config, node.store.model_path(model.sha256), body.inputs)
    return PredictionBody(
        model_sha256=model.sha256, run=model.run_number, round=model.round, labels=list(card.classes),
        probabilities=found,
    )


@router.get("/predictions/choices")
async def list_choices(node: Node) -> list[Choice]:
    """The newest runs that have a model, or will have one; newest first."""
    views = [view for view in await node.queries.run_summaries() if view.model_sha256 or not is_final(view.run.status)]
    return await choices_of(node, views[:MAX_CHOICES])


@router.get("/predictions/samples/{task}")
async def list_samples(task: str, node: Node) -> SamplesBody:
    """Pictures that the task brings for this, which anybody may see."""
    card = await node.predictions.card(task)
    if card.samples is None:
        raise NotFound(f"the task {task!r} brings no samples", fix="send pictures of your own")
    pictures = card.samples.pictures.reshape(len(card.samples.labels), -1).tolist()
    return SamplesBody(
        source=card.samples.source,
        samples=[SampleBody(label=label, pixels=p) for label, p in zip(card.samples.labels, pictures, strict=True)],
    )


async def choices_of(node: CentralNode, views: Sequence[RunView]) -> list[Choice]:
    """One entry a run, in this order: its newest model. A task is asked about once."""
    tasks = dict.fromkeys(view.run.config.task for view in views)
    cards = {task: await _card(node, task) for task in tasks}
    return [
        _choice(
            view.run, cards[view.run.config.task], None if view.model_sha256 is None else view.rounds,
            view.model_sha256, view.metrics, is_live=not is_final(view.run.status),
        )
        for view in views
    ]


async def choice_of_model(node: CentralNode, ref: str) -> Choice:
    """One model, whatever its run does. Raises NotFound."""
    model = await node.queries.model(ref)
    run = await node.queries.resolve_run(model.run_id)
    card = await _card(node, run.config.task)
    return _choice(run, card, model.round, model.sha256, model.metrics, is_live=False)


async def _card(node: CentralNode, task: str) -> TaskCard | FednodeError:
    """What is wrong with a task is a fact to show, here."""
    try:
        return await node.predictions.card(task)
    except FednodeError as error:
        return error


def _choice(
    run: Run, card: TaskCard | FednodeError, round_: int | None, sha256: str | None, metrics: Mapping[str, float],
    *, is_live: bool,
) -> Choice:
    problem = card if isinstance(card, FednodeError) else _misfit(card, run.config)
    known = None if problem else card
    assert known is None or isinstance(known, TaskCard)
    return Choice(
        run=run.number, task=run.config.task, status=run.status.value, is_live=is_live,
        rounds_planned=run.config.rounds, round=round_, model_sha256=sha256,
        metrics={name: value for name, value in metrics.items() if finite(value) is not None},
        picture=PictureBody(**asdict(known.picture)) if known and known.picture else None,
        labels=list(known.classes) if known else [],
        problem=problem and ErrorBody(code=problem.code, message=problem.message, fix=problem.fix),
    )


def _misfit(card: TaskCard, config: RunConfig) -> CannotPredict | None:
    try:
        picture_of(card, config)
    except CannotPredict as error:
        return error
    return None
