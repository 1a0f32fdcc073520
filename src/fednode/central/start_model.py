"""Which model a run starts from: none, the latest that fits, or one that is named."""

from __future__ import annotations

from dataclasses import fields

from fednode.core.json import JsonObject
from fednode.core.records import RunConfig
from fednode.errors import BadConfig, NotFound
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore
from fednode.tasks.base import TrainConfig

FRESH, LATEST = "fresh", "latest"
HOW_TO_TRAIN = frozenset(field.name for field in fields(TrainConfig))       # says nothing of a model's shape


async def start_model(store: SqlStore, queries: Queries, start_from: str, config: RunConfig) -> str:
    """The sha256 of the model; "" for fresh.

    `latest` is the newest of the same task whose settings are the same but for how it trains. Raises NotFound, and
    BadConfig for a model of another task.
    """
    if start_from == FRESH:
        return ""
    if start_from == LATEST:
        return await _latest(store, queries, config)
    model = await queries.model(start_from)
    if model.task != config.task:
        raise BadConfig(
            f"model {start_from!r} is one of task {model.task!r}, the run is of {config.task!r}",
            fix="name a model of this task: `fednode models` lists them",
        )
    return model.sha256


async def _latest(store: SqlStore, queries: Queries, config: RunConfig) -> str:
    for model in await queries.models():
        if model.task == config.task:
            run = await store.run(model.run_id)
            if _shape(run.config.task_config) == _shape(config.task_config):
                return model.sha256
    raise NotFound(
        f"there is no model of task {config.task!r} with these settings to go on from", fix="start from `fresh`"
    )


def _shape(task_config: JsonObject) -> JsonObject:
    return {name: value for name, value in task_config.items() if name not in HOW_TO_TRAIN}
