"""How a request for a run becomes a complete `RunConfig`: one way, for a served run and for a simulated one.

The task's config is checked against the schema that its offer carries, so nothing here needs the task's code.
Who takes part, and which offer counts, is decided before: `central/runs.py`, `simulation/simulate.py`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from fednode.core.json import Json, JsonObject, canonical_json
from fednode.core.records import Offer, RunConfig
from fednode.errors import BadConfig
from fednode.strategies.registry import load_strategy, strategy_defaults
from fednode.wire.messages import RunRequest

DEFAULT_MIN_UPDATES = 2


def complete_config(
    request: RunRequest, offer: Offer, roster_size: int, seed: int, start_model: str = ""
) -> RunConfig:
    """Everything that decides a run's result. `seed` is taken where the request names none.

    `roster_size` is the number of clients that would take part now. Raises BadConfig naming the field, NotFound
    for a strategy that is not there.
    """
    _require_support(request, offer)
    return RunConfig(
        task=offer.task,
        fingerprint=offer.fingerprint,
        task_config=complete_task_config(request.task_config, offer),
        strategy=request.strategy,
        strategy_config=strategy_defaults(request.strategy, _finite("strategy", request.strategy_config)),
        rounds=offer.default_rounds if request.rounds is None else request.rounds,
        min_updates=_min_updates(request, roster_size),
        cohort_fraction=request.cohort_fraction,
        deadline_s=request.deadline_s,
        seed=seed if request.seed is None else request.seed,
        clients=tuple(sorted(set(request.clients), key=str.encode)),
        start_model=start_model,
    )


def complete_task_config(values: JsonObject, offer: Offer) -> JsonObject:
    """`values`, valid by the offer's schema, with its defaults filled in. Raises BadConfig naming the field."""
    fields = _fields(offer.schema)
    _refuse_unknown(values, fields, offer)
    given = {name: _as_declared(value, fields[name]) for name, value in _finite("task", values).items()}
    defaults = {name: field["default"] for name, field in fields.items() if "default" in field}
    complete = defaults | given
    if errors := _errors(complete, offer):
        raise _bad_field(errors[0])
    return {name: complete[name] for name in sorted(complete)}


def check_offer(offer: Offer) -> None:
    """Raise BadConfig where an offer's schema is none: whoever offers it hears of it, not who starts a run."""
    try:
        Draft202012Validator.check_schema(cast(dict[str, Any], offer.schema))
    except SchemaError as error:
        raise BadConfig(
            f"the offer of task {offer.task!r} has no valid JSON schema: {error.message}",
            fix="build the schema with `config_schema` of the task's Config",
        ) from None
    for name, field in _fields(offer.schema).items():
        if not isinstance(field, Mapping):
            raise BadConfig(f"the offer of task {offer.task!r} says nothing of field {name!r}", fix="give it a schema")


def _require_support(request: RunRequest, offer: Offer) -> None:
    strategy = load_strategy(request.strategy, _finite("strategy", request.strategy_config))
    for need in strategy.requires:
        if need not in offer.supports:
            raise BadConfig(
                f"strategy {request.strategy!r} needs a task that supports {need!r}; {offer.task!r} supports "
                f"{_listed(offer.supports)}",
                fix="take another strategy, or a task that declares it in `supports`",
            )


def _min_updates(request: RunRequest, roster_size: int) -> int:
    """As asked, else 2 (1 for a roster of one). A fixed roster must be able to bring them."""
    if request.min_updates is None:
        return max(1, min(DEFAULT_MIN_UPDATES, roster_size))
    num_fixed = len(set(request.clients))
    if request.clients and num_fixed < request.min_updates:
        raise BadConfig(
            f"min_updates = {request.min_updates}, but the run has only {num_fixed} clients: "
            f"{', '.join(sorted(set(request.clients)))}",
            fix=f"name more clients, or lower min_updates to {num_fixed}",
        )
    return request.min_updates


def _errors(values: JsonObject, offer: Offer) -> list[ValidationError]:
    """What the schema says against `values`, by field. A stranger wrote the schema: nothing is fetched for it."""
    validator = Draft202012Validator(cast(dict[str, Any], offer.schema), registry=Registry())
    try:
        found = list(validator.iter_errors(cast(dict[str, Any], values)))
    except (Unresolvable, RecursionError, re.error) as error:
        raise BadConfig(
            f"the schema that task {offer.task!r} offers cannot be used: {error}", fix="mend the task's Config"
        ) from None
    return sorted(found, key=lambda error: [str(part) for part in error.absolute_path])


def _fields(schema: JsonObject) -> Mapping[str, Mapping[str, Json]]:
    return cast(Mapping[str, Mapping[str, Json]], schema.get("properties", {}))


def _refuse_unknown(values: JsonObject, fields: Collection[str], offer: Offer) -> None:
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise BadConfig(
                f"task {offer.task!r} has no setting {name!r}", fix=f"{hint}its settings: {_listed(sorted(fields))}"
            )


def _as_declared(value: Json, field: Mapping[str, Json]) -> Json:
    """1 where a number is asked for is 1.0, and 3.0 where an integer is asked for is 3: one config, one hash."""
    if isinstance(value, bool):
        return value
    if field.get("type") == "number" and isinstance(value, int) and abs(value) <= 2**53:
        return float(value)
    if field.get("type") == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _finite(what: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in values.items():
        try:
            canonical_json(value)
        except ValueError:
            number = value if isinstance(value, float) and not math.isfinite(value) else "a value"
            raise BadConfig(f"{what}.{name}: {number} is no finite number", fix="give a finite number") from None
    return values


def _bad_field(error: ValidationError) -> BadConfig:
    if error.validator == "required":
        missing = sorted(set(cast(list[str], error.validator_value)) - set(cast(dict[str, Any], error.instance)))
        return BadConfig(f"task.{missing[0]} is missing and has no default", fix=f"set task.{missing[0]}")
    where = ".".join(["task", *(str(part) for part in error.absolute_path)])
    return BadConfig(f"{where} = {error.instance!r}: {error.message}", fix=_allowed(where, error))


def _allowed(where: str, error: ValidationError) -> str:
    """What may stand there, in words."""
    limit: Any = error.validator_value
    words = {
        "enum": lambda: "one of: " + ", ".join(str(choice) for choice in limit),
        "const": lambda: f"{limit}",
        "type": lambda: f"a value of type {limit}",
        "minimum": lambda: f"{limit} or more",
        "exclusiveMinimum": lambda: f"more than {limit}",
        "maximum": lambda: f"{limit} or less",
        "exclusiveMaximum": lambda: f"less than {limit}",
    }
    told = words.get(str(error.validator))
    return f"set {where} to {told()}" if told else f"correct {where}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) if names else "nothing"
