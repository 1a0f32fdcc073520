"""Which model a run starts from: none, the latest that fits, or one that is named."""

from __future__ import annotations

from dataclasses import fields

from fednode.core.json import JsonObject
from fednode.core.records import RunConfig
from fednode.errors import BadConfig, NotFound
from fednode.store.queries import ModelView, Queries
from fednode.store.sql import SqlStore
from fednode.tasks.base import TrainConfig

FRESH, LATEST = "fresh", "latest"
START_FROM = "start_from"       # the field of a request
HOW_TO_TRAIN = frozenset(field.name for field in fields(TrainConfig))       # says nothing of a model's shape


async def start_model(store: SqlStore, queries: Queries, start_from: str, config: RunConfig) -> str:
    """The sha256 of the model; "" for fresh.

    `latest` is the newest trained one of the same task whose settings are the same but for how it trains. Raises
    NotFound, Freed where its params are not kept, and BadConfig for a model of another task.
    """
    if start_from == FRESH:
        return ""
    if start_from == LATEST:
        return (await _require_latest(store, queries, config)).sha256
    return (await _named(store, queries, start_from, config)).sha256


async def latest_model(store: SqlStore, queries: Queries, config: RunConfig) -> ModelView | None:
    """What `latest` means for a run of this config; None where there is none."""
    shape = _shape(config.task_config)
    fitting = {run.id for run in await store.runs() if _shape(run.config.task_config) == shape}
    return next((model for model in await queries.last_models(config.task) if model.run_id in fitting), None)


async def _require_latest(store: SqlStore, queries: Queries, config: RunConfig) -> ModelView:
    if model := await latest_model(store, queries, config):
        return model
    raise NotFound(
        f"there is no model of task {config.task!r} with these settings to go on from", fix="start from `fresh`",
        field=START_FROM,
    )


async def _named(store: SqlStore, queries: Queries, ref: str, config: RunConfig) -> ModelView:
    try:
        model = await queries.model(ref)
        await store.model_bytes(model.sha256)
    except NotFound as error:           # or Freed
        raise type(error)(error.message, fix=error.fix, field=START_FROM) from None
    if model.task != config.task:
        raise BadConfig(
            f"model {ref!r} is one of task {model.task!r}, the run is of {config.task!r}",
            fix="name a model of this task: `fednode models` lists them", field=START_FROM,
        )
    return model


def _shape(task_config: JsonObject) -> JsonObject:
    return {name: value for name, value in task_config.items() if name not in HOW_TO_TRAIN}
