"""Writing the shards of a store: .npy files of records, or tars of JPEGs in WebDataset layout."""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
from io import BufferedRandom

import numpy as np

from alexnet.data.readers.store_format import NPY_HEADER


class RecordShard:
    """A .npy file of n records of a shape, uint8, written image by image; n is settled at the end."""

    def __init__(self, file: BufferedRandom, shape: tuple[int, ...], expected: int) -> None:
        """`file` is open for writing and reading, at its beginning."""
        self._file, self._shape, self._expected = file, shape, expected
        self._count = 0
        header = npy_header(expected, shape)
        file.write(header)
        self._hash = hashlib.sha256(header)

    def add(self, payload: bytes | memoryview, label: int) -> tuple[int, int]:
        """Append an image's record; return where it lies: (offset, size)."""
        step = math.prod(self._shape)
        self._file.write(payload)
        self._hash.update(payload)
        self._count += 1
        return NPY_HEADER + (self._count - 1) * step, step

    def finish(self) -> str:
        """Settle the header and return the sha256 of the file."""
        if self._count == self._expected:
            return self._hash.hexdigest()
        self._file.seek(0)
        self._file.write(npy_header(self._count, self._shape))
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()


class TarShard:
    """A tar with `000000017.jpg` and `000000017.cls` for each image; the bytes depend on nothing but the images."""

    def __init__(self, file: BufferedRandom, first: int) -> None:
        """`first` numbers the first image."""
        self._file, self._next = file, first
        self._at = 0
        self._hash = hashlib.sha256()

    def add(self, payload: bytes | memoryview, label: int) -> tuple[int, int]:
        """Append an image's JPEG and its label; return where the JPEG lies: (offset, size)."""
        stem = f"{self._next:09d}"
        self._next += 1
        offset = self._member(stem + ".jpg", bytes(payload))
        self._member(stem + ".cls", str(label).encode("ascii"))
        return offset, len(payload)

    def _member(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        header = info.tobuf(tarfile.USTAR_FORMAT)
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        self._put(header)
        offset = self._at
        self._put(data + padding)
        return offset

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._at += len(data)

    def finish(self) -> str:
        """Write the end of the archive and return the sha256 of the file."""
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        return self._hash.hexdigest()


def npy_header(count: int, shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file of `count` records of a shape, always `NPY_HEADER` bytes long."""
    buffer = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(buffer, description)
    header = buffer.getvalue()
    assert len(header) == NPY_HEADER
    return header
