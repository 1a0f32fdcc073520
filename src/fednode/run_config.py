"""How a request for a run becomes a complete `RunConfig`: one way, for a served run and for a simulated one.

The task's config is checked against the schema that its offer carries, so nothing here needs the task's code.
Who takes part, and which offer counts, is decided before: `central/runs.py`, `simulation/simulate.py`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from fednode.core.best import measures_of_best
from fednode.core.json import Json, JsonObject, canonical_json
from fednode.core.records import Offer, RunConfig
from fednode.errors import BadConfig, FieldErrors, UsageError
from fednode.strategies.base import Strategy
from fednode.strategies.registry import StrategyType, installed_strategy
from fednode.wire.messages import RunRequest

DEFAULT_MIN_UPDATES = 2
NUM_KEPT = 100              # models of a run, about, where nobody says how many: so a disk is not filled by weeks
PATTERNS = {"pattern", "patternProperties"}
VALUES = {"default", "examples", "enum", "const"}        # hold values, no schemas


def complete_config(
    request: RunRequest, offer: Offer, roster_size: int, seed: int, strategy: StrategyType | None = None
) -> RunConfig:
    """Everything that decides a run's result, but the model that it starts from.

    `seed` is taken where the request names none. `roster_size` is the number of clients that would take part now.
    `strategy`: one that is not installed, as a simulation may bring it. Raises BadConfig naming every field that is
    wrong, NotFound where that is only a strategy that is not there.
    """
    wrong = FieldErrors()
    strategy = strategy or wrong.of(lambda: _strategy(request.strategy))
    task_config = wrong.of(lambda: complete_task_config(request.task_config, offer))
    strategy_config = wrong.of(lambda: _strategy_config(request.strategy_config, strategy, offer))
    least = strategy.bind(strategy_config).least_updates if strategy and strategy_config is not None else 1
    min_updates = wrong.of(lambda: _min_updates(request, roster_size, least))
    best_metric = wrong.of(lambda: _best_metric(request, offer))
    wrong.raise_any()
    assert strategy is not None and task_config is not None and strategy_config is not None and min_updates is not None
    rounds = offer.default_rounds if request.rounds is None else request.rounds
    return RunConfig(
        task=offer.task,
        fingerprint=offer.fingerprint,
        task_config=task_config,
        strategy=strategy.name,
        strategy_config=strategy_config,
        rounds=rounds,
        min_updates=min_updates,
        cohort_fraction=request.cohort_fraction,
        deadline_s=request.deadline_s,
        seed=seed if request.seed is None else request.seed,
        clients=tuple(sorted(set(request.clients), key=str.encode)),
        best_metric=best_metric or "",
        patience=request.patience,
        keep_every=math.ceil(rounds / NUM_KEPT) if request.keep_every is None else request.keep_every,
        encoding=request.encoding,
    )


def complete_task_config(values: JsonObject, offer: Offer) -> JsonObject:
    """`values`, valid by the offer's schema, with its defaults filled in. Raises BadConfig naming every wrong field."""
    fields = _fields(offer.schema)
    wrong = FieldErrors()
    wrong.add(*_unknown(values, fields, offer), *_not_finite("task", values))
    given = {name: _as_declared(values[name], fields[name]) for name in values if f"task.{name}" not in wrong}
    defaults = {name: field["default"] for name, field in fields.items() if "default" in field}
    complete = defaults | given
    wrong.add(*(told for error in _errors(complete, offer) for told in _bad_fields(error)))
    wrong.raise_any()
    return {name: complete[name] for name in sorted(complete)}


def needs_of(kind: type[Strategy], offer: Offer) -> list[str]:
    """What the strategy needs of a task and this one lacks."""
    return [need for need in kind.requires if need not in offer.supports]


def check_offer(offer: Offer) -> None:
    """Raise BadConfig where an offer's schema is none: whoever offers it hears of it, not who starts a run."""
    try:
        Draft202012Validator.check_schema(cast(dict[str, Any], offer.schema))
    except SchemaError as error:
        raise BadConfig(
            f"the offer of task {offer.task!r} has no valid JSON schema: {error.message}",
            fix="build the schema with `config_schema` of the task's Config",
        ) from None
    if has_pattern(cast(Json, offer.schema)):
        raise BadConfig(
            f"the schema that task {offer.task!r} offers holds a regular expression, which can take for ever to match",
            fix="declare the field with `enum`, or check its text in the task",
        )
    for name, field in _fields(offer.schema).items():
        if not isinstance(field, Mapping):
            raise BadConfig(f"the offer of task {offer.task!r} says nothing of field {name!r}", fix="give it a schema")


def _strategy(name: str) -> StrategyType:
    try:
        return installed_strategy(name)
    except UsageError as error:
        raise type(error)(error.message, fix=error.fix, field="strategy") from None


