"""Any image to the square that the network's crops are cut from: a stand-in with the interface of the data room."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from alexnet.data.decode import MAX_BYTES, SCALING_ROOM, Pixels, decode, square
from alexnet.errors import DataError, UnreadableImage


def to_square(image: bytes | str | Path | Pixels, size: int, exif_rotate: bool = False) -> Pixels:
    """Bytes, a path or uint8 (H, W, 3) → (S, S, 3) uint8. Raises UnreadableImage."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"an image of {image.dtype} {image.shape} should be uint8 (H, W, 3), RGB")
        return square(image, size)
    data = image if isinstance(image, bytes) else read_image_file(image)
    return square(decode(data, shortest=SCALING_ROOM * size, exif_rotate=exif_rotate), size)


def read_image_file(path: str | Path) -> bytes:
    """The bytes of an image file. Raises UnreadableImage, also for what would block or fill the memory."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage("it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(f"its {status.st_size} bytes are more than the limit of {MAX_BYTES}")
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"the file cannot be read: {error.strerror}") from None
