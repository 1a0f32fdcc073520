"""How long to wait before trying again: full jitter, first at most 0.1 s, doubling to 10 s, or as asked.

Who waits and tries: `with_retries` in `wire/http.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fednode.errors import CannotConnect, FednodeError, NotTrusted, TimedOut
from fednode.wire.answers import AskedToWait

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 10.0
_STEPS = 1 << 20


class Backoff:
    """A hook for stamina: the seconds to wait after an error, or False for one that no wait mends."""

    def __init__(self, on_wait: Callable[[FednodeError, float], None] | None = None) -> None:
        self._on_wait = on_wait
        self._limit_s = FIRST_RETRY_S

    def __call__(self, error: Exception) -> bool | float:
        if not isinstance(error, (CannotConnect, TimedOut)) or isinstance(error, NotTrusted):
            return False
        # Not from core/seeds: this chance keeps clients apart, and no result may depend on it.
        wait_s = self._limit_s * secrets.randbelow(_STEPS) / _STEPS
        self._limit_s = min(LAST_RETRY_S, 2 * self._limit_s)
        if isinstance(error, AskedToWait):
            wait_s += error.retry_after_s
        if self._on_wait is not None:
            self._on_wait(error, wait_s)
        return wait_s
