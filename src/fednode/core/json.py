"""The shape of JSON, and its one canonical text: what is hashed must never depend on key order."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Union

Json: TypeAlias = Union[bool, int, float, str, Sequence["Json"], Mapping[str, "Json"], None]
JsonObject: TypeAlias = Mapping[str, Json]


EXACT_INTEGERS = 2**53          # up to here a float64 is the integer that it looks like


def canonical_json(value: Json) -> str:
    """Keys sorted, no spaces: equal values give equal text. Raises ValueError on a NaN or an infinity."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _plain(value: Json) -> Json:
    """`value` with 1.0 as 1, as JavaScript writes it: a config that went through a browser keeps its hash."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_INTEGERS:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def sha256_of(value: Json) -> str:
    """Hex sha256 of the canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def finite(value: Any) -> Any:
    """`value` with None for every NaN and every infinity, which JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value
