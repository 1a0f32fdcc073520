"""The shape of JSON, its one canonical text (no hash may depend on the order of keys), and a distrustful reader."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Union

Json: TypeAlias = Union[bool, int, float, str, Sequence["Json"], Mapping[str, "Json"], None]
JsonObject: TypeAlias = Mapping[str, Json]

EXACT_INTEGERS = 2**53          # up to here a float64 is the integer that it looks like
MAX_DEPTH = 64                  # of what others send; our own is at most 8 deep
MAX_DIGITS = 40                 # of an integer: JavaScript writes 1e20 as one of 21
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_ODD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


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


# --- what others send --------------------------------------------------------------------------------


def read_json(text: bytes) -> Json:
    """One JSON text of a stranger, bounded in depth before it is parsed.

    Raises ValueError, saying in a few words why not: no UTF-8, no JSON, too deep, a name twice in one object, a number
    that no float64 holds or of too many digits, a character that no store can hold (NUL, half a surrogate pair).
    """
    require_shallow(text)
    try:
        value: Json = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_float, parse_int=_int
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if _ODD_ESCAPE.search(text) or b"\0" in text:
        _require_storable(value)
    return value


def require_shallow(text: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raise ValueError where brackets stand deeper than `max_depth`, whatever else the text is."""
    if text.count(b"[") + text.count(b"{") <= max_depth:
        return
    depth = 0
    for found in _BRACKETS.finditer(text):
        bracket = found[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth > max_depth:
                raise ValueError(f"it is more than {max_depth} levels deep")
        elif bracket in (b"]", b"}"):
            depth -= 1


def _unique(pairs: list[tuple[str, Json]]) -> JsonObject:
    row: dict[str, Json] = {}
    for name, value in pairs:
        if name in row:
            raise ValueError(f"it says {name[:100]!r} twice")
        row[name] = value
    return row


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond every float64")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _require_storable(value: Json) -> None:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a surrogate pair, which is no character") from None
    if "\\u0000" in text.replace("\\\\", ""):
        raise ValueError("it holds the character NUL")
