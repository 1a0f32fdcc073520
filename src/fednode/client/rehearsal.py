"""What a client node would say of itself at its start, found out without a word to the central node. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednode.child.child import Child
from fednode.client.daemon import check_settings, find_offers, presence_of
from fednode.client.identity import find_identity
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


async def rehearse(settings: ClientSettings, clock: Clock) -> Rehearsal:
    """Raises what a start would raise before it registers: UsageError, DataError, StoreDamaged, ..."""
    check_settings(settings)
    identity = find_identity(settings.state_dir)
    child = Child(settings.site, clock)
    try:
        offers, refused = await find_offers(settings, child)
    finally:
        await child.stop()
    return Rehearsal(
        name=settings.name, fingerprint=identity.fingerprint if identity else "", presence=presence_of(offers),
        refused=refused,
    )
