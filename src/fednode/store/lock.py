"""One process per state dir: a file lock that the kernel frees when its holder dies, however it dies.

So nobody ever waits for a lock to grow old. Central nodes and client nodes both take it. No child inherits it:
its file is closed on exec.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fednode.errors import StoreError, StoreLocked
from fednode.wire.durable import make_state_dir

FILE_NAME = "lock"


class StateLock:
    """Held from `take` until `release`, or until the process ends."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @staticmethod
    def take(state_dir: Path) -> StateLock:
        """Raises StoreLocked naming the holder; StoreError where the folder cannot be written."""
        try:
            if not (state_dir / FILE_NAME).exists():
                make_state_dir(state_dir)
            fd = os.open(state_dir / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"the state dir {state_dir} cannot be used: {error.strerror}",
                fix="choose another one with --state-dir, or mend its permissions",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked(state_dir, fd) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        return StateLock(fd)

    def release(self) -> None:
        """The file stays, so that two who come next lock the same one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(state_dir: Path, fd: int) -> StoreLocked:
    holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
    os.close(fd)
    return StoreLocked(
        f"the state dir {state_dir} is in use by process {holder}",
        fix=f"end process {holder}, or choose another folder with --state-dir",
    )
