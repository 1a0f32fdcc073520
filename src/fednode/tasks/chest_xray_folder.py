"""A folder of chest X-rays: which of its images can be used, whose they are, and what is odd about the rest.

Images of a `val` folder count as train, from which they were taken. One patient's images share `personN` or `IM-NNNN`
in their names. Where the files lie is in `chest_xray_files.py`, how pixels are read in `pictures.py`, what is learned
in `chest_xray.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import structlog

from fednode.core.data_report import DataReport, Problem, SkippedFile, printable
from fednode.errors import DataError
from fednode.tasks.base import Bytes
from fednode.tasks.chest_xray_files import CLASSES, FOLDERS, Listing
from fednode.tasks.picture_cache import Found, PictureCache, Skipped
from fednode.tasks.picture_files import text_of

HELD_BACK = 0.1                                 # of the patients of train: on them the threshold is chosen
NUM_NAMED = 4                                   # files in a message
NUM_LOGGED = 10                                 # problems of one kind in the log; the rest are counted

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Xray:
    """An image that can be used."""

    path: Path
    folder: str                     # one of FOLDERS
    label: int                      # its class, by its place in CLASSES
    digest: bytes                   # of the file's content
    row: int                        # its square, among the folder's

    @cached_property
    def patient(self) -> str:
        return patient_of(self.path.name)


@dataclass(frozen=True, kw_only=True)
class XrayFolder:
    """What a look at the data folder found."""

    images: tuple[Xray, ...]        # by path
    squares: Bytes                  # (more than those, size, size): the pixels
    report: DataReport

    def split(self, name: str, num_sites: int = 1) -> list[Xray]:
        """The images of the split "train", "val" or "test". Patients of "val" are held back from train.

        `num_sites`: how many share the folder. Where there are few patients, so many are held back that each has one.
        """
        if name == "test":
            return [image for image in self.images if image.folder == "test"]
        chosen = held_back(self.images, num_sites)
        return [
            image for image in self.images
            if image.folder != "test" and (image.patient in chosen) == (name == "val")
        ]


def look(data: Path, cache: PictureCache) -> XrayFolder:
    """Every image of the folder, decoded where the cache does not know it."""
    listing = Listing.of(data)
    decoded = cache.find([file.path for file in listing.files])
    images = tuple(
        Xray(path=one.path, folder=file.folder, label=file.label, digest=one.digest, row=one.row)
        for file, one in zip(listing.files, decoded.files, strict=True) if isinstance(one, Found)
    )
    skipped = tuple(_skipped(one, data) for one in decoded.files if isinstance(one, Skipped))
    problems = list(listing.problems)
    if listing.root is not None:
        problems += [*_gaps(images, listing.root), *_too_few(images, listing.root), *_copies(images, data)]
    report = DataReport(splits=_counts(images), skipped=skipped, problems=tuple(problems))
    return XrayFolder(images=images, squares=decoded.squares, report=report)


def usable(data: Path, cache: PictureCache) -> XrayFolder:
    """`look` for those who train: what is skipped or odd goes to the log. Raises DataError where nothing can be."""
    found = look(data, cache)
    if (fatal := found.report.fatal) is not None:
        num_skipped = len(found.report.skipped)
        told = f" ({num_skipped} files cannot be used: fednode doctor names them)" if num_skipped else ""
        raise DataError(f"{fatal.message}{told}", fix=fatal.fix)
    _tell(found.report)
    return found


def _tell(report: DataReport) -> None:
    for file in report.skipped:
        log.warning("chest_xray.skipped", path=printable(file.path), reason=file.reason)
    if report.skipped:
        log.warning("chest_xray.skipped_in_all", num_files=len(report.skipped))
    told: Counter[str] = Counter()
    for problem in report.problems:
        told[problem.code] += 1
        if told[problem.code] <= NUM_LOGGED:
            log.warning(f"chest_xray.{problem.code}", told=problem.message, fix=problem.fix)
    for code, num in told.items():
        if num > NUM_LOGGED:
            log.warning(f"chest_xray.{code}", num_more=num - NUM_LOGGED, fix="fednode doctor names them all")


def patient_of(name: str) -> str:
    """Whose image a file is: `personN`, `IM-NNNN`, else nobody else's."""
    found = re.search(r"person\d+|IM-\d+", name, re.IGNORECASE)
    return found[0].lower() if found else name


