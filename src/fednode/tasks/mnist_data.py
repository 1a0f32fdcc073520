"""MNIST files: where they are looked for, how they are read, what is refused.

Looked for in the site's data folder, in the user's cache, at public mirrors; the sample that comes with fednode
is used only where the site asks for it. Plain numpy: what is learned from the images is the tasks' business.
Read next: `mnist_3v7.py`, which needs nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from fednode.core.seeds import derive_seed, numpy_rng
from fednode.errors import DataError, FednodeError
from fednode.tasks.base import Bytes, Picture, Samples, Site
from fednode.tasks.partition import partition_indices

PICTURE = Picture(height=28, width=28, is_drawn=True)
IMAGE_SHAPE = PICTURE.shape
NUM_DIGITS = 10
SAMPLE_DIR = Path(__file__).with_name("samples")
SAMPLE_IMAGES_PER_CLIENT = 2_000        # of the bundled sample, where no partition says which
MAX_EXAMPLES = 5_000_000                # a header that claims more is damaged; at most 4 GB are ever read

MIRRORS_VARIABLE = "FEDNODE_MNIST_MIRRORS"      # addresses, separated by commas; empty: download nothing
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MIRROR_TIMEOUT_S = 20.0

SITE_FILES, PUBLIC_FILES, SAMPLE_FILES = "the site's files", "the public MNIST files", "the bundled sample"
_FIX = "name the folder that holds the four MNIST files (--data FOLDER), or use the bundled sample (--offline-sample)"
_FETCH_AGAIN = "fetch this file again"


@dataclass(frozen=True, kw_only=True)
class MnistSplit:
    """Images and labels of one split, and in words where they come from. The arrays are read-only."""

    images: Bytes                   # (n, 28, 28), 0 = paper, 255 = ink
    labels: Bytes                   # (n,), 0 to 9
    source: str                     # SITE_FILES, PUBLIC_FILES or SAMPLE_FILES

    def take(self, indices: NDArray[np.int64]) -> MnistSplit:
        """The examples at `indices`, in that order."""
        return MnistSplit(images=self.images[indices], labels=self.labels[indices], source=self.source)


def load_whole(site: Site, split: str) -> MnistSplit:
    """The split "train" or "test" that the site has, before any partition.

    Of the bundled sample, without a partition, it is the client's own draw: SAMPLE_IMAGES_PER_CLIENT images
    seeded by the client's name (of the test images, which are no more, all). Raises DataError.
    """
    if split not in SPLITS:
        raise DataError(f"MNIST has no split {split!r}", fix=f"its splits: {', '.join(SPLITS)}")
    found = find_files(site)
    whole = _read_split(found.paths[SPLITS[split].images], found.paths[SPLITS[split].labels], found.source)
    if not site.offline_sample or site.partition is not None:
        return whole
    order = numpy_rng(derive_seed("offline-sample", split, site.client)).permutation(len(whole.labels))
    return whole.take(np.sort(order[:SAMPLE_IMAGES_PER_CLIENT]))


def load_split(
    site: Site, split: str, *, digits: Sequence[int] = tuple(range(NUM_DIGITS)), min_examples: int = 1
) -> MnistSplit:
    """The site's own part of a split: images of `digits`, cut by the site's partition. Raises DataError."""
    whole = load_whole(site, split)
    if len(digits) < NUM_DIGITS:
        whole = whole.take(np.flatnonzero(np.isin(whole.labels, digits)))
    if site.partition is None:
        return whole
    return whole.take(partition_indices(
        whole.labels, len(whole.labels), site.partition, is_test=split == "test", min_examples=min_examples
    ))


def bundled_samples(digits: Sequence[int], num_each: int) -> Samples:
    """The first `num_each` bundled test images of each digit: no model of this sample was trained on them."""
    split = load_whole(Site(client="", offline_sample=True), "test")
    rows = [row for digit in digits for row in np.flatnonzero(split.labels == digit)[:num_each]]
    return Samples(
        pictures=split.images[rows], labels=tuple(str(label) for label in split.labels[rows]),
        source="test images of MNIST, from the sample that comes with fednode",
    )


@dataclass(frozen=True, kw_only=True)
class PublicFile:
    """One of the four official files; another file of the same name is not it."""

    prefix: str                     # "train-images"
    suffix: str                     # "idx3-ubyte"
    md5: str                        # what the mirrors are checked by
    sha256: str                     # what the cache is checked by

    @property
    def name(self) -> str:
        return f"{self.prefix}-{self.suffix}.gz"

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called in the wild: unpacked first, which is read faster."""
        stems = (f"{self.prefix}-{self.suffix}", f"{self.prefix}.{self.suffix}")
        return (*stems, *(f"{stem}.gz" for stem in stems))


