"""Whether a run that somebody is about to ask for can start: what is wrong, what it would wait for, who takes part.

`plan_run` is the way of every request, `Runs.create`'s too, so that what is checked is what will happen. Nothing here
writes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fednode.central.offers import MergedOffer, choose_offer
from fednode.central.presence import Presence
from fednode.central.start_model import start_model
from fednode.core.records import Run, RunConfig
from fednode.core.status import RunStatus
from fednode.errors import FednodeError, FieldErrors, UsageError
from fednode.run_config import complete_config
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore
from fednode.wire.messages import RunRequest

SEED_BITS = 32              # of a seed that nobody chose: short enough to type
MAX_NAMED = 4               # clients or runs by name in one sentence


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request comes to."""

    chosen: MergedOffer | None              # None: no one version of the task
    config: RunConfig | None                # None: something is wrong
    wrong: FieldErrors


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A client, seen by somebody who is about to launch."""

    name: str
    fingerprints: tuple[str, ...]           # of the task, that it offers
    takes_part: bool
    is_there: bool
    note: str = ""                          # why it is not there: `hospital-d gone since 02:14`
    refuses: tuple[str, ...] = ()           # why its operator's word is against it: `accepts at most 5 epochs ...`


@dataclass(frozen=True, kw_only=True)
class LaunchCheck:
    """What a person, or a program, should know before the run is asked for."""

    task: str
    plan: Plan
    clients: Sequence[Standing]
    warnings: Sequence[str] = ()            # that it would start, and wait or go on without somebody
    problems: Sequence[FednodeError] = field(default_factory=tuple)

    @property
    def is_ok(self) -> bool:
        return not self.problems

    @property
    def summary(self) -> str:
        """`2 of 4 clients offer mnist`."""
        offering = sum(bool(client.fingerprints) for client in self.clients)
        verb = "offers" if len(self.clients) == 1 else "offer"
        return f"{offering} of {_count(len(self.clients), 'client')} {verb} {self.task}"

    @property
    def taking_part(self) -> str:
        """Who, by name; of many the first."""
        return _listed([client.name for client in self.clients if client.takes_part])

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.is_ok, "summary": self.summary, "warnings": list(self.warnings),
            "problems": [{"field": p.field, "message": p.message, "fix": p.fix} for p in self.problems],
            "clients": [
                {"name": client.name, "fingerprints": list(client.fingerprints), "takes_part": client.takes_part,
                 "is_there": client.is_there, "note": client.note, "refuses": list(client.refuses)}
                for client in self.clients
            ],
        }


async def plan_run(request: RunRequest, presence: Presence, store: SqlStore, queries: Queries) -> Plan:
    """The run's complete config, its start model included; or all that is wrong with the request."""
    wrong = FieldErrors()
    chosen = wrong.of(lambda: choose_offer(request, presence))
    config = None if chosen is None else wrong.of(partial(
        complete_config, request, chosen.offer, len(chosen.clients), secrets.randbits(SEED_BITS)
    ))
    if config is not None:
        try:
            config = replace(config, start_model=await start_model(store, queries, request.start_from, config))
        except UsageError as error:
            wrong.add(error)
            config = None
    return Plan(chosen=chosen, config=config, wrong=wrong)


def usual_config(request: RunRequest, plan: Plan) -> RunConfig | None:
    """The config of the run that nothing is said of but its task; None where something must be said.

    The seed is the plan's where the request names none; the strategy's settings are those of the one that is asked for.
    """
    if plan.chosen is None or plan.config is None:
        return None
    seed = plan.config.seed if request.seed is None else -1
    try:
        blank = RunRequest(task=request.task, strategy=request.strategy)
        usual = complete_config(blank, plan.chosen.offer, len(plan.chosen.clients), seed)
        return replace(usual, strategy=RunRequest(task=request.task).strategy)
    except UsageError:
        return None


async def check_launch(request: RunRequest, presence: Presence, store: SqlStore, queries: Queries) -> LaunchCheck:
    """Everything to say about this request, as of now."""
    plan = await plan_run(request, presence, store, queries)
    clients = refusals(plan, standings(request, plan.chosen, presence), presence)
    before = [run for run in await store.runs() if run.status in (RunStatus.RUNNING, RunStatus.QUEUED)]
    rosters = [(run, presence.roster(run.config)) for run in before]
    return LaunchCheck(
        task=request.task, plan=plan, clients=clients, problems=plan.wrong.errors,
        warnings=[*absences(request, plan, clients), *objections(plan, clients), *queue(rosters, clients)],
    )


