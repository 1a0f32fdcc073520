"""The folder of chest X-rays: where it lies, which images in it can be used, and what is odd about the rest.

    <data>/chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg        (Kermany et al. 2018; CC BY 4.0)

The data folder may also be `chest_xray` itself, or hold it twice, as the Kaggle archive does; names of splits and
classes in any case; images of a `val` folder count as train, from which they were taken. One patient's images share
`personN` or `IM-NNNN` in their names. How pixels are read is in `pictures.py`, what is learned in `chest_xray.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import structlog

from fednode.core.data_report import DataReport, Problem, SkippedFile
from fednode.errors import DataError
from fednode.tasks.picture_cache import Found, PictureCache, Skipped
from fednode.tasks.pictures import MAGIC

CLASSES = ("NORMAL", "PNEUMONIA")               # label 0, label 1
FOLDERS = ("train", "val", "test")
IMAGE_SUFFIXES = frozenset([                    # what was meant as an image, whether or not it can be read
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom", ".jp2",
    ".heic",
])
JUNK = frozenset(["thumbs.db", "desktop.ini", "__macosx"])
HELD_BACK = 0.1                                 # of the patients of train: on them the threshold is chosen
NUM_NAMED = 4                                   # files in a message

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Xray:
    """An image that can be used."""

    path: Path
    folder: str                     # one of FOLDERS
    label: int                      # its class, by its place in CLASSES
    digest: bytes                   # of the file's content
    row: int                        # its square in the cache

    @cached_property
    def patient(self) -> str:
        return patient_of(self.path.name)


@dataclass(frozen=True, kw_only=True)
class XrayFolder:
    """What a look at the data folder found."""

    images: tuple[Xray, ...]        # by path
    report: DataReport

    def split(self, name: str) -> list[Xray]:
        """The images of the split "train", "val" or "test". Patients of "val" are held back from train."""
        return [image for image in self.images if self._split_of(image) == name]

    def _split_of(self, image: Xray) -> str:
        if image.folder == "test":
            return "test"
        return "val" if image.patient in self._held_back else "train"

    @cached_property
    def _held_back(self) -> frozenset[str]:
        return held_back(self.images)


def look(data: Path, cache: PictureCache) -> XrayFolder:
    """Every image of the folder, decoded where the cache does not know it. Raises DataError where the cache fails."""
    root = _root(data)
    if root is None:
        return XrayFolder(images=(), report=DataReport(problems=(_no_folder(data),)))
    listed, odd = _listed(root)
    found = cache.find([path for path, _, _ in listed])
    images = tuple(
        Xray(path=path, folder=folder, label=label, digest=one.digest, row=one.row)
        for (path, folder, label), one in zip(listed, found, strict=True) if isinstance(one, Found)
    )
    skipped = tuple(_skipped(one, data) for one in found if isinstance(one, Skipped))
    problems = (*odd, *_gaps(images, root), *_too_few(images, root), *_copies(images, data))
    return XrayFolder(images=images, report=DataReport(splits=_counts(images), skipped=skipped, problems=problems))


def usable(data: Path, cache: PictureCache) -> XrayFolder:
    """`look` for those who train: skipped files go to the log. Raises DataError where nothing can be trained."""
    found = look(data, cache)
    for file in found.report.skipped:
        log.warning("chest_xray.skipped", path=file.path, reason=file.reason)
    for problem in found.report.problems:
        if problem.is_fatal:
            raise DataError(problem.message, fix=problem.fix)
        log.warning(f"chest_xray.{problem.code}", told=problem.message, fix=problem.fix)
    return found


def patient_of(name: str) -> str:
    """Whose image a file is: `personN`, `IM-NNNN`, else nobody else's."""
    found = re.search(r"person\d+|IM-\d+", name, re.IGNORECASE)
    return found[0].lower() if found else name


def held_back(images: Sequence[Xray]) -> frozenset[str]:
    """A tenth of the patients of train, by class; at least one of a class that has two. Drawn by their names."""
    label_of = {image.patient: image.label for image in images if image.folder != "test"}
    chosen: list[str] = []
    for label in range(len(CLASSES)):
        patients = sorted((p for p, of in label_of.items() if of == label), key=_lot)
        chosen += patients[: max(1, round(HELD_BACK * len(patients)))] if len(patients) > 1 else []
    return frozenset(chosen)


def _lot(patient: str) -> bytes:
    return hashlib.sha256(patient.encode(errors="surrogateescape")).digest()


# --- the folder's files -----------------------------------------------------------------------------------


def _root(data: Path) -> Path | None:
    """The folder that has the splits."""
    named = [path for path in _folders(data) if path.name.lower() == "chest_xray"]
    doubled = [path for outer in named for path in _folders(outer) if path.name.lower() == "chest_xray"]
    return next((place for place in (*named, data, *doubled) if _splits(place)), None)


def _splits(place: Path) -> list[tuple[str, Path]]:
    return [(path.name.lower(), path) for path in _folders(place) if path.name.lower() in FOLDERS]


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir() and not _is_junk(path))
    except OSError:
        return []


