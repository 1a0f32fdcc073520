"""Values that only stores know: a received file, a client's row, an event for people.

The words of the federation itself (runs, rounds, outcomes) live in `core.records`. Read next: `rules.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fednode.core.encoding import F32, Encoding
from fednode.core.json import JsonObject
from fednode.core.records import Offer


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A params file that came in whole, checked and fsynced; it lies in `params/incoming`."""

    path: Path
    digest: str                 # xxh3-128, hex
    num_bytes: int
    encoding: Encoding = F32
    sent_s: float | None = None # wall time at which it was announced


@dataclass(frozen=True, kw_only=True)
class ClientRecord:
    """A client node as the store knows it."""

    id: str
    name: str
    public_key: str             # Ed25519, raw, hex
    secret_sha256: str          # of the bearer secret, which is not kept
    is_revoked: bool = False
    offers: tuple[Offer, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    last_seen_s: float = 0.0    # wall seconds
    joined_s: float = 0.0       # wall seconds


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened, for people. Unlike the journal it has times, and is not hashed."""

    seq: int                    # over all runs, from 1
    wall_s: float
    what: str                   # "round committed", ...
    run_id: str                 # "": not about a run
    fields: JsonObject
