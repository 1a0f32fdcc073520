"""Heat maps: Grad-CAM worked out by hand, and a chest X-ray read from a file as training reads it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fednode.core.metrics import Metric
from fednode.core.params import Params
from fednode.errors import DataError, TaskFailed
from fednode.tasks.base import Picture, Site
from fednode.tasks.chest_xray import ChestXray, Config
from fednode.tasks.grad_cam import heat_maps
from fednode.tasks.mnist_3v7 import Mnist3v7
from fednode.tasks.predictions import explain, picture_from_file, predict, threshold_of, verdict

SPOT, WIDE = (2, 5), (4, 1)             # a pixel of 1, a pixel of 1/2


class TwoChannels(nn.Module):
    """Channel 0 is the picture, channel 1 is what it lacks of 1; class 0 likes the first, class 1 the second."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)
        self.classes = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.features.bias.copy_(torch.tensor([0.0, 1.0]))
            self.classes.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.classes(self.features(pictures[:, None].float()).mean(dim=(2, 3)))


def one_picture() -> Tensor:
    picture = torch.zeros(1, 7, 7)
    picture[0][SPOT], picture[0][WIDE] = 1.0, 0.5
    return picture


def test_a_heat_map_is_the_features_weighed_by_their_mean_slopes() -> None:
    # Slopes of class 0: 1/49 everywhere of channel 0, -1/49 of channel 1. So the map is (p - (1 - p)) / 49 above zero:
    # 2 p - 1, which is 1 at the spot and 0 elsewhere. Of class 1 it is 1 - 2 p: 1 where the picture is 0, else 0.
    pictures = one_picture().repeat(2, 1, 1)
    maps = heat_maps(TwoChannels(), pictures, torch.tensor([0, 1]))
    assert maps is not None and not maps.requires_grad
    spot = torch.zeros(7, 7)
    spot[SPOT] = 1
    assert torch.allclose(maps[0], spot)
    assert torch.allclose(maps[1], (one_picture()[0] == 0).float())


def test_where_nothing_speaks_for_the_class_the_map_is_empty_and_coarse_features_are_passed_over() -> None:
    dark = heat_maps(TwoChannels(), torch.zeros(1, 7, 7), torch.tensor([0]))
    assert dark is not None and dark.tolist() == torch.zeros(1, 7, 7).tolist()
    assert heat_maps(TwoChannels(), torch.ones(1, 3, 3), torch.tensor([0])) is None         # below 4 x 4
    flat = nn.Sequential(nn.Flatten(), nn.Linear(49, 2))
    assert heat_maps(flat, torch.ones(1, 7, 7), torch.tensor([0])) is None
    assert not any(module._forward_hooks for module in flat.modules())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def file_of(mode: str, form: str, size: tuple[int, int] = (90, 70)) -> bytes:
    """A picture that shades from left to right."""
    shade = np.tile(np.linspace(10, 250, size[0]).astype(np.uint8), (size[1], 1))
    image = Image.fromarray(shade.astype(np.uint16) * 16) if mode == "I;16" else Image.fromarray(shade).convert(mode)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("I;16", "PNG")])
def test_an_x_ray_that_is_tried_is_read_as_one_that_is_trained_on(tmp_path: Path, mode: str, form: str) -> None:
    content, task = file_of(mode, form), ChestXray(Config(image_size=32))
    for split in ("train", "test"):
        for place, label in enumerate(("NORMAL", "PNEUMONIA")):
            folder = tmp_path / "chest_xray" / split / label
            folder.mkdir(parents=True)
            for person in range(3):
                tiny = file_of("L", "PNG", (40 + 10 * person, 30 + place + 2 * (split == "test")))
                (folder / f"person{person}_1.png").write_bytes(tiny)
    (tmp_path / "chest_xray" / "test" / "NORMAL" / f"person9_1.{form.lower()}").write_bytes(content)
    trained_on = task.dataset(Site(client="a", data=tmp_path), "test")
    tried = picture_from_file(task, content)
    assert tried.shape == (32, 32) and tried[0, 0] < 60 < 200 < tried[-1, -1]
    assert any(np.array_equal(np.asarray(trained_on[row][0]), tried) for row in range(len(trained_on)))


@pytest.mark.parametrize("model", ["resnet", "baseline"])
def test_the_models_of_chest_x_rays_explain_themselves_on_synthetic_samples(model: str) -> None:
    task = ChestXray(Config(image_size=32, model=model))
    samples, params = task.samples(), task.initial_params(1)
    assert "synthetic" in samples.source and set(samples.labels) == set(task.classes)
    assert (task.picture, "Not a medical device" in task.notice) == (Picture(height=32, width=32), True)
    labels = [verdict(row, 0.5) for row in predict(task, params, samples.pictures)]
    maps = explain(task, params, samples.pictures, labels)
    assert maps is not None and len(maps) == len(samples.labels) and min(maps.shape[1:]) >= 4
    assert set(maps.max(axis=(1, 2))) <= {0.0, 1.0}
    assert np.array_equal(explain(task, params, samples.pictures, labels), maps)


def test_a_task_without_such_maps_has_none_and_one_that_breaks_its_word_is_told() -> None:
    class Odd(Mnist3v7):
        picture = Picture(height=28, width=28)

        def explain(self, params: Params, pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
            return np.full((1, 2, 2), 1.5)

        def picture_from_file(self, content: bytes) -> np.ndarray:
            return np.zeros((2, 3))

    params, empty = Mnist3v7().initial_params(0), np.zeros((1, 28, 28), np.uint8)
    assert explain(Mnist3v7(), params, empty, [0]) is None
    with pytest.raises(TaskFailed, match=r"returns shape \(1, 2, 2\) from 1.5 to 1.5 for 1 pictures"):
        explain(Odd(), params, empty, [0])
    with pytest.raises(TaskFailed, match=r"returns float64 of shape \(2, 3\); `picture` is 28 x 28"):
        picture_from_file(Odd(), b"")
    with pytest.raises(DataError, match=r"this file cannot be used: .*neither JPEG nor PNG"):
        picture_from_file(ChestXray(), b"GIF89a")


def test_the_verdict_is_that_of_the_threshold_where_there_is_one() -> None:
    assert [verdict([0.7, 0.3], at) for at in (None, 0.31, 0.3, 0.0)] == [0, 0, 1, 1]
    assert [verdict([0.2, 0.5, 0.3], at) for at in (None, 0.1)] == [1, 1]       # of more than two it means nothing
    declared = (Metric(name="auc", combine="auc", of="s"), Metric(name="edge", combine="threshold", of="s"))
    assert threshold_of(declared, {"auc": 0.9, "edge": 0.25}) == 0.25
    assert threshold_of(declared, {"auc": 0.9}) is threshold_of(declared[:1], {"edge": 1.0}) is None
