"""Any JPEG or PNG becomes a square of grey bytes; whatever else a file is has its reason."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fednode.tasks import pictures
from fednode.tasks.pictures import NotAPicture, decode, read_file

SIZE = 32
# A slope to the right: told from its mirror image and from its turns.
SLOPE = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))


def encoded(picture: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


GREY = Image.fromarray(SLOPE)
CALM = decode(encoded(GREY), SIZE)
SIXTEEN = SLOPE.astype(np.uint16)


def transparent(mode: str) -> Image.Image:
    picture = GREY.convert(mode)
    picture.putalpha(255)
    return picture


@pytest.mark.parametrize("content", [
    pytest.param(encoded(GREY.convert("RGB")), id="rgb-png"),
    pytest.param(encoded(GREY, "JPEG", quality=98), id="grey-jpeg"),
    pytest.param(encoded(GREY.convert("RGB"), "JPEG", quality=98), id="rgb-jpeg"),
    pytest.param(encoded(GREY.convert("RGB"), "JPEG", quality=98, progressive=True), id="progressive-jpeg"),
    pytest.param(encoded(GREY.convert("CMYK"), "JPEG", quality=98), id="cmyk-jpeg"),
    pytest.param(encoded(transparent("RGBA")), id="rgba"),
    pytest.param(encoded(transparent("LA")), id="grey-alpha"),
    pytest.param(encoded(GREY.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)), id="palette"),
    pytest.param(encoded(Image.fromarray(SIXTEEN * 257)), id="16-bits"),
    pytest.param(encoded(Image.fromarray(SIXTEEN * 16)), id="12-bits-in-16"),
    pytest.param(encoded(Image.fromarray(SIXTEEN)), id="8-bits-in-16"),
])
def test_every_kind_of_file_shows_the_same_picture(content: bytes) -> None:
    square = decode(content, SIZE)
    assert square.shape == (SIZE, SIZE)
    assert square.dtype == np.uint8
    assert np.abs(square.astype(int) - CALM).max() <= 4


def test_one_bit_is_black_and_white() -> None:
    square = decode(encoded(GREY.point(lambda value: 255 * (value > 127)).convert("1")), SIZE)
    assert (square[:, :12] == 0).all() and (square[:, -12:] == 255).all()


def test_what_is_transparent_is_black_as_around_a_body() -> None:
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    assert decode(encoded(picture), SIZE).max() == 0


def test_the_turn_that_exif_tells_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3                # upside down
    turned = decode(encoded(GREY.rotate(180), "JPEG", quality=98, exif=exif), SIZE)
    assert np.abs(turned.astype(int) - CALM).max() <= 4


def test_a_broken_exif_takes_no_picture_away() -> None:
    turned_by_255 = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\xff\0\0\0\0\0\0"
    broken = encoded(GREY, "JPEG", quality=98, exif=turned_by_255)
    assert np.abs(decode(broken, SIZE).astype(int) - CALM).max() <= 4


def test_a_large_jpeg_is_decoded_small_and_shows_the_same() -> None:
    large = GREY.resize((1600, 1200), Image.Resampling.BICUBIC)
    assert np.abs(decode(encoded(large, "JPEG", quality=98), SIZE).astype(int) - CALM).max() <= 4


@pytest.mark.parametrize(("content", "reason"), [
    (b"not an image", "neither JPEG nor PNG"),
    (encoded(GREY.convert("P"), "GIF"), "neither JPEG nor PNG"),
    (encoded(GREY, "JPEG")[:300], "broken"),
    (encoded(GREY)[:60], "broken"),
    (encoded(GREY)[:-30], "broken"),
    (encoded(GREY)[:-12], "cut off"),
    (encoded(GREY, "JPEG")[:-2], "broken"),
    (b"\xff\xd8\xff" + b"\0" * 200, "broken"),
    (b"\x89PNG\r\n\x1a\n" + os.urandom(200), "broken"),
])
def test_what_cannot_be_decoded_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(NotAPicture, match=reason):
        decode(content, SIZE)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)))
    assert len(bomb) < 200_000
    with pytest.raises(NotAPicture, match="pixels"):
        decode(bomb, SIZE)


def test_a_pipe_a_socket_and_a_device_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpeg")
    with pytest.raises(NotAPicture, match="not a regular file"):
        read_file(tmp_path / "pipe.jpeg")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpeg")
        with pytest.raises(NotAPicture, match="not a regular file"):
            read_file(Path("socket.jpeg"))
    with pytest.raises(NotAPicture, match="not a regular file"):
        read_file(Path("/dev/null"))


def test_a_file_that_is_not_there_empty_or_too_large_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone.jpeg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round.jpeg").symlink_to(tmp_path / "round.jpeg")
    (tmp_path / "empty.jpeg").touch()
    (tmp_path / "large.jpeg").write_bytes(b"x" * 100)
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 99)
    reasons = {"gone": "link to a file", "round": "cannot be opened", "empty": "empty", "large": "too many"}
    for name, reason in reasons.items():
        with pytest.raises(NotAPicture, match=reason):
            read_file(tmp_path / f"{name}.jpeg")
