"""What a loss of power must not take: a file's bytes, a folder's names, and the folders themselves.

A new file survives once it is fsynced and then the folder that names it; a new folder once the one above it is. How a
whole file takes another's place is `codec.replacing`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o777


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
