"""A picture is decoded once: known by its file, by its content, and checked before it is used again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from structlog.testing import capture_logs

from fednode.tasks import picture_cache
from fednode.tasks.picture_cache import RECORD, Decoded, Found, PictureCache, Skipped
from fednode.tasks.pictures import decode

SIZE = 16


def picture(path: Path, grey: int) -> Path:
    Image.new("L", (20, 20), grey).save(path, "PNG")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "xrays").mkdir()
    return tmp_path / "xrays"


@pytest.fixture
def cache(tmp_path: Path) -> PictureCache:
    return PictureCache(SIZE, tmp_path / "cache")


def greys(decoded: Decoded) -> list[int]:
    return [int(decoded.squares[one.row].mean()) for one in decoded.files if isinstance(one, Found)]


def never(content: bytes, size: int) -> None:
    raise AssertionError("decoded again")


def test_pictures_are_found_in_the_order_that_was_asked_for_and_bad_ones_are_skipped(cache, folder) -> None:
    paths = [picture(folder / "a.png", 10), folder / "gone.png", picture(folder / "b.png", 20)]
    found = cache.find(paths)
    assert [type(one) for one in found.files] == [Found, Skipped, Found]
    assert greys(found) == [10, 20]
    assert found.squares.shape == (2, SIZE, SIZE)
    assert isinstance(found.squares, np.memmap)


def test_a_file_that_did_not_change_is_not_even_read_again(cache, folder, monkeypatch) -> None:
    paths = [picture(folder / "a.png", 10), picture(folder / "b.png", 20)]
    first = cache.find(paths)
    monkeypatch.setattr(picture_cache, "read_file", never)
    assert PictureCache(SIZE, cache._folder).find(paths).files == first.files


def test_a_copy_elsewhere_is_read_and_not_decoded(cache, folder, monkeypatch) -> None:
    path = picture(folder / "a.png", 10)
    first = cache.find([path])
    shutil.copy(path, folder / "copy.png")
    monkeypatch.setattr(picture_cache, "decode", never)
    assert greys(cache.find([folder / "copy.png"])) == greys(first)
    assert len(cache.find([]).squares) == 1


def test_a_file_with_new_content_is_decoded_again(cache, folder) -> None:
    path = picture(folder / "a.png", 10)
    cache.find([path])
    assert greys(cache.find([picture(path, 30)])) == [30]


def test_what_a_crash_left_half_written_or_a_loss_of_power_left_empty_is_decoded_anew(cache, folder) -> None:
    paths = [picture(folder / f"{grey}.png", grey) for grey in (10, 20, 30)]
    cache.find(paths)
    with (cache._folder / f"{SIZE}.pixels").open("r+b") as pixels:
        pixels.seek(SIZE * SIZE)
        pixels.write(bytes(SIZE * SIZE))                # the second square never reached the disk
        pixels.truncate(3 * SIZE * SIZE - 7)            # and the third one not whole
    with (cache._folder / f"{SIZE}.index").open("ab") as index:
        index.write(b"half a record")
    assert greys(cache.find(paths)) == [10, 20, 30]
    assert (cache._folder / f"{SIZE}.index").stat().st_size % RECORD.itemsize == 0


def test_a_record_of_a_square_that_was_never_written_is_not_believed(cache, folder) -> None:
    paths = [picture(folder / "a.png", 10), picture(folder / "b.png", 20)]
    cache.find(paths)
    os.truncate(cache._folder / f"{SIZE}.pixels", SIZE * SIZE)
    assert greys(cache.find(paths)) == [10, 20]


def test_two_files_with_the_same_content_share_a_square(cache, folder) -> None:
    found = cache.find([picture(folder / "a.png", 10), picture(folder / "b.png", 10)])
    assert greys(found) == [10, 10]
    assert len(cache.find([]).squares) == 1


def test_processes_that_add_at_the_same_time_do_not_meet(cache, folder) -> None:
    paths = [picture(folder / f"{grey}.png", grey) for grey in range(0, 200, 2)]
    script = (
        "import sys; from pathlib import Path; from fednode.tasks.picture_cache import PictureCache;"
        f"PictureCache({SIZE}, Path(sys.argv[1])).find(sorted(Path(sys.argv[2]).iterdir()))"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(cache._folder), str(folder)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert greys(cache.find(paths)) == list(range(0, 200, 2))
    assert len(cache.find([]).squares) == len(paths)


def test_where_nothing_can_be_kept_pictures_are_held_in_memory_and_that_is_said(tmp_path, folder) -> None:
    (tmp_path / "cache").touch()
    paths = [picture(folder / "a.png", 10), folder / "gone.png", picture(folder / "b.png", 20)]
    with capture_logs() as logged:
        found = PictureCache(SIZE, tmp_path / "cache").find([*paths, paths[0]])
    assert greys(found) == [10, 20, 10]
    assert len(found.squares) == 2
    assert [line["event"] for line in logged] == ["pictures.not_kept"]
    assert "XDG_CACHE_HOME" in logged[0]["fix"]


def test_a_cache_that_is_deleted_meanwhile_takes_no_picture_away(cache, folder) -> None:
    first = cache.find([picture(folder / "a.png", 10)])
    shutil.rmtree(cache._folder)
    cache.find([picture(folder / "b.png", 20)])         # another process: the same row, another picture
    assert greys(first) == [10]


def test_a_file_that_is_written_while_it_is_read_is_looked_at_again(cache, folder, monkeypatch) -> None:
    path = picture(folder / "a.png", 10)

    def and_then_written(content: bytes, size: int) -> Any:
        picture(path, 30)
        return decode(content, size)

    monkeypatch.setattr(picture_cache, "decode", and_then_written)
    assert greys(cache.find([path])) == [10]
    monkeypatch.undo()
    assert greys(cache.find([path])) == [30]
