"""Histograms of local binary patterns of every patch, for many pictures at once (Ojala, Pietikäinen and Mäenpää 2002).

As scikit-image's `nri_uniform` with 8 neighbours at radius 1: 58 patterns with at most two changes around the circle,
and one code for all others. Shapes: `N` pictures of side `S`, `P` patches along a side.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.grid import Floats, Pixels, cell_sums, grey, unit_length

CODES, NEIGHBOURS, CELLS = 59, 8, 2


def lbp(images: Pixels, patch: int, step: int) -> Floats:
    """RGB (N, S, S, 3) → (N, P, P, 236): square roots of the 59-code histograms of 2×2 cells, of length 1."""
    codes = lbp_codes(np.rint(grey(images)))
    votes = np.zeros((*codes.shape, CODES), np.float32)
    np.put_along_axis(votes, codes[..., None], np.float32(1), axis=3)
    sums = cell_sums(votes, CELLS, patch, step)
    return unit_length(np.sqrt(sums.reshape(*sums.shape[:3], -1)))


def lbp_codes(pixels: Floats) -> NDArray[np.int64]:
    """Grey levels (N, S, S) → the code of every pixel, 0 to 58; what lies beyond the edge is 0."""
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    bits = np.zeros(pixels.shape, np.int64)
    for i in range(NEIGHBOURS):
        angle = 2 * np.pi * i / NEIGHBOURS
        bits |= (_shifted(padded, -np.sin(angle), np.cos(angle)) >= pixels).astype(np.int64) << i
    return code_table()[bits]


def _shifted(padded: Floats, down: float, across: float) -> Floats:
    """The picture at an offset of less than two pixels, bilinear; it is padded by two."""
    down, across = round(down, 5), round(across, 5)  # as scikit-image, so that equal greys compare as equal
    row, column = int(np.floor(down)), int(np.floor(across))
    side, below, right = padded.shape[1] - 4, np.float64(down - row), np.float64(across - column)

    def at(r: int, c: int) -> NDArray[np.float64]:
        return padded[:, 2 + r : 2 + r + side, 2 + c : 2 + c + side].astype(np.float64)

    above = (1 - right) * at(row, column) + right * at(row, column + 1)
    under = (1 - right) * at(row + 1, column) + right * at(row + 1, column + 1)
    return (1 - below) * above + below * under


@cache
def code_table() -> NDArray[np.int64]:
    """Pattern of 8 bits → code, (256,): by the number of set bits, then by how far the run of them is turned."""
    codes = np.full(1 << NEIGHBOURS, CODES - 1, np.int64)
    codes[0], codes[-1] = 0, CODES - 2
    for ones in range(1, NEIGHBOURS):
        for begin in range(NEIGHBOURS):
            pattern = sum(1 << (begin + i) % NEIGHBOURS for i in range(ones))
            codes[pattern] = 1 + (ones - 1) * NEIGHBOURS + -begin % NEIGHBOURS
    return codes
