"""Which files of a folder were meant as pictures, whether or not they can be read. What they show: `pictures.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fednode.core.data_report import printable
from fednode.tasks.pictures import is_picture

IMAGE_SUFFIXES = frozenset([                    # what was meant as an image, whether or not it can be read
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom", ".jp2",
    ".j2k", ".jxl", ".heic", ".heif", ".avif", ".pgm",
])
JUNK = frozenset(["thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"])


def text_of(path: Path) -> str:
    """On one line and in any encoding, whatever bytes its name has."""
    return printable(os.fsencode(path).decode(errors="backslashreplace"))


def is_junk(path: Path) -> bool:
    """What systems leave behind, and AppleDouble files, whose names begin with a dot."""
    return path.name.startswith(".") or path.name.lower() in JUNK


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:                 # a link to a place that may not be entered, or that no name can have
        return False


def is_meant(path: Path) -> bool:
    """By its name, else by its content: an image whose name says nothing is one, too."""
    return not is_folder(path) and (path.suffix.lower() in IMAGE_SUFFIXES or is_picture(path))


def pictures_in(folder: Path, on_unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    """Those of the folder and of the folders in it, by name; links to folders are not followed.

    `on_unreadable` is called for each folder that cannot be listed.
    """
    for place, folders, names in os.walk(folder, onerror=on_unreadable):
        folders[:] = sorted(name for name in folders if not is_junk(Path(name)))
        paths = [Path(place, name) for name in sorted(names)]
        yield from (path for path in paths if not is_junk(path) and is_meant(path))
