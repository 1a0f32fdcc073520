"""`fednode` as a process of its own without the seconds that its imports take: forked from one that has them already.

What it does from then on is what `python -m fednode` does: its own environment, files, sockets, signals and memory.
Only a process that kills itself by the hundred needs this; all others are started as a user starts them.
"""

from __future__ import annotations

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

import fednode.central.serve
import fednode.cli.app
import fednode.client.daemon
import fednode.client.page
from fednode import failpoints

STEP_S = 0.005
MAX_FILES = 1 << 20


class Forked:
    """As much of `subprocess.Popen` as `Federation` asks for."""

    def __init__(self, args: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.returncode: int | None = None
        self.args = list(args)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(self.args, log, env, cwd)

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


def _become(args: list[str], log: Path, env: Mapping[str, str], cwd: Path) -> NoReturn:
    """Be `fednode ARGS`, in a process that was somebody else until now."""
    code = 1
    try:
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
        importlib.reload(failpoints)            # its environment is another one now
        sys.argv = ["fednode", *args]
        fednode.cli.app.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
