"""What the enrolled clients offer, seen as one: which version of a task a run takes, and who can play it.

The central node needs no task's code: forms, checks and metrics come from these offers. Who takes part in a run that
exists is `Presence.roster`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fednode.central.presence import Member, Presence, knows
from fednode.core.encoding import F32
from fednode.core.policy import Limits
from fednode.core.records import Offer, RunConfig
from fednode.errors import BadConfig, NotFound
from fednode.wire.messages import RunRequest


@dataclass(frozen=True, kw_only=True)
class MergedOffer:
    """One version of a task, and the clients that have it, in name order."""

    offer: Offer                    # `supports`: what all of them support; no summary, no limits
    clients: tuple[str, ...]


def merged_offers(members: Sequence[Member]) -> list[MergedOffer]:
    """One entry a (task, fingerprint), in the order of these."""
    found: dict[tuple[str, str], list[tuple[str, Offer]]] = {}
    for member in members:
        for offer in member.offers:
            found.setdefault((offer.task, offer.fingerprint), []).append((member.name, offer))
    return [_merged(found[key]) for key in sorted(found)]


def known_offer(presence: Presence, config: RunConfig) -> Offer | None:
    """What an enrolled client says of the run's version of the task; None: nobody has it any more."""
    offers = (offer for member in presence.members() for offer in member.offers)
    return next((o for o in offers if (o.task, o.fingerprint) == (config.task, config.fingerprint)), None)


def notice_of(presence: Presence, config: RunConfig) -> str:
    """What the task wants to be read wherever a model of this run is shown."""
    offer = known_offer(presence, config)
    return offer.notice if offer is not None else ""


def choose_offer(request: RunRequest, presence: Presence) -> MergedOffer:
    """The version of the task that the run is pinned to. Where clients offer several, those that are there decide.

    Raises NotFound where nobody offers the task or a named client is not enrolled, BadConfig where a named client
    does not offer it or versions clash.
    """
    members = presence.members()
    _require_enrolled(request, members)
    candidates = [member for member in members if not request.clients or member.name in request.clients]
    versions = [merged for merged in merged_offers(candidates) if merged.offer.task == request.task]
    if not versions:
        raise _not_offered(request.task, members)
    if len(versions) > 1:
        present = [member for member in candidates if presence.is_there(member.name)]
        versions = [merged for merged in merged_offers(present) if merged.offer.task == request.task] or versions
    if len(versions) > 1:
        raise _clash(request.task, versions)
    chosen = next(m for m in merged_offers(candidates) if m.offer.fingerprint == versions[0].offer.fingerprint
                  and m.offer.task == request.task)
    _require_all_named(request, chosen)
    _require_known_encoding(request, chosen, candidates)
    return chosen


def _merged(rows: Sequence[tuple[str, Offer]]) -> MergedOffer:
    first = rows[0][1]
    supported = [need for need in first.supports if all(need in offer.supports for _, offer in rows)]
    offer = replace(first, supports=tuple(supported), summary={}, limits=Limits())
    return MergedOffer(offer=offer, clients=tuple(name for name, _ in rows))


def _require_enrolled(request: RunRequest, members: Sequence[Member]) -> None:
    names = [member.name for member in members]
    for name in request.clients:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            told = f"{hint}enrolled: {', '.join(names) or 'nobody'}"
            raise NotFound(f"no client {name!r} is enrolled", fix=told, field="clients")


def _not_offered(task: str, members: Sequence[Member]) -> NotFound:
    known: Mapping[str, None] = {offer.task: None for member in members for offer in member.offers}
    if not members:
        return NotFound(
            f"no client is enrolled, so nobody offers task {task!r}", fix="start one: `fednode client`", field="task"
        )
    return NotFound(
        f"no client that would take part offers task {task!r}",
        fix=f"offered: {', '.join(sorted(known)) or 'nothing'}; start a client node with `--task {task}`", field="task",
    )


def _clash(task: str, versions: Sequence[MergedOffer]) -> BadConfig:
    told = "; ".join(f"{merged.offer.fingerprint} by {', '.join(merged.clients)}" for merged in versions)
    return BadConfig(
        f"the clients offer different versions of task {task!r}: {told}",
        fix="give them the same version, or name the clients that have one", field="task",
    )


def _require_known_encoding(request: RunRequest, chosen: MergedOffer, candidates: Sequence[Member]) -> None:
    """A client node that does not say that it knows it is an older one: it could neither read nor send such params."""
    key = (chosen.offer.task, chosen.offer.fingerprint)
    old = [
        member.name for member in candidates for offer in member.offers
        if (offer.task, offer.fingerprint) == key and not knows(offer, request.encoding)
    ]
    if old:
        raise BadConfig(
            f"{', '.join(old)} cannot send or receive params as {request.encoding}",
            fix=f"upgrade fednode there, leave it out of the clients, or take the encoding {F32}", field="encoding",
        )


def _require_all_named(request: RunRequest, chosen: MergedOffer) -> None:
    lacking = [name for name in request.clients if name not in chosen.clients]
    if lacking:
        raise BadConfig(
            f"{', '.join(sorted(lacking))} does not offer task {request.task!r} as {chosen.offer.fingerprint}",
            fix="leave it out, or start it with this task", field="clients",
        )
