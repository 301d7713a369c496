"""The views of a square at test time and how its pixels are centred, for whatever computes a network (paper §2, §4.1).

S the side of a square, V of a view.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import UsageError

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255 units
IMAGENET_STD = (58.395, 57.12, 57.375)
View = tuple[int, int, bool]  # top row, left column, whether it is mirrored


def views(count: int, size: int, side: int) -> list[View]:
    """Views of `side` pixels in squares of `size`: 1 the centre, 5 corners and centre, 10 those mirrored too.

    Raises UsageError for another number.
    """
    edge, centre = size - side, (size - side) // 2
    five = [(0, 0, False), (0, edge, False), (edge, 0, False), (edge, edge, False), (centre, centre, False)]
    known = {1: five[4:], 5: five, 10: five + [(top, left, True) for top, left, _ in five]}
    if count not in known:
        raise UsageError(f"--views {count} should be 1, 5 or 10")
    return known[count]


def centring(
    center: str, size: int, mean_image: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """What `data.center` subtracts from squares, (S, S, 3), and multiplies by after that, (3,); None for nothing.

    `mean_image` is that of the training images, for "mean-image".
    """
    if center == "imagenet":
        mean = np.broadcast_to(np.array(IMAGENET_MEAN, np.float32), (size, size, 3))
        return np.ascontiguousarray(mean), np.float32(1) / np.array(IMAGENET_STD, np.float32)
    return (mean_image if center == "mean-image" else None), None
