"""A task of somebody's own, for tests: is a picture bright? In numpy, installed, with names that nothing of ours knows.

It reads files, explains itself, brings samples, a notice and a threshold. Every client has the same sixteen examples.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

SHADE = '''
from dataclasses import dataclass
import numpy as np
from fednode import Histogram, Metric, Metrics, Params, Picture, Samples, Task, TrainConfig, Update
from fednode.tasks.pictures import decode

MARKS = np.arange(16) / 16 + 1 / 32             # one in each sixteenth of 0 to 1
TRUTH = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1])

@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    side: int = 4

class Shade(Task):
    name, version, Config, classes = "shade", 1, Config, ("dark", "bright")
    notice = "Not a light meter."
    measures = (
        Metric(name="edge", combine="threshold", of="val_marks", split="val", goal="none"),
        Metric(name="found", combine="sensitivity", of="marks", at="edge"),
        Metric(name="spared", combine="specificity", of="marks", at="edge"),
        Metric(name="curve", combine="roc", of="marks", goal="none"),
    )

    def __init__(self, config=None):
        super().__init__(config)
        self.picture = Picture(height=self.config.side, width=self.config.side)

    def initial_params(self, seed):
        return Params({"gain": np.ones(1, np.float32)})

    def train(self, params, visit):
        return Update(client=visit.site.client, params=Params({"gain": params["gain"] * 1}), num_examples=16)

    def evaluate(self, params, visit):
        marks = Histogram.of_scores(MARKS, TRUTH, 16)
        return Metrics(values={"marks": marks, "val_marks": marks}, num_examples={"test": 16, "val": 16})

    def predict(self, params, pictures):
        bright = np.clip(pictures.mean(axis=(1, 2)) / 255 * params["gain"][0], 0, 1)
        return np.stack([1 - bright, bright], axis=1)

    def picture_from_file(self, content):
        return decode(content, self.config.side)

    def explain(self, params, pictures, labels):
        bright = pictures / 255
        return np.where(labels[:, None, None] == 1, bright, 1 - bright)

    def samples(self):
        pictures = np.stack([np.full(self.picture.shape, grey, np.uint8) for grey in (20, 240)])
        return Samples(pictures=pictures, labels=self.classes, source="plain greys")
'''
# The bright ones have the marks 6 9 10 12 13 14 15: from 9 on only 6 of 7 are found, which is less than 0.9. So the
# threshold is the lower edge of mark 6, where 7 of 7 bright are found and 6 of 9 dark are spared.
EDGE = 6 / 16


def install(folder: Path) -> Path:
    """Make `folder` a place from which Python imports an installed task `shade`."""
    (folder / "shade-1.dist-info").mkdir(parents=True)
    (folder / "shade_task.py").write_text(SHADE)
    (folder / "shade-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shade\nVersion: 1\n")
    (folder / "shade-1.dist-info" / "entry_points.txt").write_text("[fednode.tasks]\nshade = shade_task:Shade\n")
    return folder


def png(grey: int | np.ndarray, side: int = 8, *, mode: str = "L") -> bytes:
    """A picture's file: plain grey, or this array."""
    pixels = np.full((side, side), grey, np.uint8) if isinstance(grey, int) else grey
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def bomb(side: int = 12_000) -> bytes:
    """A PNG of a few kilobytes that would be 144 million pixels."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()
