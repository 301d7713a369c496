"""Squares as planes of luma and halved chroma (4:2:0), full-range ITU-R BT.601 as in JFIF: to planes, and crops to RGB.

A square's planes are one array of bytes: Y (S, S), Cb (H, H), Cr (H, H), row by row, with H = ceil(S / 2). Whole
numbers throughout: the same bytes on every processor, with the library and without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet.engine.library import call, library

Bytes = NDArray[np.uint8]


def planes_bytes(side: int) -> int:
    """The bytes of a square's planes: half of those of its RGB where the side is even."""
    return side**2 + 2 * (-(-side // 2)) ** 2


def to_planes(square: Bytes) -> Bytes:
    """RGB (S, S, 3) uint8 → planes, uint8; chroma is the mean of 2×2 pixels, edge pixels repeated where S is odd."""
    side = len(square)
    red, green, blue = (np.ascontiguousarray(square[..., channel], np.int32) for channel in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16  # of 65536ths
    red, green, blue = (_sums_of_four(channel) for channel in (red, green, blue))
    middle = (128 << 18) + (1 << 17)
    planes = np.empty(planes_bytes(side), np.uint8)
    blueness, redness = planes[side**2 :].reshape(2, *red.shape)
    planes[: side**2] = luma.ravel()
    blueness[:] = np.minimum((-11059 * red - 21709 * green + 32768 * blue + middle) >> 18, 255)
    redness[:] = np.minimum((32768 * red - 27439 * green - 5329 * blue + middle) >> 18, 255)
    return planes


def _sums_of_four(channel: NDArray[np.int32]) -> NDArray[np.int32]:
    if len(channel) % 2:
        channel = np.pad(channel, (0, 1), mode="edge")
    channel = channel[:, ::2] + channel[:, 1::2]
    return channel[::2] + channel[1::2]


def crop(planes: Bytes, side: int, top: int, left: int, out: Bytes) -> None:
    """Write the crop at (top, left) of a square's planes as RGB into `out`, (rows, columns, 3) uint8.

    Only what lies within the crop, and one chroma row and column around it, is read. Raises ValueError where the
    planes or the crop are not of a square of `side`.
    """
    rows, columns, channels = out.shape
    if planes.shape != (planes_bytes(side),) or planes.dtype != np.uint8 or out.dtype != np.uint8 or channels != 3:
        raise ValueError(f"planes of {side}×{side} and RGB are needed, not {planes.shape} and {out.shape}")
    if not (0 <= top <= side - rows and 0 <= left <= side - columns):
        raise ValueError(f"a crop of {rows}×{columns} at ({top}, {left}) does not lie within {side}×{side}")
    if library() is None or not (planes.flags.c_contiguous and out.flags.c_contiguous):
        plain_crop(planes, side, top, left, out)
    else:
        call("ycbcr_crop", planes.ctypes.data, side, top, left, rows, columns, out.ctypes.data)


def plain_crop(planes: Bytes, side: int, top: int, left: int, out: Bytes) -> None:
    """As `crop`, to the same bytes, by NumPy and unchecked."""
    half = -(-side // 2)
    luma, chroma = planes[: side**2].reshape(side, side), planes[side**2 :].reshape(2, half, half)
    y, x = (np.arange(first, first + count) for first, count in ((top, out.shape[0]), (left, out.shape[1])))
    # Each pixel is three times as near to its own chroma as to the neighbour's on its side.
    next_y, next_x = (np.clip(at // 2 + at % 2 * 2 - 1, 0, half - 1) for at in (y, x))
    wide = chroma.astype(np.int32)
    wide = 3 * wide[:, y // 2] + wide[:, next_y]
    wide = 3 * wide[:, :, x // 2] + wide[:, :, next_x]
    cb, cr = (wide - 16 * 128) << 4
    base = (luma[top : top + len(y), left : left + len(x)].astype(np.int32) << 6) + 32
    parts = (cr * 22970 >> 16, (cb * -5638 >> 16) + (cr * -11700 >> 16), cb * 29032 >> 16)  # as in ycbcr.cpp
    for channel, part in enumerate(parts):
        out[..., channel] = np.clip((base + part) >> 6, 0, 255)
