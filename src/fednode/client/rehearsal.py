"""What a client node would say of itself at its start, found out without a word to the central node. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fednode.child.child import Child
from fednode.client.approvals import Approvals, Code
from fednode.client.daemon import check_settings
from fednode.client.identity import find_identity
from fednode.client.offers import find_offers, presence_of
from fednode.client.talk import ClientSettings
from fednode.ports import Clock
from fednode.wire.messages import Presence


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """All that the central node would hear before any training."""

    name: str
    fingerprint: str                # of the public key; "": it is made at the first start
    presence: Presence              # the very body that would be sent
    refused: Mapping[str, str]      # spec -> why it would not be offered: this stays here
    waiting: Sequence[Code]         # not before the operator approves it: this stays here, too


async def rehearse(settings: ClientSettings, clock: Clock) -> Rehearsal:
    """Raises what a start would raise before it registers: UsageError, DataError, StoreDamaged, ..."""
    check_settings(settings)
    identity = find_identity(settings.state_dir)
    child = Child(settings.site, clock)
    approvals = Approvals(settings.state_dir, clock) if settings.policy.is_by_hand else None
    try:
        found = await find_offers(settings, child, approvals)
    finally:
        await child.stop()
    return Rehearsal(
        name=settings.name, fingerprint=identity.fingerprint if identity else "", refused=found.refused,
        presence=presence_of(found.offers, found.device), waiting=found.waiting,
    )
