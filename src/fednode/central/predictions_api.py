"""Trying a model over HTTP: which models can be tried, pictures for it, and the predictions. Nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from fednode.central.bodies import FILE, MAX_FILE_BYTES, read_whole
from fednode.central.node import CentralNode, Node, Operator
from fednode.central.predictions import Prediction, Tried, picture_of
from fednode.core.json import canonical_json, finite
from fednode.core.records import Run, RunConfig
from fednode.core.status import is_final
from fednode.errors import CannotPredict, FednodeError, NotFound
from fednode.store.queries import ModelView
from fednode.store.run_views import RunView
from fednode.tasks.predictions import TaskCard, threshold_of
from fednode.wire.messages import (
    Choice,
    ErrorBody,
    FilePredictionBody,
    PictureBody,
    PredictionBody,
    PredictionRequest,
    SampleBody,
    SamplesBody,
)

MAX_CHOICES = 50        # the newest runs
BINARY = {"type": "string", "format": "binary"}

router = APIRouter(prefix="/api/v1", tags=["predictions"], dependencies=[Operator])


@router.post("/models/{ref}/predictions")
async def predict(ref: str, body: PredictionRequest, node: Node) -> PredictionBody:
    """What a model, by id, sha256 or a unique prefix of either, makes of up to 16 pictures."""
    model, tried = await _tried(node, ref)
    found = await node.predictions.predict(tried, body.inputs, explain=body.explain)
    return PredictionBody(**_told(model, tried, found))


@router.post(
    "/models/{ref}/predictions/file",
    openapi_extra={"requestBody": {"required": True, "content": {FILE: {"schema": BINARY}}}},
)
async def predict_file(ref: str, node: Node, request: Request, explain: bool = False) -> FilePredictionBody:
    """What a model makes of the picture in a file, a JPEG or PNG, read as the task reads its own data.

    The body is the file as it is, at most 16 MiB. `explain`: with a heat map, where the task makes some.
    """
    model, tried = await _tried(node, ref)
    async with node.predictions.room_for_files:
        content = await read_whole(request.receive, MAX_FILE_BYTES)
        found = await node.predictions.predict_file(tried, content, explain=explain)
    return FilePredictionBody(**_told(model, tried, found), pixels=found.pictures[0].ravel().tolist())


@router.get("/predictions/choices")
async def list_choices(node: Node) -> list[Choice]:
    """The newest runs that have a model, or will have one; newest first."""
    views = [view for view in await node.queries.run_summaries() if view.model_sha256 or not is_final(view.run.status)]
    return await choices_of(node, views[:MAX_CHOICES])


@router.get("/predictions/samples/{task}")
async def list_samples(task: str, node: Node, run: str = "") -> SamplesBody:
    """Pictures that the task brings for this, which anybody may see. `run`: in the form that its models take."""
    card = await (node.predictions.card_of(await _config_of(node, run, task)) if run else node.predictions.card(task))
    if card.samples is None:
        raise NotFound(f"the task {task!r} brings no samples", fix="send pictures of your own")
    pictures = card.samples.pictures.reshape(len(card.samples.labels), -1).tolist()
    return SamplesBody(
        source=card.samples.source,
        samples=[SampleBody(label=label, pixels=p) for label, p in zip(card.samples.labels, pictures, strict=True)],
    )


async def _tried(node: CentralNode, ref: str) -> tuple[ModelView, Tried]:
    model = await node.queries.model(ref)
    await node.store.model_bytes(model.sha256)      # or Freed is raised
    run = await node.queries.resolve_run(model.run_id)
    return model, Tried(
        config=run.config, params_file=node.store.model_path(model.sha256),
        threshold=finite(threshold_of(run.metrics, model.metrics)),
        awaits_threshold=not model.metrics and any(spec.combine == "threshold" for spec in run.metrics),
    )


async def _config_of(node: CentralNode, run: str, task: str) -> RunConfig:
    found = await node.queries.resolve_run(run)
    if found.config.task != task:
        raise NotFound(f"run #{found.number} is one of {found.config.task!r}, not of {task!r}", fix="name its own task")
    return found.config


def _told(model: ModelView, tried: Tried, found: Prediction) -> dict[str, Any]:
    labels = list(found.card.classes)
    return {
        "model_sha256": model.sha256, "run": model.run_number, "round": model.round, "labels": labels,
        "probabilities": found.probabilities, "threshold": tried.threshold,
        "awaits_threshold": tried.awaits_threshold, "heat_maps": found.heat_maps,
        "verdicts": [labels[index] for index in found.verdicts], "notice": found.card.notice,
    }


async def choices_of(node: CentralNode, views: Sequence[RunView]) -> list[Choice]:
    """One entry a run, in this order: its newest model. A task with one config is asked about once."""
    configs = {_key(view.run.config): view.run.config for view in views}
    cards = {key: await _card(node, config) for key, config in configs.items()}
    return [
        _choice(
            view.run, cards[_key(view.run.config)], None if view.model_sha256 is None else view.rounds,
            view.model_sha256, view.metrics, is_live=not is_final(view.run.status),
        )
        for view in views
    ]


async def choice_of_model(node: CentralNode, ref: str) -> Choice:
    """One model, whatever its run does. Raises NotFound."""
    model = await node.queries.model(ref)
    run = await node.queries.resolve_run(model.run_id)
    card = await _card(node, run.config)
    return _choice(run, card, model.round, model.sha256, model.metrics, is_live=False)


def _key(config: RunConfig) -> tuple[str, str, str]:
    return config.task, config.fingerprint, canonical_json(config.task_config)


async def _card(node: CentralNode, config: RunConfig) -> TaskCard | FednodeError:
    """What is wrong with a task is a fact to show, here."""
    try:
        return await node.predictions.card_of(config)
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
        reads_files=known is not None and known.reads_files, notice=known.notice if known else "",
        problem=problem and ErrorBody(code=problem.code, message=problem.message, fix=problem.fix),
    )


def _misfit(card: TaskCard, config: RunConfig) -> CannotPredict | None:
    try:
        picture_of(card, config)
    except CannotPredict as error:
        return error
    return None
