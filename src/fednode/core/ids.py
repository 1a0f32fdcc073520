"""Ids of rows: `run_`, `cli_`, `mdl_` and 26 Crockford base32 characters, ordered by the time they were made.

And how clients are called: by their name, and by the key that it belongs to.
"""

from __future__ import annotations

import hashlib
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


def key_fingerprint(public_key: str) -> str:
    """What two people compare: the beginning of the sha256 of a public key (raw, hex)."""
    return f"sha256:{hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:32]}"
