"""What a loss of power must not take: a file's bytes, a folder's names, and the folders themselves.

A new file survives once it is fsynced and then the folder that names it; a new folder once the one above it is. How a
whole file takes another's place is `codec.replacing`.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o777
HURRY_BYTES = 16 << 20                  # so much is worth a call of its own
_SYNC_FILE_RANGE_WRITE = 2              # linux/fs.h
_LIBC = ctypes.CDLL(None)


def fsync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk.

    Where it raises, what was written is lost though it can still be read, and a second try would succeed without
    writing it: write it anew.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hurry(path: Path) -> None:
    """`hurry_open` a file that somebody else has open; one that is gone meanwhile needs no hurry."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            hurry_open(descriptor)
        finally:
            os.close(descriptor)


def hurry_open(descriptor: int) -> None:
    """Have the system begin to write what it holds of this file, so that the fsync at its end has less to wait for.

    Promises nothing, and hides no error: what could not be written the fsync tells. Elsewhere than on Linux: nothing.
    """
    with suppress(AttributeError):
        start, to_its_end = ctypes.c_int64(0), ctypes.c_int64(0)
        _LIBC.sync_file_range(descriptor, start, to_its_end, _SYNC_FILE_RANGE_WRITE)


def make_folder(folder: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder, and those above it that are missing, for good. One that is there was made for good before."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    try:
        fsync(folder.parent)
    except OSError:
        with suppress(OSError):
            folder.rmdir()              # so that it is not taken for one that was made for good
        raise


def make_state_dir(folder: Path, mode: int = FOLDER_MODE) -> None:
    """The folder of a node that starts for the first time, by whomever it and those above it were made just now."""
    make_folder(folder, mode)
    for above in folder.resolve().parents:
        with suppress(OSError):         # one that we may not read was not made by us
            fsync(above)
