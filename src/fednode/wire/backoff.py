"""How long to wait before trying again: full jitter, first at most 0.1 s, doubling to 10 s, or as asked.

Where nobody answers it stays at 0.4 s for a while: a central node that is restarted is away for seconds, and whoever
doubles meanwhile comes back seconds after it. Who waits and tries: `with_retries` in `wire/http.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fednode.errors import CannotConnect, FednodeError, NotTrusted, TimedOut
from fednode.wire.answers import AskedToWait

FIRST_RETRY_S = 0.1
SHORT_RETRY_S, SHORT_TRIES = 0.4, 30        # half of 0.4 s each: about 6 s of a restart
LAST_RETRY_S = 10.0
_STEPS = 1 << 20


class Backoff:
    """A hook for stamina: the seconds to wait after an error, or False for one that no wait mends."""

    def __init__(self, on_wait: Callable[[FednodeError, float], None] | None = None) -> None:
        self._on_wait = on_wait
        self._limit_s = FIRST_RETRY_S
        self._num_short = 0             # tries at the limit of a restart

    def __call__(self, error: Exception) -> bool | float:
        if not isinstance(error, (CannotConnect, TimedOut)) or isinstance(error, NotTrusted):
            return False
        # Not from core/seeds: this chance keeps clients apart, and no result may depend on it.
        wait_s = self._next_limit_s(error) * secrets.randbelow(_STEPS) / _STEPS
        if isinstance(error, AskedToWait):
            wait_s += error.retry_after_s
        if self._on_wait is not None:
            self._on_wait(error, wait_s)
        return wait_s

    def _next_limit_s(self, error: FednodeError) -> float:
        limit_s = self._limit_s
        if limit_s == SHORT_RETRY_S and self._num_short < SHORT_TRIES and not isinstance(error, AskedToWait):
            self._num_short += 1
        else:
            self._limit_s = min(LAST_RETRY_S, 2 * limit_s)
        return limit_s
