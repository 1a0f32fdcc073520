"""Any JPEG or PNG as a square of grey bytes: what a folder really holds, as a model wants it.

Content decides, not the name: greyscale, colour, CMYK, palettes, transparency, one bit, 12 or 16 bits, turned by
their EXIF. Whatever else a file may be (broken, cut off, a pipe, a bomb) is a `NotAPicture` with its reason. The
files are read whole, so that their content has a digest; `picture_cache.py` remembers the result.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fednode.tasks.base import Bytes

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 100_000_000            # about ten times the largest radiograph; a gigapixel would take gigabytes
FORMATS = ("JPEG", "PNG")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
DEPTHS = (8, 10, 12, 14, 16)        # bits that scanners use

Grey: TypeAlias = NDArray[np.float32]


class NotAPicture(Exception):
    """A file that cannot be used; the text is the reason, fit for a report."""


def read_file(path: Path) -> bytes:
    """All of a regular file. Raises NotAPicture: no pipe, socket or device is waited for."""
    try:
        # Not to wait for whoever may write into a pipe; of a regular file the flag changes nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotAPicture("a link to a file that is not there" if path.is_symlink() else "is gone") from None
    except OSError as error:
        raise NotAPicture(f"cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        return _content(file, os.fstat(descriptor))


def _content(file: BinaryIO, status: os.stat_result) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        raise NotAPicture("not a regular file")
    if status.st_size == 0:
        raise NotAPicture("is empty")
    if status.st_size > MAX_FILE_BYTES:
        raise NotAPicture(f"{status.st_size:,} bytes are too many; at most {MAX_FILE_BYTES:,} are read")
    try:
        return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise NotAPicture(f"cannot be read: {error.strerror}") from None


def decode(content: bytes, size: int) -> Bytes:
    """A file's picture as (size, size) grey bytes, stretched to a square. Raises NotAPicture."""
    if not content.startswith(MAGIC):
        raise NotAPicture("its content is neither JPEG nor PNG")
    try:
        with warnings.catch_warnings():         # of sizes that Pillow finds suspicious: MAX_PIXELS decides
            warnings.simplefilter("ignore")
            return _square(_opened(content, size), size)
    except NotAPicture:
        raise
    except Image.DecompressionBombError:
        raise NotAPicture(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:      # a stranger's file: decoders raise all kinds of things
        raise NotAPicture(f"broken: {str(error) or type(error).__name__}") from None


def _opened(content: bytes, size: int) -> Image.Image:
    picture = Image.open(io.BytesIO(content), formats=FORMATS)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise NotAPicture(f"{width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are decoded")
    picture.draft("L", (2 * size, 2 * size))    # a JPEG need not be decoded larger, nor in colour
    picture.load()
    return ImageOps.exif_transpose(picture)


def _square(picture: Image.Image, size: int) -> Bytes:
    grey = _grey(picture).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
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
