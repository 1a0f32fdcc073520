"""Where chest X-rays lie below a data folder, and which of its files are meant as images. Reads none of them.

    <data>/chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg        (Kermany et al. 2018; CC BY 4.0)

The data folder may also be `chest_xray` itself, or hold it twice, as the Kaggle archive does; names of splits and
classes in any case. Everything else there is ignored. What the files hold is found out by `chest_xray_folder.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fednode.core.data_report import Problem
from fednode.tasks.picture_files import is_folder, is_junk, is_meant, text_of

CLASSES = ("NORMAL", "PNEUMONIA")               # label 0, label 1
FOLDERS = ("train", "val", "test")
LAYOUT = "chest_xray/{train,test}/{NORMAL,PNEUMONIA}"


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file that looks as if it were meant."""

    path: Path
    folder: str                     # one of FOLDERS
    label: int                      # its class, by its place in CLASSES


@dataclass(kw_only=True)
class Listing:
    """A walk through a data folder, and what was odd on the way."""

    data: Path
    root: Path | None = None        # the folder that has the splits; None: there is none
    files: list[ListedFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @staticmethod
    def of(data: Path) -> Listing:
        found = Listing(data=data)
        found.root = found._find_root()
        if found.root is None:
            found.problems.append(_no_folder(data))
            return found
        for split, place in found._splits(found.root):
            for folder in found._folders(place):
                found.files += found._images(folder, split)
        return found

    def _find_root(self) -> Path | None:
        named = [path for path in self._folders(self.data) if path.name.lower() == "chest_xray"]
        doubled = [path for outer in named for path in self._folders(outer) if path.name.lower() == "chest_xray"]
        return next((place for place in (*named, *doubled, self.data) if self._splits(place)), None)

    def _splits(self, place: Path) -> list[tuple[str, Path]]:
        return [(path.name.lower(), path) for path in self._folders(place) if path.name.lower() in FOLDERS]

    def _images(self, folder: Path, split: str) -> Iterator[ListedFile]:
        if folder.name.upper() not in CLASSES:
            self.problems.append(_third_class(folder))
            return
        for path in self._entries(folder):
            if is_meant(path):
                yield ListedFile(path=path, folder=split, label=CLASSES.index(folder.name.upper()))

    def _folders(self, place: Path) -> list[Path]:
        return [path for path in self._entries(place) if is_folder(path)]

    def _entries(self, place: Path) -> list[Path]:
        """By name; nothing where the folder cannot be read, which is told."""
        try:
            return sorted(path for path in place.iterdir() if not is_junk(path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if (told := _unreadable(place, error)) not in self.problems:
                self.problems.append(told)
            return []


def _no_folder(data: Path) -> Problem:
    there = "has neither" if is_folder(data) else "is not there"
    return Problem(
        code="no_folder", is_fatal=True,
        message=f"no chest X-rays: looked for {text_of(data / 'chest_xray' / 'train')} and {text_of(data / 'train')}, "
        f"and {text_of(data)} {there}",
        fix=f"name by --data the folder that holds {LAYOUT}",
    )


def _third_class(folder: Path) -> Problem:
    return Problem(
        code="unknown_class", message=f"{text_of(folder)} is no class of this task and is left out",
        fix=f"the classes: {', '.join(CLASSES)}; move its images there, or the folder away",
    )


def _unreadable(folder: Path, error: OSError) -> Problem:
    return Problem(
        code="unreadable", message=f"{text_of(folder)} cannot be read: {error.strerror}", fix="mend its permissions",
    )
