"""`fednode` as a process of its own without the seconds that its imports take: forked from one that has them already.

What it does from then on is what `python -m fednode` does: its own environment, files, sockets, signals and memory.
A federation's members are started so in `make test`, and as a user starts them in `make torture`; commands always are.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

STEP_S = 0.005
MAX_FILES = 1 << 20
IMPORTED = ("fednode.cli.app", "fednode.central.serve", "fednode.client.daemon", "fednode.client.page")
AT_THE_START = ("PYTHON", "LD_")        # what only a process that is started anew reads in its environment


class Forked:
    """As much of `subprocess.Popen` as `Federation` asks for."""

    def __init__(self, args: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.returncode: int | None = None
        self.args = list(args)
        for name in IMPORTED:
            importlib.import_module(name)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(self.args, log, env, cwd)

    @staticmethod
    def can_have(env: Mapping[str, str]) -> bool:
        """Whether `env` says nothing else than ours to Python itself, and to what loads it."""
        return _read_at_the_start(env) == _read_at_the_start(os.environ)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 3600.0)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(STEP_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _read_at_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(AT_THE_START)}


def _become(args: list[str], log: Path, env: Mapping[str, str], cwd: Path) -> NoReturn:
    """Be `fednode ARGS`, in a process that was somebody else until now."""
    code = 1
    try:
        gc.freeze()                             # an old socket that were collected would close a new one's number
        os.closerange(3, MAX_FILES)             # what the other one has open is its own
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        for path, mode, descriptor in ((os.devnull, os.O_RDONLY, 0), (log, os.O_WRONLY | os.O_APPEND, 1)):
            opened = os.open(path, mode | os.O_CREAT, 0o600)
            os.dup2(opened, descriptor)
        os.dup2(1, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)    # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        importlib.reload(sys.modules["fednode.failpoints"])         # its environment is another one now
        sys.argv = ["fednode", *args]
        sys.modules["fednode.cli.app"].main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
