"""Any JPEG or PNG as a square of grey bytes: what a folder really holds, as a model wants it.

Content decides, not the name: greyscale, colour, CMYK, palettes, transparency, one bit, 12 or 16 bits, turned by
their EXIF. Whatever else a file may be (broken, cut off, a pipe, a bomb) is a `NotAPicture` with its reason. The
files are read whole, so that their content has a digest; `picture_cache.py` remembers the result.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile

from fednode.core.data_report import printable
from fednode.tasks.base import Bytes

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 100_000_000            # about ten times the largest radiograph; a gigapixel would take gigabytes
DEPTHS = (8, 10, 12, 14, 16)        # bits that scanners use

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND"
# Not `Image.open`, which warns of large pictures: warnings cannot be turned off in one thread alone.
OPENERS: Mapping[bytes, Callable[[BinaryIO], ImageFile.ImageFile]] = {JPEG: jpeg_factory, PNG: PngImageFile}
OTHER_KINDS = (                     # place and bytes by which pictures of other kinds are known
    (0, b"GIF8", "GIF"), (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (8, b"WEBP", "WebP"), (128, b"DICM", "DICOM"),
    (4, b"ftypavif", "AVIF"), (4, b"ftyphei", "HEIC"), (4, b"ftypmif1", "HEIC"), (4, b"jP  \r\n", "JPEG 2000"),
)
NUM_FIRST = 132                     # bytes that say what a file is

Grey: TypeAlias = NDArray[np.float32]


class NotAPicture(Exception):
    """A file that cannot be used; the text is the reason, fit for a report."""


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """All of a file, and what the system said of it before the first byte was read."""

    content: bytes
    status: os.stat_result


def read_file(path: Path) -> FileContent:
    """All of a regular file. Raises NotAPicture: no pipe, socket or device is waited for, or even opened."""
    with _opened(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            raise NotAPicture("is empty")
        if status.st_size > MAX_FILE_BYTES:
            raise NotAPicture(f"{status.st_size:,} bytes are too many; at most {MAX_FILE_BYTES:,} are read")
        return FileContent(content=file.read(MAX_FILE_BYTES), status=status)


def is_picture(path: Path) -> bool:
    """Whether the file begins as pictures do, those of kinds that are not read among them."""
    try:
        with _opened(path) as file:
            return bool(_kind(file.read(NUM_FIRST)))
    except NotAPicture:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        _require_regular(path.stat())
        # It may become a pipe before it is opened: not to wait for whoever may write into that.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotAPicture("a link to a file that is not there" if path.is_symlink() else "is gone") from None
    except OSError as error:
        raise NotAPicture(f"cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor))
        try:
            yield file
        except OSError as error:
            raise NotAPicture(f"cannot be read: {error.strerror}") from None


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAPicture("not a regular file")


def _kind(content: bytes) -> str:
    """What the file is by its first bytes; empty where they are no picture's."""
    if content.startswith(tuple(OPENERS)):
        return "JPEG or PNG"
    return next((kind for place, magic, kind in OTHER_KINDS if content.startswith(magic, place)), "")


def decode(content: bytes, size: int) -> Bytes:
    """A file's picture as (size, size) grey bytes, stretched to a square. Raises NotAPicture."""
    opener = next((OPENERS[magic] for magic in OPENERS if content.startswith(magic)), None)
    if opener is None:
        kind = _kind(content[:NUM_FIRST])
        raise NotAPicture(f"its content is neither JPEG nor PNG{kind and f', but {kind}'}")
    if content.startswith(PNG) and PNG_END not in content:      # of a JPEG the decoder finds it out
        raise NotAPicture("broken: cut off before its end")
    try:
        return _square(_loaded(opener(io.BytesIO(content)), size), size)
    except NotAPicture:
        raise
    except Exception as error:      # a stranger's file: decoders raise all kinds of things
        raise NotAPicture(f"broken: {printable(str(error)) or type(error).__name__}") from None


def _loaded(picture: ImageFile.ImageFile, size: int) -> Image.Image:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise NotAPicture(f"{width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are decoded")
    picture.draft("L", (2 * size, 2 * size))    # a JPEG need not be decoded larger, nor in colour
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:               # EXIF is as often broken as not: the picture is there without it
        return picture


def _square(picture: Image.Image, size: int) -> Bytes:
    grey = _grey(picture).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    if grey.mode == "L":
        return np.array(grey)
    return np.rint(np.clip(np.asarray(grey, np.float32), 0, 255)).astype(np.uint8)


def _grey(picture: Image.Image) -> Image.Image:
    """In mode L, or in F where the file has more than 8 bits a pixel."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(_to_eight_bits(np.asarray(picture, np.float32)))
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        black = Image.new("RGBA", seen.size, (0, 0, 0, 255))       # what is around a body in a radiograph
        return Image.alpha_composite(black, seen).convert("L")
    return picture.convert("RGB").convert("L") if picture.mode not in ("1", "L") else picture.convert("L")


def _to_eight_bits(values: Grey) -> Grey:
    """Scaled by the fewest bits that hold the brightest pixel: 12 bits often come in files of 16."""
    brightest = float(values.max(initial=0.0))
    depth = next((bits for bits in DEPTHS if brightest < 2**bits), DEPTHS[-1])
    return (values * np.float32(255 / (2**depth - 1))).astype(np.float32)
