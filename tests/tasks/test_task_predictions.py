"""Asking a task's model: by hand for one layer, on the bundled digits for real, and what breaks a task's word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fednode.core.metrics import Sum
from fednode.core.params import Params
from fednode.errors import NotFinite, NotFound, TaskFailed
from fednode.tasks.base import Picture, Samples, Site, Task, Visit
from fednode.tasks.mnist import Mnist
from fednode.tasks.mnist_3v7 import Mnist3v7
from fednode.tasks.mnist_data import load_split
from fednode.tasks.predictions import card_of, predict
from fednode.tasks.registry import load_installed, load_task

SITE = Site(client="hospital-a", offline_sample=True)


def visit(task: Mnist | Mnist3v7) -> Visit:
    return Visit(site=SITE, config=task.config, seed=7, client_seed=1, round=1)


def one_pixel(place: int) -> np.ndarray:
    picture = np.zeros((28, 28), np.uint8)
    picture.flat[place] = 255
    return picture


def test_the_probabilities_of_a_logistic_layer_are_those_worked_out_by_hand() -> None:
    weight = np.zeros(784, np.float32)
    weight[0], weight[1] = np.log(3), -np.log(4)
    params = Params({"weight": weight, "bias": np.zeros(1, np.float32)})
    found = predict(Mnist3v7(), params, np.stack([one_pixel(0), one_pixel(1), one_pixel(2)]))
    # sigmoid(log 3) = 3/4, sigmoid(-log 4) = 1/5, sigmoid(0) = 1/2; the first column is the three's.
    assert found == pytest.approx(np.array([[3 / 4, 1 / 4], [1 / 5, 4 / 5], [1 / 2, 1 / 2]]))


class TwoPixels(Mnist):
    """Two pixels, three classes, one linear layer."""

    picture = Picture(height=1, width=2)
    classes = ("left", "right", "neither")

    def model(self) -> nn.Module:
        return nn.Sequential(_Plain(), nn.Linear(2, 3))


class _Plain(nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.to(torch.float32).flatten(1)


LAYER = Params({
    "1.weight": np.array([[np.log(2), 0], [0, np.log(3)], [0, 0]], np.float32), "1.bias": np.zeros(3, np.float32),
})


def test_the_probabilities_of_a_torch_model_are_the_softmax_worked_out_by_hand() -> None:
    found = predict(TwoPixels(), LAYER, np.array([[[1, 0]], [[1, 1]], [[0, 0]]], np.uint8))
    # exp of the logits: (2, 1, 1), (2, 3, 1), (1, 1, 1); each over its sum.
    assert found == pytest.approx(np.array([[2 / 4, 1 / 4, 1 / 4], [2 / 6, 3 / 6, 1 / 6], [1 / 3, 1 / 3, 1 / 3]]))
    assert found.sum(axis=1) == pytest.approx(1)


def test_a_model_is_asked_in_evaluation_mode_and_leaves_torch_as_it_was() -> None:
    class Forgetful(TwoPixels):
        def model(self) -> nn.Module:
            return nn.Sequential(_Plain(), nn.Linear(2, 3), nn.Dropout(0.9))

    before = torch.random.get_rng_state()
    found = predict(Forgetful(), LAYER, np.array([[[1, 1]]], np.uint8))
    assert found == pytest.approx(np.array([[2 / 6, 3 / 6, 1 / 6]]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("kind", [Mnist, Mnist3v7])
def test_what_is_predicted_is_as_right_as_what_is_evaluated(kind: type[Mnist] | type[Mnist3v7]) -> None:
    task = kind()
    params = task.train(task.initial_params(1), visit(task)).params
    pictures, labels = held_out(task)
    right = np.asarray(task.classes)[predict(task, params, pictures).argmax(axis=1)] == labels
    evaluated = task.evaluate(params, visit(task)).values["accuracy"]
    assert isinstance(evaluated, Sum)
    assert [right.sum(), len(right)] == evaluated.values.tolist()
    assert right.mean() > 0.7


def held_out(task: Mnist | Mnist3v7) -> tuple[np.ndarray, np.ndarray]:
    split = load_split(SITE, "test", digits=[int(label) for label in task.classes])
    return split.images, split.labels.astype(str)


@pytest.mark.parametrize(("name", "labels"), [("mnist", "0123456789"), ("mnist_3v7", "33337777")])
def test_the_card_of_a_digit_task_says_what_it_takes_and_brings_test_images(name: str, labels: str) -> None:
    card = card_of(load_installed(name))
    assert (card.fingerprint, card.picture) == (f"{name}@1", Picture(height=28, width=28, is_drawn=True))
    assert card.classes == tuple(dict.fromkeys(labels))
    assert isinstance(card.samples, Samples)
    assert card.samples.pictures.shape == (len(labels), 28, 28) and card.samples.labels == tuple(labels)
    assert "test images of MNIST" in card.samples.source


def test_a_task_that_says_nothing_of_pictures_cannot_be_tried() -> None:
    class Silent(Mnist3v7):
        picture = None

    card = card_of(load_task(Silent))
    assert (card.picture, card.samples) == (None, None)


def test_a_picture_tells_its_shape_and_size() -> None:
    grey, colour = Picture(height=2, width=3), Picture(height=2, width=3, channels=4)
    assert (grey.shape, grey.num_values, str(grey)) == ((2, 3), 6, "2 x 3")
    assert (colour.shape, colour.num_values, str(colour)) == ((2, 3, 4), 24, "2 x 3 x 4")


def test_only_an_installed_name_is_loaded_never_a_file() -> None:
    with pytest.raises(NotFound, match="is installed here"):
        load_installed(f"{__file__}:TwoPixels")


def test_outputs_that_are_no_rows_of_logits_are_refused() -> None:
    class Flat(TwoPixels):
        def model(self) -> nn.Module:
            return nn.Sequential(_Plain(), nn.Linear(2, 3), nn.Flatten(0))

    with pytest.raises(TaskFailed, match=r"gives a tensor \(3,\), not one row of logits"):
        predict(Flat(), LAYER, np.array([[[1, 1]]], np.uint8))


def test_another_number_of_classes_is_refused() -> None:
    class Four(TwoPixels):
        classes = ("a", "b", "c", "d")

    with pytest.raises(TaskFailed, match=r"returns shape \(1, 3\); 1 pictures and 4 classes make \(1, 4\)"):
        predict(Four(), LAYER, np.array([[[1, 1]]], np.uint8))


def test_an_answer_that_is_no_number_is_refused() -> None:
    params = Params({"weight": np.full(784, np.nan, np.float32), "bias": np.zeros(1, np.float32)})
    with pytest.raises(NotFinite, match="diverged"):
        predict(Mnist3v7(), params, one_pixel(0)[None])


def test_a_task_that_declares_a_picture_and_no_predict_says_so() -> None:
    class Half(Mnist3v7):
        predict = Task.predict

    with pytest.raises(TaskFailed, match="declares what its models predict, and not how"):
        predict(Half(), Half().initial_params(0), one_pixel(0)[None])
