"""Which model `fednode predict` asks, and by what code: one of the central node, or a params file and no central node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.cli.options import parse_sets
from fednode.core.json import JsonObject
from fednode.errors import BadConfig, NotFound

if TYPE_CHECKING:
    from fednode.cli.api import Api

SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class AskedModel:
    """A model at hand, and how its task is found here."""

    params_file: Path
    task: str
    is_typed: bool              # whether a person here named the task, which may then be a file
    fingerprint: str            # "": whatever version is here
    config: JsonObject
    threshold: float | None     # its own; None: its task chooses none, or nobody knows it


def is_params_file(model: str) -> bool:
    """Whether the text names a file rather than a model of the central node, whose names have no slash."""
    return Path(model).is_file() or "/" in model or model.endswith(SUFFIX)


def model_in_file(model: str, task: str | None, sets: list[str] | None) -> AskedModel:
    """Raises NotFound, BadConfig."""
    path = Path(model)
    if not path.is_file():
        raise NotFound(f"there is no file {model}", fix="check the path; a model of the central node has no such name")
    if task is None:
        raise BadConfig(
            f"{model} is a params file, which does not say of which task it is",
            fix="add --task NAME, and by --set task.FIELD=VALUE what it was trained with",
        )
    given = parse_sets(sets or [])
    if given["strategy"]:
        raise BadConfig("a strategy's settings change no prediction", fix="leave out --set strategy.…")
    return AskedModel(
        params_file=path, task=task, is_typed=True, fingerprint="", config=given["task"], threshold=None
    )


async def model_of_central(api: Api, model: str, target: Path, task: str | None, sets: list[str] | None) -> AskedModel:
    """Bring its params to `target`. `task`: the code that a person here names for it. Raises NotFound, BadConfig."""
    from fednode.cli.api import quoted
    from fednode.core.metrics import Metric
    from fednode.tasks.predictions import threshold_of

    if sets:
        raise BadConfig("this model's run says what it was trained with", fix="leave out --set")
    found: dict[str, Any] = await api.get(f"models/{quoted(model)}")
    run: dict[str, Any] = await api.get(f"runs/{found['run_id']}", limit="1")
    await api.download(found["sha256"], target)
    metrics = [Metric.from_json(row) for row in run["declared_metrics"]]
    known = {name: value for name, value in found["metrics"].items() if value is not None}
    return AskedModel(
        params_file=target, task=task or found["task"], is_typed=task is not None, fingerprint=found["fingerprint"],
        config=run["config"]["task_config"], threshold=threshold_of(metrics, known),
    )
