"""Where a task computes: which devices this machine has, and the one that `--device` means here.

`cpu` is always there and asks nobody; for all others torch is asked, and only then imported. Its settings have to be
in the environment before that, and before a task's file imports it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

from fednode.errors import UsageError
from fednode.tasks.base import Site

CPU, AUTO = "cpu", "auto"
SETTINGS = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",   # without it CUDA's matrix products may differ from run to run
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",     # what Apple's GPUs cannot do is done by the CPU
}


def prepare(device: str) -> None:
    """Set torch's environment for a device other than the CPU, where nobody has set it."""
    for name, value in SETTINGS.items() if device != CPU else ():
        os.environ.setdefault(name, value)


def placed(site: Site) -> Site:
    """The site, with a device that is there in place of `auto`, or of one without its number. Raises UsageError."""
    return site if site.device == CPU else replace(site, device=_found(site.device))


@cache
def _found(asked: str) -> str:
    there = devices()
    wanted = {AUTO: there[0], "cuda": "cuda:0"}.get(asked, asked)
    if wanted not in there:
        raise UsageError(
            f"the device {asked!r} is not there: this machine has {', '.join(there)}",
            fix="take one of these, or --device auto: the best of them; a GPU needs its driver and a torch for it",
        )
    return wanted


def devices() -> tuple[str, ...]:
    """All that are there, best first."""
    prepare(AUTO)
    if find_spec("torch") is None:
        return (CPU,)
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return (*gpus, *(["mps"] if torch.backends.mps.is_available() else []), CPU)


@cache
def described(device: str) -> str:
    """A device that is there, with what decides its bits: which GPU it is, and the version of CUDA."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda})"
