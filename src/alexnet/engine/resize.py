"""Squares of RGB brought to another size, antialiased bilinear: by the compiled library, or the same bits by NumPy.

Shapes: `H` side of the square there is, `S` of the one wanted, `T` the most rows that make one row of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alexnet.engine.library import call, library

UNIT = 1 << 16  # the sum of a row's weights: with it every sum of bytes is a whole number below 2^24, exact in float32
_ROWS = 8  # that are made at once
Pixels = NDArray[np.uint8]


def resize(pixels: Pixels, size: int) -> Pixels:
    """(H, H, 3) uint8, of any strides, to (S, S, 3); the same for every processor."""
    first, weights = filter_weights(len(pixels), size)
    if library() is None:
        rows = _mixed(pixels, first, weights)
        return np.ascontiguousarray(_mixed(rows.transpose(1, 0, 2), first, weights).transpose(1, 0, 2))
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 0:
        pixels = np.ascontiguousarray(pixels)
    out, row = np.empty((size, size, 3), np.uint8), np.empty(3 * len(pixels) + 64, np.float32)
    call(
        "resize", pixels.ctypes.data, pixels.strides[0], len(pixels), size,
        first.ctypes.data, weights.ctypes.data, weights.shape[1], row.ctypes.data, out.ctypes.data,
    )  # fmt: skip
    return out


@lru_cache(64)
def filter_weights(side: int, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The first row that each row of the result is made of, (S,), and the weights from there on, (S, T), whole numbers.

    A triangle as wide as two rows of the result, or two of the picture where it is enlarged.
    """
    scale = side / size
    reach = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    taps = min(side, int(np.ceil(2 * reach)) + 1)
    first = np.clip((centre - reach + 0.5).astype(np.int32), 0, side - taps).astype(np.int32)
    distance = np.abs(first[:, None] + np.arange(taps) + 0.5 - centre[:, None])
    share = np.maximum(1 - distance / reach, 0)
    whole = share / share.sum(axis=1, keepdims=True) * UNIT
    weights = np.floor(whole)
    lacking = (UNIT - weights.sum(axis=1)).astype(np.int64)  # goes to those that were rounded down most
    rank = np.argsort(np.argsort(weights - whole, axis=1, kind="stable"), axis=1, kind="stable")
    return first, (weights + (rank < lacking[:, None])).astype(np.float32)


def _mixed(pixels: Pixels, first: NDArray[np.int32], weights: NDArray[np.float32]) -> Pixels:
    """(H, W, 3) → (S, W, 3): rows mixed by their weights, a few at a time."""
    out = np.empty((len(first), *pixels.shape[1:]), np.uint8)
    for top in range(0, len(first), _ROWS):
        begin, end = first[top], first[top : top + _ROWS].max() + weights.shape[1]
        some = weights[top : top + _ROWS]
        band = np.zeros((len(some), end - begin), np.float32)
        columns = first[top : top + _ROWS, None] - begin + np.arange(weights.shape[1])
        np.put_along_axis(band, columns, some, axis=1)
        sums = band @ pixels[begin:end].reshape(end - begin, -1).astype(np.float32)
        out[top : top + _ROWS] = ((sums + UNIT // 2) / UNIT).astype(np.uint8).reshape(len(some), *pixels.shape[1:])
    return out