def standings(request: RunRequest, chosen: MergedOffer | None, presence: Presence) -> list[Standing]:
    """All enrolled clients, in name order."""
    roster = [name for name in chosen.clients if not request.clients or name in request.clients] if chosen else []
    return [
        Standing(
            name=member.name, takes_part=member.name in roster, is_there=presence.is_there(member.name),
            fingerprints=tuple(offer.fingerprint for offer in member.offers if offer.task == request.task),
            note=absence(member.name, presence),
        )
        for member in presence.members()
    ]


def refusals(plan: Plan, clients: Sequence[Standing], presence: Presence) -> list[Standing]:
    """These, with what each that takes part would refuse. It decides itself, in each round: this is for people."""
    if plan.config is None or plan.chosen is None:
        return list(clients)
    chosen, config = plan.chosen.offer, plan.config
    num_there = sum(client.takes_part and client.is_there for client in clients)
    cohort_size = max(config.min_updates, round(config.cohort_fraction * num_there))
    epochs = config.task_config.get("epochs")
    limits = {
        member.name: offer.limits for member in presence.members() for offer in member.offers
        if (offer.task, offer.fingerprint) == (chosen.task, chosen.fingerprint)
    }
    return [
        replace(client, refuses=tuple(
            limits[client.name].against(epochs if isinstance(epochs, int) else 0, cohort_size)
        )) if client.takes_part else client
        for client in clients
    ]


def objections(plan: Plan, clients: Sequence[Standing]) -> list[str]:
    """Who would refuse, and whether enough are left."""
    refusing = [f"{one.name} {', and '.join(one.refuses)}: it will refuse" for one in clients if one.refuses]
    num_left = sum(client.takes_part and not client.refuses for client in clients)
    if not refusing or plan.config is None or num_left >= plan.config.min_updates:
        return _few(refusing)
    left = f"{_count(num_left, 'client')} {'accepts' if num_left == 1 else 'accept'} this run"
    needs = f"A round needs {_count(plan.config.min_updates, 'update')} and {left}: its rounds will fail"
    return [needs, *_few(refusing)]


def absences(request: RunRequest, plan: Plan, clients: Sequence[Standing]) -> list[str]:
    """Who is not there, who has another version, and whether the run would wait for them."""
    if plan.chosen is None:
        return []
    there = [client for client in clients if client.takes_part and client.is_there]
    away = [client.note for client in clients if client.takes_part and not client.is_there]
    others = [
        f"{client.name} offers {', '.join(client.fingerprints)} and takes no part in a run of "
        f"{plan.chosen.offer.fingerprint}"
        for client in clients
        if client.fingerprints and plan.chosen.offer.fingerprint not in client.fingerprints
    ]
    quorum = plan.config.min_updates if plan.config else request.min_updates or 1
    waits = [_wait(quorum, len(there))] if len(there) < quorum else []
    return [*waits, *_few(away), *_few(others)]


def queue(active: Sequence[tuple[Run, Sequence[str]]], clients: Sequence[Standing]) -> list[str]:
    """The runs that use some of the same clients and come first. `active`: with who takes part in each."""
    ours = {client.name for client in clients if client.takes_part}
    told = []
    for run, roster in active:
        if shared := [name for name in roster if name in ours]:
            which = "the same clients" if set(shared) == ours else f"some of the same clients ({_listed(shared)})"
            told.append(f"Run #{run.number} is {run.status.value} with {which}: this one will queue behind it")
    return _few(told)


def absence(name: str, presence: Presence) -> str:
    """Why it is not there; "" where it is."""
    if presence.is_there(name):
        return ""
    if presence.is_awaited(name):
        return f"{name} has not been heard of since the central node started"
    if presence.is_heard(name):
        return f"{name} is about to leave"
    return presence.gone_since(name)


def _wait(quorum: int, num_there: int) -> str:
    are = "is" if num_there == 1 else "are"
    return (
        f"A round needs {_count(quorum, 'update')} and {_count(num_there, 'client')} {are} there: "
        f"the run will wait for {_count(quorum - num_there, 'more client')}"
    )


def _few(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - MAX_NAMED
    return [*sentences[:MAX_NAMED], *([f"and {rest} more like this"] if rest > 0 else [])]


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _count(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
