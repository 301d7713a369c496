"""Patches on a grid: where they lie, and sums over boxes of pixels for many pictures at once.

Shapes: `N` pictures of side `S`, `P` patches along a side, `C` channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]  # float32 but for single steps


def starts(side: int, patch: int, step: int) -> NDArray[np.int64]:
    """The first pixel of each patch along a side, in the middle of what the grid leaves over: (P,)."""
    count = (side - patch) // step + 1
    return np.arange(count) * step + (side - patch - (count - 1) * step) // 2


def centres(side: int, patch: int, step: int) -> NDArray[np.float64]:
    """The centre of each patch along a side, from 0 to 1: (P,)."""
    return (starts(side, patch, step) + patch / 2) / side


def cell_sums(maps: NDArray[np.float32], cells: int, patch: int, step: int) -> Floats:
    """Sums over the cells of every patch: maps (N, S, S, C) → (N, P, P, cells, cells, C).

    A patch has cells × cells square cells of patch / cells pixels, which must be whole.
    """
    width = patch // cells
    assert width * cells == patch, f"a patch of {patch} pixels has no {cells} whole cells along a side"
    first = starts(maps.shape[1], patch, step)
    stride = math.gcd(step, width) if len(first) > 1 else width
    sums = _box_sums(maps[:, first[0] :, first[0] :], width, stride)
    place = ((first - first[0])[:, None] + np.arange(cells) * width) // stride  # (P, cells)
    picked = sums[:, place][:, :, :, place]  # (N, P, cells, P, cells, C)
    return np.ascontiguousarray(picked.transpose(0, 1, 3, 2, 4, 5))


def _box_sums(maps: NDArray[np.float32], width: int, stride: int) -> Floats:
    """Sums over width × width boxes, one every `stride` pixels: (N, H, W, C) → (N, H', W', C)."""
    rows = (maps.shape[1] - width) // stride + 1
    columns = (maps.shape[2] - width) // stride + 1
    tall = sum(maps[:, i : i + (rows - 1) * stride + 1 : stride] for i in range(width))
    assert isinstance(tall, np.ndarray)
    both = sum(tall[:, :, i : i + (columns - 1) * stride + 1 : stride] for i in range(width))
    assert isinstance(both, np.ndarray)
    return both


def unit_length(vectors: Floats, floor: float = 1e-6) -> Floats:
    """Vectors (…, D) divided by their lengths; those shorter than `floor` become zeros, not noise of length 1."""
    lengths = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return np.where(lengths < floor, np.float32(0), vectors / np.maximum(lengths, np.float32(floor)))


def grey(images: Pixels) -> Floats:
    """RGB (N, S, S, 3) → luminance 0..255, (N, S, S) (ITU-R 601)."""
    return np.asarray(images @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)
