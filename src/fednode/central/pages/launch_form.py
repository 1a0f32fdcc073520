"""The launch form: which fields it has, what stands in them, and the request that it comes to.

Made from a task's offer, as the flags and the API are; `form_fields` reads the schema. What is wrong with a request is
found where every run is asked for (`launch_check`); here it is put beside the field that it is about.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from pydantic import ValidationError
from starlette.datastructures import FormData

from fednode.central.launch_check import LaunchCheck
from fednode.central.offers import MergedOffer
from fednode.central.pages.form_fields import FormField, element_id, fields_of, is_left_out, value_of
from fednode.central.start_model import FRESH, START_FROM
from fednode.core.best import measures_of_best
from fednode.core.encoding import F32, Encoding
from fednode.core.json import Json
from fednode.core.records import Offer
from fednode.core.units import seconds_of
from fednode.errors import BadConfig, FednodeError, FieldErrors
from fednode.run_config import needs_of
from fednode.strategies.registry import installed_strategies, installed_strategy, strategy_schema
from fednode.tasks.base import bad_field
from fednode.wire.messages import RunRequest

COMMON = ("task.epochs", "task.batch_size", "task.learning_rate")
EACH_ROUND = ("min_updates", "cohort_fraction", "deadline", "seed", "encoding")
OF_MODELS = ("best_metric", "patience", "keep_every")
REST = EACH_ROUND + OF_MODELS
EVERYBODY, CHOSEN = "all", "some"       # the roster
NOT_TYPED = ("", "task", "strategy")    # of problems: no value in a field mends them
_PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True, kw_only=True)
class StrategyChoice:
    """A strategy that is installed, with its own fields."""

    name: str
    help: str = ""                      # the first paragraph of its docstring: what it does, and its paper
    paper: str = ""                     # its number at arXiv
    lacks: str = ""                     # why it cannot be taken for this task
    fields: Sequence[FormField] = ()


@dataclass(frozen=True, kw_only=True)
class LaunchForm:
    """One version of a task, and everything that may be set of a run of it."""

    task: str
    chosen: MergedOffer                     # the version that the fields are made from
    versions: Sequence[MergedOffer]         # of the task, that are offered
    is_pinned: bool = False                 # a person chose this version of several
    run: Mapping[str, FormField]            # the run's own fields, by name
    settings: Sequence[FormField]           # the task's
    num_hidden: int = 0                     # settings beyond those that are shown
    strategies: Sequence[StrategyChoice]
    strategy: str = "fedavg"
    roster: str = EVERYBODY
    clients: Sequence[str] = ()             # those that are ticked
    made_for: str = ""                      # the version whose fields the person saw
    is_touched: bool = False                # something beyond the first fields was changed
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return self.chosen.offer.fingerprint

    @property
    def common(self) -> list[FormField]:
        found = [field for field in self.settings if field.name in COMMON]
        return [self.run["rounds"], *sorted(found, key=lambda field: COMMON.index(field.name))]

    @property
    def own(self) -> list[FormField]:
        """The task's settings that not every task has."""
        return [field for field in self.settings if field.name not in COMMON]

    @property
    def strategy_fields(self) -> Sequence[FormField]:
        """Those of the strategy that is chosen."""
        return next((choice.fields for choice in self.strategies if choice.name == self.strategy), ())

    @property
    def fields(self) -> list[FormField]:
        """Those that count, in the order in which they are shown."""
        roster = FormField(name="clients", label="Clients", kind="text")
        rest = [self.run[name] for name in REST]
        return [*self.common, self.run[START_FROM], *self.own, *self.strategy_fields, roster, *rest]

    @property
    def rest(self) -> tuple[object, ...]:
        """What is set beyond the first fields."""
        return self.own, self.strategy, list(self.strategy_fields), self.roster, [self.run[name] for name in REST]

    @property
    def first_wrong(self) -> str:
        """The field that gets the focus."""
        return next((field.name for field in self.fields if field.name in self.errors), next(iter(self.errors), ""))

    @property
    def wrong_ids(self) -> str:
        """The inputs that are wrong, for the script."""
        return " ".join(element_id(name) for name in self.errors)

    def label(self, name: str) -> str:
        """What the person calls the field; "" for what is no field."""
        return next((field.label for field in self.fields if field.name == name), "")

    @property
    def is_more_open(self) -> bool:
        """Whether something beyond the first fields asks for attention, or got it."""
        first = {field.name for field in self.common} | {START_FROM, *NOT_TYPED}
        return bool(self.errors.keys() - first) or self.is_pinned or self.is_touched


