"""What a figure was measured on: without it, it says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import fednode
from fednode.tasks.picture_cache import num_cores

GIBIBYTE = 1 << 30


def measurement(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """One object: what was measured, its figures, and on what machine, as busy as it was."""
    return {
        "bench": name, **figures, "load_average": round(os.getloadavg()[0], 2), "machine": described(),
        "fednode": fednode.__version__,
    }


def described() -> str:
    """`AMD EPYC 7543, 2 cores, 24 GiB`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIBIBYTE
    return f"{_processor()}, {num_cores()} cores, {memory:.0f} GiB"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
