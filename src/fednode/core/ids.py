"""Ids of rows: `run_`, `cli_`, `mdl_` and 26 Crockford base32 characters, ordered by the time they were made."""

from __future__ import annotations

import re

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
_NAME = re.compile(NAME_PATTERN)


def make_id(kind: str, now_ms: int, entropy: bytes) -> str:
    """`kind`_ + 48 bits of time + 80 bits of entropy (10 bytes)."""
    number = (now_ms << 80) | int.from_bytes(entropy[:10], "big")
    return f"{kind}_" + "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_name(text: str) -> bool:
    """Whether a client may be called so."""
    return _NAME.fullmatch(text) is not None