def blank_form(task: str, versions: Sequence[MergedOffer], version: str, num_there: Mapping[str, int]) -> LaunchForm:
    """With every default in its place. `num_there`: by fingerprint, how many clients with it are there.

    Where nobody chose a version, it is the one that most of those have that are there, as the run's would be.
    """
    pinned = next((merged for merged in versions if merged.offer.fingerprint == version), None)
    chosen = pinned or max(versions, key=lambda merged: num_there.get(merged.offer.fingerprint, 0))
    settings, properties = fields_of(chosen.offer.schema, "task"), chosen.offer.schema.get("properties")
    num_settings = len(properties) if isinstance(properties, Mapping) else 0
    return LaunchForm(
        task=task, chosen=chosen, versions=versions, is_pinned=pinned is not None and len(versions) > 1,
        run={field.name: field for field in _run_fields(chosen.offer)}, settings=settings,
        num_hidden=num_settings - len(settings),
        strategies=[_strategy_choice(name, chosen.offer) for name in installed_strategies()],
    )


def typed_form(form: LaunchForm, data: FormData) -> LaunchForm:
    """The form with what was typed into it. A field that did not come is as it was: no script sent it."""

    def typed(field: FormField) -> FormField:
        if field.kind == "flag":
            return field.typed("on" if field.name in data else "")
        return field.typed(_text(data, field.name, field.text))

    strategy = _text(data, "strategy", form.strategy)
    strategies = [
        replace(choice, fields=[typed(field) for field in choice.fields]) if choice.name == strategy else choice
        for choice in form.strategies
    ]
    came = replace(
        form, run={name: typed(field) for name, field in form.run.items()},
        settings=[typed(field) for field in form.settings], strategies=strategies, strategy=strategy,
        roster=_text(data, "roster", EVERYBODY), made_for=_text(data, "version", ""),
        clients=[name for name in data.getlist("client") if isinstance(name, str)],
    )
    return replace(came, is_touched=came.rest != form.rest)


def request_of(form: LaunchForm) -> tuple[RunRequest, FieldErrors]:
    """What the form asks for, and what cannot be read of it: there the default stands in the request."""
    wrong = FieldErrors()
    asked = {
        "task": form.task, "task_config": dict(_values(form.settings, wrong)),
        "strategy": form.strategy, "strategy_config": dict(_values(form.strategy_fields, wrong)),
        **_own_values(form, wrong), "clients": _clients(form, wrong),
    }
    try:
        return RunRequest(**asked), wrong
    except ValidationError as error:
        bad_ones = {str(bad["loc"][0]): bad for bad in reversed(error.errors())}
    for bad in bad_ones.values():
        wrong.add(bad_field(bad))
    return RunRequest(**{name: value for name, value in asked.items() if name not in bad_ones}), wrong


def judged(form: LaunchForm, check: LaunchCheck, unread: FieldErrors) -> tuple[LaunchForm, LaunchCheck]:
    """Both with everything that is wrong, each thing at its field."""
    wrong = FieldErrors()
    wrong.add(*unread.errors, *(_at_its_field(problem, form) for problem in check.problems))
    wrong.add(*_other_version(form, check))
    order = [field.name for field in form.fields]
    problems = sorted(wrong.errors, key=lambda error: order.index(error.field) if error.field in order else -1)
    errors = {problem.field: told(problem) for problem in problems}
    return replace(form, errors=errors), replace(check, problems=problems)


def told(problem: FednodeError) -> str:
    """A problem beside the field that it is about: where the fix says it all, the fix alone."""
    sentences = [problem.fix] if problem.fix.startswith("set ") else [problem.message, problem.fix]
    return " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)


