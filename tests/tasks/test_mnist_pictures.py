"""A file as a digit: its own size is kept, ink is bright, another size is stretched."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fednode.tasks.mnist import Mnist
from fednode.tasks.mnist_3v7 import Mnist3v7
from fednode.tasks.mnist_data import bundled_samples
from fednode.tasks.mnist_pictures import digit_in
from fednode.tasks.pictures import NotAPicture

SEVEN = bundled_samples((7,), num_each=1).pictures[0]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_picture_of_mnist_is_kept_to_the_last_bit() -> None:
    assert np.array_equal(digit_in(png(SEVEN)), SEVEN)


def test_dark_ink_on_light_paper_is_turned_round() -> None:
    assert np.array_equal(digit_in(png(255 - SEVEN)), SEVEN)


def test_another_size_is_stretched() -> None:
    large = digit_in(png(np.kron(SEVEN, np.ones((3, 3), np.uint8))))
    assert large.shape == (28, 28)
    assert np.abs(large.astype(int) - SEVEN).mean() < 8


def test_what_is_no_picture_is_said() -> None:
    with pytest.raises(NotAPicture, match="neither JPEG nor PNG"):
        digit_in(b"\0\0\x08\x03")               # as MNIST's own files begin


@pytest.mark.parametrize("task", [Mnist, Mnist3v7])
def test_both_tasks_read_files_so(task: type[Mnist] | type[Mnist3v7]) -> None:
    assert np.array_equal(task().picture_from_file(png(SEVEN)), SEVEN)
