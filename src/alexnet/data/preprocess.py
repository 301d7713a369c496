"""The one way of an image: file, bytes or pixels to a square of RGB, for training, preparing and predicting (paper §2).

H W rows and columns of an image as it is, S the side of a square.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from alexnet.data.decode import MAX_BYTES, Bytes, Decoded, Pixels, decode_with_notes
from alexnet.engine.resize import resize
from alexnet.errors import UnreadableImage
from alexnet.files import read_regular

# A JPEG is decoded at a half, quarter or eighth only while its shorter side stays this many times the wanted one:
# the result then is within about a grey level of decoding it whole, which at twice the size it is not.
SCALING_ROOM = 4


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file.

    Raises `UnreadableImage` at once, also for what would block or fill the memory: pipe, device, folder, huge file.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise UnreadableImage(f"the file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UnreadableImage(str(error)) from None


def to_square(image: Bytes | str | os.PathLike[str] | Pixels, size: int, exif_rotate: bool = False) -> Pixels:
    """Bring an image file, its bytes or its pixels (H, W, 3) uint8 to size×size: (S, S, 3) uint8.

    The shorter side is rescaled to `size` and the central square cut. `exif_rotate` turns files as their EXIF
    orientation says, which nobody did in 2012. Raises `UnreadableImage`.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UnreadableImage(f"an image of {image.dtype} {image.shape} should be uint8 (H, W, 3), RGB")
        return square(image, size)
    if not isinstance(image, str | os.PathLike):
        return decode_square(image, size, exif_rotate).pixels
    try:
        return decode_square(read_image_file(image), size, exif_rotate).pixels
    except UnreadableImage as error:
        raise UnreadableImage(f"{os.fspath(image)}: {error}") from None


def decode_square(data: Bytes, size: int, exif_rotate: bool = False) -> Decoded:
    """Decode an image file and bring it to size×size, with what was odd about the file. Raises `UnreadableImage`."""
    decoded = decode_with_notes(data, shortest=SCALING_ROOM * size, exif_rotate=exif_rotate)
    return replace(decoded, pixels=square(decoded.pixels, size))


def square(pixels: Pixels, size: int) -> Pixels:
    """Rescale the shorter side to `size` and cut the central square: (H, W, 3) to (S, S, 3) (paper §2).

    Antialiased bilinear; within two grey levels of Pillow's, which is slower.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = pixels[top : top + side, left : left + side]
    return np.ascontiguousarray(middle) if side == size else resize(middle, size)