def _run_fields(offer: Offer) -> Iterator[FormField]:
    yield FormField(
        name="rounds", label="Rounds", kind="integer", text=str(offer.default_rounds), minimum="1", has_default=True,
        help="Of training and averaging",
    )
    yield FormField(name=START_FROM, label="Start from", kind="text", text=FRESH)
    yield FormField(
        name="min_updates", label="Quorum", kind="integer", minimum="1", is_nullable=True,
        help="Fewer updates make no model. Empty: 2, or 1 for a single client",
    )
    yield FormField(
        name="cohort_fraction", label="Cohort fraction", kind="number", text="1", minimum="0", maximum="1",
        has_default=True, help="Share of the clients that a round asks; 1 is all of them",
    )
    yield FormField(
        name="deadline", label="Deadline of a round", kind="text", text="10m",
        help="600, 90s, 10m, 2h or 1d. Who is late is left out of the round",
    )
    yield FormField(
        name="seed", label="Seed", kind="integer", minimum="0", is_nullable=True,
        help="The same seed gives the same model, to the bit. Empty: drawn, and told",
    )
    yield FormField(
        name="encoding", label="Params travel as", kind="choice", choices=tuple(map(json.dumps, get_args(Encoding))),
        text=json.dumps(F32), help="f32: as they are. bf16: half the bytes, each value rounded by 0.4 % at most",
    )
    names = tuple(json.dumps(measure.name) for measure in measures_of_best(offer.metrics)) or ("null",)
    yield FormField(
        name="best_metric", label="Best model by", kind="choice", choices=names, text=names[0],
        help="What tells the best model of the run",
    )
    yield FormField(
        name="patience", label="Patience", kind="integer", minimum="1", is_nullable=True,
        help="Stop after so many rounds without a better model. Empty: never",
    )
    yield FormField(
        name="keep_every", label="Keep one in", kind="integer", minimum="0", is_nullable=True,
        help="Models, besides the first, best and last; 0: only these. Empty: all up to 100 rounds, then about 100",
    )


def _strategy_choice(name: str, offer: Offer) -> StrategyChoice:
    try:
        kind = installed_strategy(name).kind
    except FednodeError as error:       # another package's, which cannot be loaded
        return StrategyChoice(name=name, lacks=error.message)
    told = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
    lacking = needs_of(kind, offer)
    paper = _PAPER.search(told)
    return StrategyChoice(
        name=name, help=told.removesuffix(":"), paper=paper[1] if paper else "",
        lacks=f"needs {', '.join(lacking)}, which {offer.task} lacks" if lacking else "",
        fields=fields_of(strategy_schema(name), f"strategy.{name}"),
    )


def _text(data: FormData, name: str, otherwise: str) -> str:
    found = data.get(name, otherwise)
    return found if isinstance(found, str) else otherwise


def _values(fields: Sequence[FormField], wrong: FieldErrors) -> Iterator[tuple[str, Json]]:
    for one in fields:
        if not is_left_out(one):
            try:
                yield one.key or one.name, value_of(one)
            except BadConfig as error:
                wrong.add(error)


def _own_values(form: LaunchForm, wrong: FieldErrors) -> dict[str, Any]:
    """The run's own fields as the request names them."""
    found: dict[str, Any] = dict(_values([field for field in form.run.values() if field.name != "deadline"], wrong))
    if (seconds := seconds_of(form.run["deadline"].text)) is not None:
        return found | {"deadline_s": seconds}
    told = f"{form.run['deadline'].text!r} is no duration"
    wrong.add(BadConfig(told, fix="write 600, 90s, 10m, 2h or 1d", field="deadline"))
    return found


def _clients(form: LaunchForm, wrong: FieldErrors) -> list[str]:
    """Empty is whoever offers the task. Of one version among several: those that have it, by name."""
    if form.roster != CHOSEN:
        return list(form.chosen.clients) if form.is_pinned else []
    if not form.clients:
        wrong.add(BadConfig("no client is ticked", fix="tick at least one, or take everybody", field="clients"))
    return list(form.clients)


def _at_its_field(problem: FednodeError, form: LaunchForm) -> FednodeError:
    """A strategy's setting is asked for under the strategy's name: another one may have a setting of that name too."""
    place, dot, name = problem.field.partition(".")
    if place == "strategy" and dot:
        return BadConfig(problem.message, fix=problem.fix, field=f"strategy.{form.strategy}.{name}")
    return problem


def _other_version(form: LaunchForm, check: LaunchCheck) -> Iterator[BadConfig]:
    """The run would be of another version than the one that the person sees the fields of."""
    if form.made_for not in ("", form.version):
        yield BadConfig(
            f"{form.task} is offered as {form.version} now, and this form was made for {form.made_for}",
            fix="look through it again, then launch", field="task",
        )
    chosen = check.plan.chosen
    if chosen is not None and chosen.offer.fingerprint != form.version:
        yield BadConfig(
            f"these clients offer {chosen.offer.fingerprint}, and this form is made for {form.version}",
            fix=f"open the form of {chosen.offer.fingerprint}", field="task",
        )
