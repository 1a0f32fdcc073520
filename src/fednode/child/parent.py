"""A process that ends with the one that started it. Nothing else is loaded here: who asks for it may become another."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1            # linux/prctl.h


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel end this process when its parent dies, however that dies. Elsewhere EOF does it."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:      # it died before the call above
        os._exit(0)
