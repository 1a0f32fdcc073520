"""Folders of chest X-rays as tests want them: small pictures that differ from one another, one of them or all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fednode.tasks.chest_xray_files import CLASSES


def draw(path: Path, number: int, kind: str = "") -> Path:
    """A picture like no other number's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", (24, 24), 40)
    for bit in range(12):
        if number >> bit & 1:
            picture.paste(200, (2 * bit, 0, 2 * bit + 2, 24))
    picture.save(path, kind or None, **({"quality": 95} if path.suffix == ".jpeg" and kind != "PNG" else {}))
    return path


def fill(
    root: Path, splits: Sequence[str] = ("train", "test"), classes: Sequence[str] = CLASSES, each: int = 3
) -> Path:
    """A sound folder: `each` images of as many patients in every class of every split."""
    number = 1
    for split in splits:
        for name in classes:
            for _ in range(each):
                stem = f"IM-{number:04}-0001" if name.upper() == "NORMAL" else f"person{number}_virus_{number}"
                draw(root / split / name / f"{stem}.jpeg", number)
                number += 1
    return root


def messy(root: Path) -> Path:
    """A folder that can be trained on, with two files that cannot be used, and a leak."""
    fill(root / "chest_xray", each=6)
    folder = root / "chest_xray" / "train" / "NORMAL"
    (folder / "broken.jpeg").write_bytes(b"no image")
    (folder / ".DS_Store").write_bytes(b"junk")
    os.mkfifo(folder / "pipe.png")
    leaked = next((root / "chest_xray" / "train" / "PNEUMONIA").iterdir())
    (root / "chest_xray" / "test" / "PNEUMONIA" / "leak.jpeg").write_bytes(leaked.read_bytes())
    return root
