"""Calls of the compiled sums over pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet.engine.library import call, library


def colour_products(images: NDArray[np.uint8], centre: int) -> NDArray[np.int64] | None:
    """The sums of products of the channels less `centre` over all pixels of (…, 3), exactly: (3, 3).

    None without the library, or where the images are not contiguous.
    """
    if library() is None or not images.flags.c_contiguous:
        return None
    sums = np.zeros(6, np.int64)  # rr, rg, rb, gg, gb, bb
    call("colour_products", images.ctypes.data, images.size // 3, centre, sums.ctypes.data)
    return sums[[[0, 1, 2], [1, 3, 4], [2, 4, 5]]]
