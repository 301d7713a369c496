"""The kernels of a network's first layer as pictures, column by column (paper's figure 3).

Shapes: `K` kernels of a column, `S` rows and columns of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from alexnet.data.statistics import Statistics

GREY = np.full(3, 3**-0.5)  # the direction of grey among colours
GREY_SHARE = 1e-6  # of the pixels' variance: what a data set of grey images may have outside its first direction
SHOWN = 128


@dataclass(frozen=True)
class Kernels:
    """uint8 (K, S, S, 3) per column, each kernel scaled by its largest weight with 0 at mid-grey.

    `colour` is the share of each column's energy, in percent, that is colour: what is left of the weights when their
    mean over red, green and blue is taken away. None where the training images are grey: their kernels are then shown
    as sums over red, green and blue, which is all that the images can tell them apart by.
    """

    columns: tuple[NDArray[np.uint8], ...]
    layer: str
    colour: tuple[float, ...] | None
    count: int  # kernels there are; at most SHOWN are in the columns


def first_kernels(model: nn.Module, columns: int, grey: bool) -> Kernels | None:
    """The kernels of the first convolution; None for a network whose first weights are not a convolution of RGB.

    `columns` are the network's, `grey` says whether its training images are all grey.
    """
    named = model.named_modules()
    name, layer = next(((name, part) for name, part in named if isinstance(part, nn.Conv2d | nn.Linear)), ("", None))
    if not isinstance(layer, nn.Conv2d) or layer.in_channels != 3:
        return None
    weights = layer.weight.detach().float().cpu().numpy()  # (K, 3, S, S)
    groups = np.split(weights, columns)
    shown = SHOWN // columns
    colour = None if grey else tuple(_colour_share(group) for group in groups)
    pictures = tuple(np.stack([_picture(kernel, grey) for kernel in group[:shown]]) for group in groups)
    return Kernels(pictures, name.removeprefix("body."), colour, len(weights))


def grey_images(statistics: Statistics) -> bool:
    """Whether the training images are all grey: their colours vary in one direction only."""
    values = statistics.eigenvalues
    return bool(values[1] <= GREY_SHARE * values[0])


def _picture(kernel: NDArray[np.float32], grey: bool) -> NDArray[np.uint8]:
    """(3, S, S) weights → (S, S, 3) pixels."""
    pixels = kernel.transpose(1, 2, 0).astype(np.float64)
    if grey:
        pixels = np.repeat(pixels.sum(2, keepdims=True), 3, 2)
    largest = np.abs(pixels).max() or 1.0
    return np.rint(127.5 + 127.5 * pixels / largest).astype(np.uint8)


def _colour_share(kernels: NDArray[np.float32]) -> float:
    energy = float((kernels.astype(np.float64) ** 2).sum())
    grey = float((np.tensordot(kernels.astype(np.float64), GREY, ([1], [0])) ** 2).sum())
    return 100 * (1 - grey / energy) if energy else 0.0
