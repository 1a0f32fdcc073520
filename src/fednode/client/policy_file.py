"""The operator's word, read from the table `[policy]` of `fednode.toml`: here, and of the user's own file.

It is no setting like the others: no flag, no variable of the environment and no `.env` can say anything of it, and
where both files speak, the stricter line of the two counts. So nothing that was left behind weakens it. What it means
is in `core.policy`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fednode.core.policy import Limits, Policy
from fednode.core.units import seconds_of
from fednode.errors import BadConfig
from fednode.settings import DOTENV, POLICY_TABLE, TOML_NAME, Setting, read_toml, user_toml

FORBIDDEN = "FEDNODE_POLICY"


def _seconds(value: object) -> float:
    found = seconds_of(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if found is None:
        raise ValueError("no duration: write 600, 90s, 10m, 2h or 1d")
    return found


class Table(BaseModel):
    """`[policy]`, as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    tasks: list[str] | None = None
    """Names of tasks: nothing else is offered or run. Left out: whatever `--task` says, or is installed."""
    max_epochs: Annotated[int, Field(ge=1)] | None = None
    """A visit that asks for more epochs is refused."""
    max_wall_time: Annotated[float, BeforeValidator(_seconds)] | None = None
    """A visit that takes longer is ended, as `90s`, `10m` or `2h`."""
    min_cohort: Annotated[int, Field(ge=1)] | None = None
    """No training in a round of fewer clients."""
    approve: Literal["by-hand"] | None = None
    """`by-hand`: each new fingerprint of a task waits for a person, on the client's own page or at its terminal."""


def _common(lists: Sequence[list[str]]) -> list[str]:
    return [name for name in lists[0] if all(name in other for other in lists)]


_STRICTEST: dict[str, Callable[[Sequence[Any]], Any]] = {
    "tasks": _common, "max_epochs": min, "max_wall_time": min, "min_cohort": max, "approve": max,
}


def load_policy() -> Policy:
    """Raises BadConfig where a table says what it cannot, or the environment speaks of it."""
    values = {line.name.removeprefix(f"{POLICY_TABLE}."): line.value for line in explain_policy()}
    return Policy(
        tasks=None if values["tasks"] is None else tuple(values["tasks"]), is_by_hand=values["approve"] is not None,
        limits=Limits(
            max_epochs=values["max_epochs"], max_wall_time_s=values["max_wall_time"], min_cohort=values["min_cohort"]
        ),
    )


def explain_policy() -> list[Setting]:
    """Each line as it counts, and which file says so. Raises as `load_policy` does."""
    _refuse_the_environment()
    tables = {f"./{TOML_NAME}": _read(Path(TOML_NAME)), str(user_toml()): _read(user_toml())}
    return [_line(name, tables) for name in Table.model_fields]


def _line(name: str, tables: dict[str, Table]) -> Setting:
    said = {origin: value for origin, table in tables.items() if (value := getattr(table, name)) is not None}
    strictest = _STRICTEST[name](list(said.values())) if said else None
    origins = [origin for origin, value in said.items() if value == strictest] or list(said)
    return Setting(
        name=f"{POLICY_TABLE}.{name}", value=strictest, origin=" and ".join(origins) or "default", is_secret=False
    )


def _read(path: Path) -> Table:
    try:
        return Table.model_validate(read_toml(path).get(POLICY_TABLE, {}))
    except ValidationError as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: ValidationError) -> BadConfig:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if not name:
        told = f"{path}: {POLICY_TABLE} = {first['input']!r} is no table"
        return BadConfig(told, fix=f"write [{POLICY_TABLE}] above its lines")
    if name not in Table.model_fields:
        known = ", ".join(Table.model_fields)
        return BadConfig(f"{path}: [{POLICY_TABLE}] has no line {name!r}", fix=f"its lines are: {known}")
    told = first["msg"].removeprefix("Value error, ")
    return BadConfig(
        f"{path}: [{POLICY_TABLE}] {name} = {first['input']!r}: {told}",
        fix="correct it, or leave it out: then nothing is limited by it",
    )


def _refuse_the_environment() -> None:
    names = {*os.environ, *dotenv_values(DOTENV)}
    if found := sorted(name for name in names if name.upper().startswith(FORBIDDEN)):
        raise BadConfig(
            f"{found[0]} is set, and the policy of a client node is not taken from the environment",
            fix=f"unset it, and write its line into the table [{POLICY_TABLE}] of {TOML_NAME}",
        )
