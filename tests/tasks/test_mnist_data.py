"""The MNIST files: found where people put them, read by our own reader, refused by name when damaged."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from fednode.errors import DataError
from fednode.tasks.base import Partition, Site
from fednode.tasks.mnist_data import SAMPLE_DIR, load_split, load_whole, read_idx

DATA = Path(os.environ.get("FEDNODE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason=f"no full MNIST in {DATA} (FEDNODE_TEST_DATA)")
BUILD_SCRIPT = Path(__file__).parents[2] / "scripts" / "build_mnist_sample.py"

TRAIN_LABELS, TEST_LABELS = [3, 1, 4, 1, 5, 9], [2, 6]
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def images_of(labels: list[int]) -> np.ndarray:
    """Each image is as grey as its label says."""
    return np.repeat(np.asarray(labels, np.uint8), 784).reshape(-1, 28, 28)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def contents() -> dict[str, bytes]:
    arrays = (images_of(TRAIN_LABELS), np.asarray(TRAIN_LABELS), images_of(TEST_LABELS), np.asarray(TEST_LABELS))
    return {name: idx(array) for name, array in zip(FILES, arrays, strict=True)}


def fill(folder: Path, *, is_packed: bool = False, dot: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents().items():
        name = name.replace("-idx", ".idx") if dot else name
        path = folder / f"{name}.gz" if is_packed else folder / name
        path.write_bytes(gzip.compress(content) if is_packed else content)
    return folder


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no mirror: what a test finds, it has put there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDNODE_MNIST_MIRRORS", "")


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("dot", [True, False])
def test_files_are_found_where_people_put_them(tmp_path: Path, below: str, is_packed: bool, dot: bool) -> None:
    fill(tmp_path / "data" / below, is_packed=is_packed, dot=dot)
    site = Site(client="a", data=tmp_path / "data")
    train, test = load_whole(site, "train"), load_whole(site, "test")
    assert (train.labels.tolist(), test.labels.tolist()) == (TRAIN_LABELS, TEST_LABELS)
    assert train.images.shape == (6, 28, 28) and train.images[:, 9, 9].tolist() == TRAIN_LABELS
    assert train.source == "the site's files"


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    site = Site(client="a", data=fill(tmp_path / "data"))
    load_whole(site, "test")
    (tmp_path / "data" / FILES[3]).write_bytes(idx(np.asarray([7, 8])))
    os.utime(tmp_path / "data" / FILES[3], ns=(1, 1))
    assert load_whole(site, "test").labels.tolist() == [7, 8]


def test_what_was_read_once_is_shared_and_cannot_be_changed(tmp_path: Path) -> None:
    site = Site(client="a", data=fill(tmp_path / "data"))
    assert load_whole(site, "train").images is load_whole(site, "train").images
    with pytest.raises(ValueError, match="read-only"):
        load_whole(site, "train").images[0, 0, 0] = 1


IMAGES_NAME, LABELS_NAME = FILES[0], FILES[1]
GOOD_IMAGES, GOOD_LABELS = contents()[IMAGES_NAME], contents()[LABELS_NAME]
PACKED = gzip.compress(GOOD_IMAGES, mtime=0)         # test ids must be the same in every process


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES_NAME, b"", "starts with nothing"),
        (IMAGES_NAME, GOOD_IMAGES[:9], "ends within its header"),
        (IMAGES_NAME, b"\x89PNG" + GOOD_IMAGES[4:], "starts with 89504e47"),
        (IMAGES_NAME, GOOD_LABELS, r"starts with 00000801, not with 00000803 \(images\)"),
        (LABELS_NAME, GOOD_IMAGES, r"starts with 00000803, not with 00000801 \(labels\)"),
        (IMAGES_NAME, GOOD_IMAGES[:-1], "should hold 4,704 bytes after its header and holds 4,703"),
        (IMAGES_NAME, GOOD_IMAGES + b"\0", "should hold 4,704 bytes after its header and holds more"),
        (IMAGES_NAME, PACKED[:-4], "cannot be read: Compressed file ended"),
        (IMAGES_NAME, PACKED[: len(PACKED) // 2], "cannot be read: Compressed file ended"),
        (IMAGES_NAME, PACKED[:-5] + b"\xff" * 5, "cannot be read"),
        (IMAGES_NAME, PACKED[:20] + b"\xff" * 9 + PACKED[29:], "cannot be read"),
        (IMAGES_NAME, gzip.compress(GOOD_IMAGES[:-784], mtime=0), "holds 3,920"),
        (IMAGES_NAME, idx(np.zeros((6, 32, 32))), r"\(6, 32, 32\), not \('n', 28, 28\)"),
        (IMAGES_NAME, GOOD_IMAGES[:4] + b"\xff" * 4 + GOOD_IMAGES[8:], r"its shape is \(4294967295, 28, 28\)"),
        (LABELS_NAME, idx(np.zeros(0)), r"its shape is \(0,\)"),
        (LABELS_NAME, idx(np.asarray([3, 1, 4, 10, 5, 9])), "label 3 is 10, and digits are 0 to 9"),
        (LABELS_NAME, idx(np.asarray([3, 1, 4])), "train-images-idx3-ubyte holds 6 images, .*labels.* 3 labels"),
    ],
)
def test_a_damaged_file_is_named_and_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (fill(tmp_path / "data") / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_whole(Site(client="a", data=tmp_path / "data"), "train")
    assert name in caught.value.message and caught.value.fix


def test_a_folder_that_has_only_some_of_the_files_is_refused_by_what_is_missing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data" / "mnist")
    (folder / FILES[2]).unlink()
    with pytest.raises(DataError, match=r"only some of the four MNIST files; missing: t10k-images-idx3-ubyte\.gz$"):
        load_whole(Site(client="a", data=tmp_path / "data"), "train")


def test_the_first_folder_that_is_complete_counts(tmp_path: Path) -> None:
    fill(tmp_path / "data" / "MNIST" / "raw")
    (tmp_path / "data" / FILES[1]).write_bytes(idx(np.asarray([0])))
    assert load_whole(Site(client="a", data=tmp_path / "data"), "train").labels.tolist() == TRAIN_LABELS


def test_a_data_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "mistyped", tmp_path / "file"):
        with pytest.raises(DataError, match=f"there is no data folder {wrong}"):
            load_whole(Site(client="a", data=wrong), "train")


def test_no_data_at_all_is_told_with_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in (None, tmp_path / "empty"):
        with pytest.raises(DataError, match="FEDNODE_MNIST_MIRRORS names no mirror") as caught:
            load_whole(Site(client="a", data=data), "train")
        assert str(tmp_path / "cache") in caught.value.message
        assert data is None or str(data) in caught.value.message
        assert "--data" in caught.value.fix and "--offline-sample" in caught.value.fix


def test_an_unknown_split_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'val'") as caught:
        load_whole(Site(client="a", data=fill(tmp_path)), "val")
    assert caught.value.fix == "its splits: train, test"


def test_a_part_is_cut_by_the_sites_partition_and_the_digits(tmp_path: Path) -> None:
    data = fill(tmp_path)
    sites = [Site(client="a", data=data, partition=Partition(index=k, count=2)) for k in (1, 2)]
    parts = [load_split(site, "train", digits=(1, 4)) for site in sites]
    assert sorted(label for part in parts for label in part.labels.tolist()) == [1, 1, 4]
    assert all(np.array_equal(part.images[:, 0, 0], part.labels) for part in parts)      # images keep their labels
    assert load_split(Site(client="a", data=data), "train").labels.tolist() == TRAIN_LABELS


# --- the bundled sample -------------------------------------------------------------------------------


def test_the_sample_is_used_only_when_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_whole(Site(client="a"), "train")
    assert load_whole(Site(client="a", offline_sample=True), "train").source == "the bundled sample"


def test_the_sample_holds_every_digit_equally_often() -> None:
    whole = Site(client="a", offline_sample=True, partition=Partition(index=1, count=1))
    for split, per_digit in (("train", 1_000), ("test", 200)):
        assert np.bincount(load_whole(whole, split).labels).tolist() == [per_digit] * 10


def test_without_a_partition_a_client_has_2000_images_of_its_own() -> None:
    def images(client: str, split: str = "train") -> bytes:
        part = load_split(Site(client=client, offline_sample=True), split)
        assert len(part.labels) == 2_000
        return part.images.tobytes()

    assert images("hospital-a") == images("hospital-a")
    assert images("hospital-a") != images("hospital-b")
    assert images("hospital-a", "test") == images("hospital-b", "test")     # all there are


def test_with_a_partition_the_whole_sample_is_cut() -> None:
    sites = [Site(client="x", offline_sample=True, partition=Partition(index=k, count=4)) for k in (1, 2, 3, 4)]
    assert [len(load_split(site, "train").labels) for site in sites] == [2_500] * 4
    assert [len(load_split(site, "test").labels) for site in sites] == [500] * 4


def test_the_sample_comes_with_its_notice_and_without_a_time() -> None:
    notice = (SAMPLE_DIR / "NOTICE").read_text()
    assert "CC BY-SA 3.0" in notice and "mnist-data" in notice and "LeCun" in notice
    for name in FILES:
        head = (SAMPLE_DIR / f"{name}.gz").read_bytes()[:10]
        assert head[3:8] == bytes(5), f"{name}: no flags (so no name) and a time of 0"


def run_script(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BUILD_SCRIPT), str(package), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_mnist
def test_the_script_rebuilds_the_sample_byte_for_byte(tmp_path: Path) -> None:
    for name in FILES:      # the npm package holds the official files, unpacked
        (tmp_path / name).write_bytes(gzip.decompress((DATA / "mnist" / f"{name}.gz").read_bytes()))
    (tmp_path / "out").mkdir()
    assert run_script(tmp_path, "--target", str(tmp_path / "out")).returncode == 0
    for name in FILES:
        built, bundled = ((folder / f"{name}.gz").read_bytes() for folder in (tmp_path / "out", SAMPLE_DIR))
        assert gzip.decompress(built) == gzip.decompress(bundled)
        assert built == bundled or "ng" in zlib.ZLIB_RUNTIME_VERSION     # zlib-ng packs the same content differently


@needs_mnist
def test_the_script_refuses_a_package_that_is_not_the_official_one(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(b"not MNIST")
    wrong = hashlib.md5(b"not MNIST", usedforsecurity=False).hexdigest()
    told = run_script(tmp_path)
    assert told.returncode == 1 and f"train-images-idx3-ubyte has md5 {wrong}, wanted 6bbc9ace" in told.stderr


@needs_mnist
def test_the_full_mnist_is_read_exactly() -> None:
    images = read_idx(DATA / "mnist" / "train-images-idx3-ubyte.gz", (28, 28))
    train, test = (load_whole(Site(client="a", data=DATA), split).labels for split in ("train", "test"))
    assert np.bincount(train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (round(float(images.mean()) / 255, 4), round(float(images.std()) / 255, 4)) == (0.1307, 0.3081)
