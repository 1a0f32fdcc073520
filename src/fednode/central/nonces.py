"""Numbers that a client's key signs once, so that a proof which somebody recorded opens nothing later.

Nothing is kept of a nonce before it comes back, signed by a key that is known here: to ask for many costs no memory.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from fednode.errors import NotAuthorised
from fednode.ports import Clock

NONCE_AGE_S = 60.0


class Nonces:
    """Of one process: a nonce of an earlier one is refused, and the client asks for another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._used: dict[str, float] = {}       # until when it must be remembered

    def make(self, name: str) -> str:
        """One for the client `name`, whether there is such a client or not."""
        made = f"{self._clock.now_s():.3f}-{secrets.token_hex(16)}"
        return f"{made}-{self._seal(name, made)}"

    def use_up(self, name: str, nonce: str) -> None:
        """Raises NotAuthorised unless it was made here for `name`, lately, and never used."""
        made, _, seal = nonce.rpartition("-")
        if not hmac.compare_digest(seal, self._seal(name, made)):
            raise _refused("was not made here")
        now_s, until_s = self._clock.now_s(), float(made.partition("-")[0]) + NONCE_AGE_S
        self._used = {known: end_s for known, end_s in self._used.items() if end_s >= now_s}
        if until_s < now_s or nonce in self._used:
            raise _refused("is too old, or was used before")
        self._used[nonce] = until_s

    def _seal(self, name: str, made: str) -> str:
        return hmac.new(self._key, f"{name} {made}".encode(), hashlib.sha256).hexdigest()


def _refused(why: str) -> NotAuthorised:
    return NotAuthorised(f"the nonce that was signed {why}", fix="ask for another at /api/v1/nonces")