@dataclass(frozen=True, kw_only=True)
class SplitFiles:
    images: PublicFile
    labels: PublicFile


SPLITS = {
    "train": SplitFiles(
        images=PublicFile(
            prefix="train-images", suffix="idx3-ubyte", md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
            sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        labels=PublicFile(
            prefix="train-labels", suffix="idx1-ubyte", md5="d53e105ee54ea40749a09fcbcd1e9432",
            sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    ),
    "test": SplitFiles(
        images=PublicFile(
            prefix="t10k-images", suffix="idx3-ubyte", md5="9fb629c4189551a2d022fa330f9573f3",
            sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        labels=PublicFile(
            prefix="t10k-labels", suffix="idx1-ubyte", md5="ec29112dd5afa0611ce80d1b7f02629c",
            sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
}
PUBLIC = tuple(file for files in SPLITS.values() for file in (files.images, files.labels))


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Where the four files lie, and in words what they are."""

    paths: dict[PublicFile, Path]
    source: str


def find_files(site: Site) -> FoundFiles:
    """The site's four files; they are downloaded into the cache where nothing else is there. Raises DataError."""
    if site.offline_sample:
        if paths := _in_one_of([SAMPLE_DIR]):
            return FoundFiles(paths=paths, source=SAMPLE_FILES)
        raise DataError(f"the bundled sample is not in {SAMPLE_DIR}", fix="install fednode again")
    if site.data is not None and (paths := _in_data_folder(site.data)):
        return FoundFiles(paths=paths, source=SITE_FILES)
    return FoundFiles(paths={file: _public(file, site.data) for file in PUBLIC}, source=PUBLIC_FILES)


def cache_dir() -> Path:
    """Where downloaded files are kept for every client node of this user."""
    return user_cache_path("fednode") / "mnist"


def _in_data_folder(data: Path) -> dict[PublicFile, Path]:
    try:
        if not data.is_dir():
            raise DataError(f"there is no data folder {data}", fix=_FIX)
        return _in_one_of([data, data / "mnist", data / "MNIST" / "raw"])
    except OSError as error:
        raise DataError(f"the data folder {data} cannot be read: {error}", fix=_FIX) from None


def _in_one_of(folders: Sequence[Path]) -> dict[PublicFile, Path]:
    """The files in the first folder that has all four; empty where no folder has any. Raises DataError."""
    found = [{file: path for file in PUBLIC if (path := _in_folder(folder, file))} for folder in folders]
    best = max(found, key=len)
    if 0 < len(best) < len(PUBLIC):
        folder = next(iter(best.values())).parent
        missing = ", ".join(file.name for file in PUBLIC if file not in best)
        raise DataError(f"{folder} has only some of the four MNIST files; missing: {missing}", fix=_FIX)
    return best


def _in_folder(folder: Path, file: PublicFile) -> Path | None:
    return next((path for name in file.names if (path := folder / name).is_file()), None)


def _public(file: PublicFile, asked: Path | None) -> Path:
    """The cached copy of an official file, fetched where it is missing or damaged. Raises DataError."""
    path = cache_dir() / file.name
    if path.is_file() and _sha256(path, *_stamp(path)) == file.sha256:
        return path
    problems = []
    for mirror in _mirrors():
        try:
            _fetch(file, mirror, path)
            return path
        except (FednodeError, OSError) as error:
            problems.append(f"{mirror}: {error}")
    places = f"not in {path.parent}" if asked is None else f"not in {asked}, not in {path.parent}"
    answers = "; ".join(problems) or f"{MIRRORS_VARIABLE} names no mirror"
    raise DataError(f"there is no {file.name}: {places}, and no mirror gave it ({answers})", fix=_FIX)


def _mirrors() -> list[str]:
    named = os.environ.get(MIRRORS_VARIABLE)
    mirrors = MIRRORS if named is None else named.split(",")
    return [mirror.strip().rstrip("/") for mirror in mirrors if mirror.strip()]


def _fetch(file: PublicFile, mirror: str, path: Path) -> None:
    """Download into a folder of this process's own, then rename: whoever reads `path` sees all of it or nothing."""
    # Here, because a site that has its files loads no network code.
    from fednode.wire.http import fetch_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=path.parent) as folder:
        fresh = Path(folder) / file.name
        fetch_file(f"{mirror}/{file.name}", fresh, expect_md5=file.md5, timeout_s=MIRROR_TIMEOUT_S)
        fresh.replace(path)


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does: it says whether what was read once still holds."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _sha256(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_split(images_path: Path, labels_path: Path, source: str) -> MnistSplit:
    images = _read_once(images_path, *_stamp(images_path), IMAGE_SHAPE)
    labels = _read_once(labels_path, *_stamp(labels_path), ())
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images):,} images, {labels_path} {len(labels):,} labels",
            fix="put the two files of the same data set there",
        )
    if (worst := int(labels.max())) >= NUM_DIGITS:
        raise DataError(
            f"{labels_path}: label {int(np.argmax(labels))} is {worst}, and digits are 0 to 9", fix=_FETCH_AGAIN
        )
    return MnistSplit(images=images, labels=labels, source=source)


@lru_cache(maxsize=16)
def _read_once(path: Path, modified_ns: int, size: int, item_shape: tuple[int, ...]) -> Bytes:
    return read_idx(path, item_shape)


def read_idx(path: Path, item_shape: tuple[int, ...]) -> Bytes:
    """The unsigned bytes of an IDX file, raw or gzipped: (n, *item_shape), n >= 1, read-only.

    Raises DataError naming the file and the defect.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not is_gzip:
                return _read_stream(raw, path, item_shape)
            with gzip.open(raw) as unpacked:
                return _read_stream(unpacked, path, item_shape)
    except (EOFError, zlib.error, OSError) as error:        # BadGzipFile is an OSError
        raise DataError(f"{path} cannot be read: {error}", fix=_FETCH_AGAIN) from None


def _read_stream(stream: IO[bytes] | gzip.GzipFile, path: Path, item_shape: tuple[int, ...]) -> Bytes:
    """The header is four bytes (0, 0, type 8 = unsigned byte, dimensions) and one big-endian uint32 a dimension."""
    num_dims = 1 + len(item_shape)
    header = stream.read(4 + 4 * num_dims)
    if header[:4] != bytes([0, 0, 8, num_dims]):
        wanted = f"0000080{num_dims} ({'images' if item_shape else 'labels'})"
        raise DataError(f"{path} starts with {header[:4].hex() or 'nothing'}, not with {wanted}", fix=_FETCH_AGAIN)
    if len(header) < 4 + 4 * num_dims:
        raise DataError(f"{path} ends within its header", fix=_FETCH_AGAIN)
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if shape[1:] != item_shape or not 1 <= shape[0] <= MAX_EXAMPLES:
        raise DataError(f"{path} says that its shape is {shape}, not {('n', *item_shape)}", fix=_FETCH_AGAIN)
    num_bytes = math.prod(shape)
    body = stream.read(num_bytes + 1)           # one more than there should be, so that a longer file is seen
    if len(body) != num_bytes:
        holds = f"{len(body):,}" if len(body) < num_bytes else "more"
        raise DataError(f"{path} should hold {num_bytes:,} bytes after its header and holds {holds}", fix=_FETCH_AGAIN)
    return np.frombuffer(body, np.uint8).reshape(shape)
