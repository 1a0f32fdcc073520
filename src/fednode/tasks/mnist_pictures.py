"""A file's picture as MNIST has its own: 28 x 28, bright ink on dark paper. MNIST's own files: `mnist_data.py`."""

from __future__ import annotations

import numpy as np

from fednode.tasks.base import Bytes
from fednode.tasks.mnist_data import IMAGE_SHAPE
from fednode.tasks.pictures import decode

HALF = 127.5


def digit_in(content: bytes) -> Bytes:
    """What has another size is stretched to 28 x 28; where the edge is light, as paper is, the picture is inverted.

    Raises NotAPicture.
    """
    picture = decode(content, IMAGE_SHAPE[0])
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return 255 - picture if np.median(edge) > HALF else picture