def _listed(root: Path) -> tuple[list[tuple[Path, str, int]], list[Problem]]:
    """The files that look as if they were meant, with folder and label; and what else was found."""
    listed: list[tuple[Path, str, int]] = []
    problems: list[Problem] = []
    for split, place in _splits(root):
        for folder in _folders(place):
            if folder.name.upper() not in CLASSES:
                problems.append(_third_class(folder))
                continue
            try:
                files = sorted(_files(folder))
            except OSError as error:
                problems.append(_unreadable(folder, error))
                continue
            listed += [(path, split, CLASSES.index(folder.name.upper())) for path in files]
    return listed, problems


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if not _is_junk(path) and not path.is_dir() and _is_meant(path):
            yield path


def _is_junk(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in JUNK


def _is_meant(path: Path) -> bool:
    """By its name, else by its content: an image whose name says nothing is one, too."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        if not path.is_file():          # nothing is read of a pipe
            return False
        with path.open("rb") as file:
            return file.read(max(map(len, MAGIC))).startswith(MAGIC)
    except OSError:
        return False


def _skipped(one: Skipped, data: Path) -> SkippedFile:
    return SkippedFile(path=_below(one.path, data), reason=one.reason)


def _below(path: Path, data: Path) -> str:
    return path.relative_to(data).as_posix().encode(errors="surrogateescape").decode(errors="replace")


# --- what is odd ------------------------------------------------------------------------------------------


def _counts(images: Iterable[Xray]) -> dict[str, dict[str, int]]:
    """Every split that has images, and train and test anyway."""
    counts = {folder: dict.fromkeys(CLASSES, 0) for folder in FOLDERS}
    for image in images:
        counts[image.folder][CLASSES[image.label]] += 1
    return {folder: of for folder, of in counts.items() if folder != "val" or any(of.values())}


def _gaps(images: Sequence[Xray], root: Path) -> list[Problem]:
    """Splits and classes without an image. A site that has one class only is a hospital like others."""
    problems: list[Problem] = []
    for split, counts in _counts(images).items():
        empty = [name for name in CLASSES if not counts[name]]
        looked_for = f"looked for JPEG and PNG in {' and '.join(str(root / split / name) for name in empty)}"
        if len(empty) == len(CLASSES):
            problems.append(Problem(
                code=f"no_{split}", message=f"there is no usable image for {split}: {looked_for}",
                fix="put the images there, by class", is_fatal=True,
            ))
        elif empty and split != "val":
            problems.append(Problem(
                code="no_images", message=f"{split} has no usable image of the class {empty[0]}: {looked_for}",
                fix="nothing, where this site has seen none; else put them there",
            ))
    return problems


def _too_few(images: Sequence[Xray], root: Path) -> list[Problem]:
    if held_back(images) or all(image.folder == "test" for image in images):
        return []
    return [Problem(
        code="too_few_patients", message=f"{root / 'train'} has no class with two patients: none can be held back",
        fix="add images of other patients; a patient is the personN or IM-NNNN in a file's name", is_fatal=True,
    )]


def _copies(images: Sequence[Xray], data: Path) -> list[Problem]:
    """The same bytes more than once: under two classes, in train and test, or merely twice."""
    by_content: dict[bytes, list[Xray]] = defaultdict(list)
    for image in images:
        by_content[image.digest].append(image)
    return [problem for same in by_content.values() if len(same) > 1 for problem in _told_of_copies(same, data)]


def _told_of_copies(same: Sequence[Xray], data: Path) -> list[Problem]:
    names = [_below(image.path, data) for image in same]
    listed = ", ".join(names[:NUM_NAMED]) + (f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else "")
    told: list[Problem] = []
    if len({image.label for image in same}) > 1:
        told.append(Problem(
            code="label_conflict", message=f"the same image is filed under both classes: {listed}",
            fix="find out what it shows, and delete the other",
        ))
    if len({image.folder == "test" for image in same}) > 1:
        told.append(Problem(
            code="leak", message=f"the same image is in train and in test: {listed}",
            fix="delete it from train, or scores look better than the model is",
        ))
    return told or [Problem(
        code="duplicate", message=f"the same image several times: {listed}", fix="delete all but one of them",
    )]


def _no_folder(data: Path) -> Problem:
    there = "is not there" if not data.exists() else "has neither"
    return Problem(
        code="no_folder", message=f"no chest X-rays: looked for {data / 'chest_xray' / 'train'} and {data / 'train'}, "
        f"and {data} {there}",
        fix="name by --data the folder that holds chest_xray/{train,test}/{NORMAL,PNEUMONIA}", is_fatal=True,
    )


def _third_class(folder: Path) -> Problem:
    return Problem(
        code="unknown_class", message=f"{folder} is no class of this task and is left out",
        fix=f"the classes: {', '.join(CLASSES)}; move its images there, or the folder away",
    )


def _unreadable(folder: Path, error: OSError) -> Problem:
    return Problem(
        code="unreadable", message=f"{folder} cannot be read: {error.strerror}", fix="mend its permissions",
    )
