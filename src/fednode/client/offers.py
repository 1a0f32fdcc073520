"""What this site offers: each task that is asked for, put to its data, the operator's policy and their approvals.

Start at `find_offers`. What a task in a file waits for is decided before a line of it is run. What an order may ask of
an offer is checked in `execution`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata

from pydantic import ValidationError

from fednode.child.child import Child
from fednode.client.approvals import Approvals, Code, Verdict, code_of_file, code_of_installed
from fednode.client.talk import ClientSettings
from fednode.core.encoding import BF16
from fednode.core.policy import Policy
from fednode.core.records import Offer
from fednode.errors import BadConfig, DataError, FednodeError, UsageError
from fednode.own_code import is_file_spec
from fednode.tasks.registry import installed_tasks
from fednode.visit import PACKAGES_THAT_COUNT
from fednode.wire.messages import OfferBody, Presence


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A task that this site runs: what the child loads it by, and what the central node was told of it."""

    spec: str
    offer: Offer


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of all tasks that were asked for."""

    offers: dict[str, Offered] = field(default_factory=dict)        # by the task's name
    refused: dict[str, str] = field(default_factory=dict)           # spec -> why it is not offered
    codes: list[Code] = field(default_factory=list)                 # that need an approval, with the verdict as it is
    device: str = "cpu"                                             # where they compute, in words

    @property
    def waiting(self) -> list[Code]:
        return [code for code in self.codes if code.verdict is Verdict.WAITING]


async def find_offers(
    settings: ClientSettings, child: Child, approvals: Approvals | None, *, is_patient: bool = False
) -> Found:
    """The tasks that run here, and of the others why not.

    A task that was asked for by name and cannot run raises its error, unless `is_patient`; DataError where none can
    and none needs an approval, UsageError where the device is not there. `approvals`: None where the policy asks for
    none.
    """
    found = Found(device=await child.device())
    for spec in settings.tasks or tuple(installed_tasks()):
        try:
            await _look_at(spec, settings, child, approvals, found)
        except FednodeError as error:
            if settings.tasks and not is_patient:
                raise
            found.refused[spec] = f"{error.message}; {error.fix}"
    if not (found.offers or found.codes or is_patient):
        raise _nothing_to_offer(found)
    return found


async def _look_at(
    spec: str, settings: ClientSettings, child: Child, approvals: Approvals | None, found: Found
) -> None:
    """Put this one where it belongs in `found`. Raises why it cannot be offered."""
    if not settings.tasks:
        _require_accepted(settings.policy, spec)
    is_file = is_file_spec(spec)
    if approvals is not None and is_file and not _is_approved(code_of_file(spec), approvals, found):
        return
    offer = await child.offer(spec)
    _require_accepted(settings.policy, spec, offer.task)
    if approvals is not None and is_file:
        approvals.require(spec, offer)      # it may have been edited while it was loaded
    if approvals is not None and not is_file and not _is_approved(code_of_installed(spec, offer), approvals, found):
        return
    if offer.task in found.offers:
        raise UsageError(
            f"{found.offers[offer.task].spec!r} and {spec!r} are both called {offer.task!r}", fix="offer one of the two"
        )
    # Without the summary that stays here: nothing further on could send it by mistake.
    summary = offer.summary if settings.is_summary_shared else {}
    supports = (*offer.supports, BF16)      # this client node's own part: an older one does not say so
    told = replace(offer, summary=summary, supports=supports, limits=settings.policy.limits)
    offered = Offered(spec=spec, offer=told)
    _offer_body(offered)                    # what could not be told is found before anybody hears of this client
    found.offers[offer.task] = offered


def _is_approved(code: Code, approvals: Approvals, found: Found) -> bool:
    verdict = approvals.verdict(code)
    found.codes.append(replace(code, verdict=verdict))
    if verdict is Verdict.REFUSED:
        found.refused[code.spec] = f"this site's operator has refused {code.fingerprint}"
    return verdict is Verdict.APPROVED


def _require_accepted(policy: Policy, *names: str) -> None:
    """Raise BadConfig where the policy's tasks have none of the names that a task is known by."""
    if not policy.accepts(*names):
        accepted = ", ".join(policy.tasks or ()) or "none"
        raise BadConfig(
            f"task {names[-1]!r} is not among the tasks of this site's policy ({accepted})",
            fix="add it to the line `tasks` of [policy] in fednode.toml, or do not ask for it",
        )


def _nothing_to_offer(found: Found) -> DataError:
    reasons = " · ".join(f"{spec}: {reason}" for spec, reason in found.refused.items())
    return DataError(
        f"no installed task can run on this site's data. {reasons}",
        fix="name the folder by --data, a task by --task, or use --offline-sample",
    )


def presence_of(offers: Mapping[str, Offered], device: str) -> Presence:
    """What the central node is told: the offers, and the versions and the device that "the same bits" depends on."""
    bodies = [_offer_body(offered) for offered in offers.values()]
    versions = {"device": device}
    for package in PACKAGES_THAT_COUNT:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return Presence(offers=bodies, versions=versions)


def _offer_body(offered: Offered) -> OfferBody:
    try:
        return OfferBody.model_validate(offered.offer.to_json())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadConfig(
            f"task {offered.spec!r} cannot be offered: {wrong['loc'][0]} = {wrong['input']!r}: {wrong['msg']}",
            fix="correct this in the task's class",
        ) from None
