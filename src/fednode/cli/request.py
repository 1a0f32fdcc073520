"""From flags and a file to a `RunRequest`: what `run` and `simulate` ask for, told the same way."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.cli.options import duration_s, parse_sets
from fednode.errors import BadConfig

if TYPE_CHECKING:
    from fednode.wire.messages import RunRequest

TASK_FLAGS = ("epochs", "batch_size", "learning_rate")     # `--epochs 2` is short for `--set task.epochs=2`
FILE_KEYS = {
    "task", "rounds", "strategy", "min_updates", "cohort_fraction", "deadline", "seed", "start_from", "clients", "set",
    "best_metric", "patience", "keep_every", "encoding", *TASK_FLAGS,
}


def run_request(task: str | None, config: Path | None, sets: list[str] | None, **flags: Any) -> RunRequest:
    """What was asked for: the file's words, then the flags over them (None: not given). Raises BadConfig."""
    from pydantic import ValidationError

    from fednode.wire.messages import RunRequest

    asked = _read_file(config) if config else {}
    settings = asked.pop("set", {})
    asked |= {name: value for name, value in flags.items() if value is not None}
    asked |= {"task": task} if task else {}
    task_config = dict(settings.get("task", {})) | {name: asked.pop(name) for name in TASK_FLAGS if name in asked}
    given = parse_sets(sets or [])
    if "deadline" in asked:
        asked["deadline_s"] = duration_s(str(asked.pop("deadline")))
    if "task" not in asked:
        raise BadConfig("no task was named", fix="name one: fednode run mnist, or `task = \"mnist\"` in the file")
    try:
        return RunRequest(
            **asked, task_config=task_config | given["task"],
            strategy_config=dict(settings.get("strategy", {})) | given["strategy"],
        )
    except ValidationError as error:
        raise _as_bad_config(error.errors()[0]) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}", fix="name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is no TOML: {error}", fix="correct the line that it names") from None
    for key in found.keys() - FILE_KEYS:
        raise BadConfig(f"{path} has an unknown key {key!r}", fix=f"known keys: {', '.join(sorted(FILE_KEYS))}")
    return found


def _as_bad_config(first: Mapping[str, Any]) -> BadConfig:
    name = ".".join(str(part) for part in first["loc"])
    return BadConfig(f"{name} = {first.get('input')!r}: {first['msg']}", fix=f"correct --{name.replace('_', '-')}")
