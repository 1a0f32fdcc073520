"""Places at which a process kills itself where its environment says so: how a test reaches any instant of a round.

`FEDNODE_FAILPOINT=update.renamed@3` is `kill -9`, by the process itself, when it comes to the point
`update.renamed` of round 3 for the first time; several are separated by commas. Names are `<thing>.<what has just
happened to it>`; outside of a round the number is 0. Where the variable is not set a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "FEDNODE_FAILPOINT"
_armed = frozenset(filter(None, os.environ.get(VARIABLE, "").split(",")))


def reach(name: str, number: int = 0) -> None:
    """Die here, if this point of round `number` is armed."""
    if _armed and f"{name}@{number}" in _armed:
        os.kill(os.getpid(), signal.SIGKILL)