def _strategy_config(values: JsonObject, strategy: StrategyType | None, offer: Offer) -> JsonObject:
    """Complete; nothing to say of the settings of a strategy that is not there."""
    if strategy is None:
        return {}
    _require_support(strategy, offer)
    wrong = FieldErrors()
    wrong.add(*_not_finite("strategy", values))
    wrong.raise_any()
    return strategy.complete(values)


def has_pattern(schema: Json) -> bool:
    """Whether any part of a JSON schema would have us match a regular expression that a stranger wrote."""
    parts: list[tuple[Json, bool]] = [(schema, False)]
    while parts:
        part, is_named = parts.pop()                # is_named: its keys are names of fields, not words of the schema
        if isinstance(part, list):
            parts += [(one, False) for one in part]
        if isinstance(part, Mapping):
            if not is_named and not PATTERNS.isdisjoint(part):
                return True
            parts += [(one, key == "properties" and not is_named) for key, one in part.items() if key not in VALUES]
    return False


def _require_support(strategy: StrategyType, offer: Offer) -> None:
    for need in needs_of(strategy.kind, offer):
        raise BadConfig(
            f"strategy {strategy.name!r} needs a task that supports {need!r}; {offer.task!r} supports "
            f"{_listed(offer.supports)}",
            fix="take another strategy, or a task that declares it in `supports`", field="strategy",
        )


def _min_updates(request: RunRequest, roster_size: int, least: int) -> int:
    """As asked, else 2 (1 for a roster of one) or what the strategy needs. A fixed roster must be able to bring it."""
    usual = max(least, 1, min(DEFAULT_MIN_UPDATES, roster_size))
    asked = usual if request.min_updates is None else request.min_updates
    if asked < least:
        raise BadConfig(
            f"min_updates = {asked}, and strategy {request.strategy!r} as it is set needs {least} updates or more",
            fix=f"set min_updates to {least} or more, or change the strategy's settings", field="min_updates",
        )
    num_fixed = len(set(request.clients))
    if request.clients and num_fixed < asked:
        raise BadConfig(
            f"min_updates = {asked}, but the run has only {num_fixed} clients: "
            f"{', '.join(sorted(set(request.clients)))}",
            fix=f"name more clients, or lower min_updates to {num_fixed}", field="min_updates",
        )
    return asked


def _best_metric(request: RunRequest, offer: Offer) -> str:
    """The name; "" where the task has no metric by which a model could be better than another."""
    names = [measure.name for measure in measures_of_best(offer.metrics)]
    if request.best_metric is None and (names or request.patience is None):
        return names[0] if names else ""
    if request.best_metric not in names:
        asked = "patience" if request.best_metric is None else f"best_metric = {request.best_metric!r}"
        raise BadConfig(
            f"{asked}, and {offer.task} declares no such metric with a goal",
            fix=f"take one of: {_listed(names)}", field="best_metric",
        )
    return request.best_metric


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


def _unknown(values: JsonObject, fields: Collection[str], offer: Offer) -> Iterator[BadConfig]:
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            yield BadConfig(
                f"task {offer.task!r} has no setting {name!r}", fix=f"{hint}its settings: {_listed(sorted(fields))}",
                field=f"task.{name}",
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


def _not_finite(place: str, values: Mapping[str, Any]) -> Iterator[BadConfig]:
    for name, value in values.items():
        try:
            canonical_json(value)
        except ValueError:
            number = value if isinstance(value, float) and not math.isfinite(value) else "a value"
            where = f"{place}.{name}"
            yield BadConfig(f"{where}: {number} is no finite number", fix="give a finite number", field=where)


def _bad_fields(error: ValidationError) -> Iterator[BadConfig]:
    """What one error of the schema says, of each field that it is about."""
    error = _nearest(error)
    if error.validator == "required" and not error.absolute_path:
        lacking = set(cast(list[str], error.validator_value)) - set(cast(dict[str, Any], error.instance))
        for name in sorted(lacking):
            where = f"task.{name}"
            yield BadConfig(f"{where} is missing and has no default", fix=f"set {where}", field=where)
        return
    where = ".".join(["task", *(str(part) for part in error.absolute_path)])
    field = ".".join(["task", *(str(part) for part in list(error.absolute_path)[:1])])
    yield BadConfig(f"{where} = {error.instance!r}: {error.message}", fix=_allowed(where, error), field=field)


def _nearest(error: ValidationError) -> ValidationError:
    """Of a field that may be null or something else, what that else is: nobody who writes a number meant null."""
    others = [below for below in error.context or () if below.validator_value != "null"]
    return _nearest(others[0]) if error.validator in ("anyOf", "oneOf") and len(others) == 1 else error


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
