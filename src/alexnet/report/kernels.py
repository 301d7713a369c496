"""The kernels of a network's first layer as pictures, column by column (paper's figure 3).

Shapes: `K` kernels of a column, `S` rows and columns of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import Network
from alexnet.checkpoint import Arrays, shapes_of
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


def first_kernels(network: Network, weights: Arrays, grey: bool) -> Kernels | None:
    """The kernels of the first convolution; None for a network whose first weights are not a convolution of RGB.

    `weights` are the network's, `grey` says whether its training images are all grey.
    """
    found = first_weights(network, weights)
    if found is None:
        return None
    name, kernels = found
    groups = np.split(kernels, network.columns)
    shown = SHOWN // network.columns
    colour = None if grey else tuple(_colour_share(group) for group in groups)
    pictures = tuple(np.stack([_picture(kernel, grey) for kernel in group[:shown]]) for group in groups)
    return Kernels(pictures, name.removeprefix("body.").removesuffix(".weight"), colour, len(kernels))


def first_weights(network: Network, weights: Arrays) -> tuple[str, NDArray[np.float32]] | None:
    """The first convolution's weights by name, (K, 3, S, S) of all columns; None where it is no convolution of RGB."""
    name, shape = next(((name, shape) for name, shape in shapes_of(network).items() if len(shape) > 1), ("", ()))
    if len(shape) != 4 or shape[1] != 3:
        return None
    return name, np.asarray(weights[name], np.float32)


def energies(kernels: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of kernels (K, 3, S, S) the sum of their squared weights, (K,), and the part of it that is grey, (K,)."""
    exact = kernels.astype(np.float64)
    return (exact**2).sum((1, 2, 3)), (np.tensordot(exact, GREY, ([1], [0])) ** 2).sum((1, 2))


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
    energy, grey = (float(part.sum()) for part in energies(kernels))
    return 100 * (1 - grey / energy) if energy else 0.0
