"""`fednode client --dry-run`: what would leave this machine, and what never does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fednode.cli.output import Voice

if TYPE_CHECKING:
    from fednode.client.rehearsal import Rehearsal
    from fednode.client.talk import ClientSettings

IN_TRAINING = (
    "params of the model, whole files of numbers",
    "how many examples they were trained on",
    "scores: counts and sums over the test split",
    "versions of Python and packages, the kind of processor, the threads",
    "of a training that fails: the error's text and its place in the code, which may name a path",
)
NEVER = ("images", "labels", "files of the data folder", "their names", "the private key")


def tell_rehearsal(voice: Voice, settings: ClientSettings) -> None:
    from fednode.client.rehearsal import rehearse
    from fednode.clock import SystemClock

    found = asyncio.run(rehearse(settings, SystemClock()))
    if voice.is_json:
        voice.result({
            "central": settings.central, "name": found.name, "key_fingerprint": found.fingerprint or None,
            **found.presence.model_dump(mode="json", by_alias=True), "not_offered": dict(found.refused),
            "waiting": [code.fingerprint for code in found.waiting],
            "in_training": list(IN_TRAINING), "never": list(NEVER),
        })
    else:
        _tell(voice, settings.central, found)


def _tell(voice: Voice, central: str, found: Rehearsal) -> None:
    voice.say(f"Nothing was sent. At its start, {found.name} would tell {central}:")
    voice.say(f"  public key  {found.fingerprint or 'made at the first start'}")
    voice.say(f"  versions    {', '.join(f'{name} {version}' for name, version in found.presence.versions.items())}")
    for offer in found.presence.offers:
        voice.say(f"  offer       {offer.fingerprint}{_counts(offer.summary)}")
    for spec, reason in found.refused.items():
        voice.say(f"  no offer    {spec}: {reason}  (this stays here)")
    for code in found.waiting:
        voice.say(f"  no offer    {code.spec}: {code.fingerprint} waits for your approval  (this stays here)")
    voice.say("In training it sends:")
    for line in IN_TRAINING:
        voice.say(f"  {line}")
    voice.say(f"Never: {', '.join(NEVER)}.")


def _counts(summary: dict[str, Any]) -> str:
    facts = ", ".join(f"{name}: {value}" for name, value in summary.items() if isinstance(value, int | str))
    return f" ({facts})" if facts else ""