def held_back(images: Sequence[Xray], num_sites: int = 1) -> frozenset[str]:
    """A tenth of the patients of train, by class, at least one for each site; at most half. Drawn by their names."""
    label_of = {image.patient: image.label for image in images if image.folder != "test"}
    chosen: list[str] = []
    least = -(-num_sites // max(1, len(set(label_of.values()))))
    for label in range(len(CLASSES)):
        patients = sorted((p for p, of in label_of.items() if of == label), key=_lot)
        chosen += patients[: min(max(least, round(HELD_BACK * len(patients))), len(patients) // 2)]
    return frozenset(chosen)


def _lot(patient: str) -> bytes:
    return hashlib.sha256(patient.encode(errors="surrogateescape")).digest()


def _skipped(one: Skipped, data: Path) -> SkippedFile:
    """Its path as it is, but for bytes that are no text."""
    below = one.path.relative_to(data).as_posix()
    path = below.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return SkippedFile(path=path, reason=one.reason)


# --- what is odd ------------------------------------------------------------------------------------------


def _counts(images: Iterable[Xray]) -> dict[str, dict[str, int]]:
    """Every split that has images, and train and test anyway."""
    counts = {folder: dict.fromkeys(CLASSES, 0) for folder in FOLDERS}
    for image in images:
        counts[image.folder][CLASSES[image.label]] += 1
    return {folder: of for folder, of in counts.items() if folder != "val" or any(of.values())}


def _gaps(images: Sequence[Xray], root: Path) -> Iterator[Problem]:
    """Splits and classes without an image. A site that has one class only is a hospital like others."""
    for split, counts in _counts(images).items():
        empty = [name for name in CLASSES if not counts[name]]
        looked_for = f"looked for JPEG and PNG in {' and '.join(text_of(root / split / name) for name in empty)}"
        if len(empty) == len(CLASSES):
            yield Problem(
                code=f"no_{split}", message=f"there is no usable image for {split}: {looked_for}",
                fix="put the images there, by class", is_fatal=True,
            )
        elif empty and split != "val":
            yield Problem(
                code="no_images", message=f"{split} has no usable image of the class {empty[0]}: {looked_for}",
                fix="nothing, where this site has seen none; else put them there",
            )


def _too_few(images: Sequence[Xray], root: Path) -> Iterator[Problem]:
    if not held_back(images) and any(image.folder != "test" for image in images):
        yield Problem(
            code="too_few_patients", is_fatal=True,
            message=f"{text_of(root / 'train')} has no class with two patients: none can be held back",
            fix="add images of other patients; a patient is the personN or IM-NNNN in a file's name",
        )


def _copies(images: Sequence[Xray], data: Path) -> Iterator[Problem]:
    """The same bytes more than once: under two classes, in train and test, or merely twice."""
    by_content: dict[bytes, list[Xray]] = defaultdict(list)
    for image in images:
        by_content[image.digest].append(image)
    for same in by_content.values():
        if len(same) > 1:
            yield from _told_of_copies(same, data)


def _told_of_copies(same: Sequence[Xray], data: Path) -> Iterator[Problem]:
    names = [text_of(image.path.relative_to(data)) for image in same]
    listed = ", ".join(names[:NUM_NAMED]) + (f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else "")
    places = Counter((image.folder == "test", image.label) for image in same)
    if len({label for _, label in places}) > 1:
        yield Problem(
            code="label_conflict", message=f"the same image is filed under both classes: {listed}",
            fix="find out what it shows, and delete the other",
        )
    if len({is_test for is_test, _ in places}) > 1:
        yield Problem(
            code="leak", message=f"the same image is in train and in test: {listed}",
            fix="delete it from train, or scores look better than the model is",
        )
    if max(places.values()) > 1:
        yield Problem(
            code="duplicate", message=f"the same image several times: {listed}", fix="delete all but one of them",
        )
