"""Many large files, of which a bounded number is mapped into memory at a time."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.data.decode import MAX_BYTES
from alexnet.errors import UnreadableImage

# Well below the 1,024 open files that many systems allow a process.
MAX_OPEN = 384


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for unbuffered reading. Raises OSError, at once also for a pipe, a device or a folder."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    # A pipe that has taken its place since would block an ordinary open.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    return open(handle, "rb", buffering=0)


class MmapCache:
    """Files mapped into memory read-only on first use, the least recently used ones unmapped again."""

    def __init__(self, paths: Sequence[Path], limit: int = MAX_OPEN) -> None:
        self.paths = paths
        self._limit = limit
        self._open: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, k: int) -> NDArray[np.uint8]:
        """Return file k as (bytes,) uint8; it stays valid while the array is held. Raises `OSError`."""
        with self._lock:
            mapped = self._open.get(k)
            if mapped is not None:
                self._open.move_to_end(k)
                return mapped
            with open_regular(self.paths[k]) as file:
                # The array keeps the map alive, so dropping it here never pulls it from under a reader.
                mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
            self._open[k] = mapped
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
            return mapped

    def slice(self, k: int, offset: int, size: int) -> NDArray[np.uint8]:
        """Return `size` bytes of file k, without copying them. Raises `UnreadableImage` if they cannot be read."""
        if size > MAX_BYTES:
            raise UnreadableImage(f"its {size} bytes are more than the limit of {MAX_BYTES}")
        try:
            part = self[k][offset : offset + size]
        except OSError as error:
            raise UnreadableImage(f"{self.paths[k]} cannot be read: {error.strerror}") from None
        except ValueError:  # there is nothing to map
            raise UnreadableImage(f"{self.paths[k]} is empty") from None
        if len(part) != size:
            raise UnreadableImage(f"{self.paths[k]} ends before it: the file is cut short")
        return part
