"""Writing the shards of a store: .npy files of pixels, or tars of JPEGs in WebDataset layout."""

import contextlib
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet.data.readers.store import NPY_HEADER
from alexnet.files import file_sha256


class RawShard:
    """A .npy file (n, S, S, 3) uint8 written image by image; n is settled when it is closed."""

    def __init__(self, path: Path, size: int, expected: int) -> None:
        self._path = path
        self._size = size
        self._expected = expected
        self._count = 0
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - it lives as long as the shard is being written
        header = npy_header(expected, size)
        self._file.write(header)
        self._hash = hashlib.sha256(header)

    def add(self, payload: bytes | memoryview, label: int) -> tuple[int, int]:
        """Append an image's pixels; return where they lie: (offset, size)."""
        step = self._size * self._size * 3
        self._file.write(payload)
        self._hash.update(payload)
        self._count += 1
        return NPY_HEADER + (self._count - 1) * step, step

    def close(self) -> str:
        """Settle the header, flush to the disk and return the sha256 of the file."""
        with self._file as file:
            if self._count != self._expected:
                file.seek(0)
                file.write(npy_header(self._count, self._size))
            file.flush()
            os.fsync(file.fileno())
        if self._count == self._expected:
            return self._hash.hexdigest()
        return file_sha256(self._path)

    def abandon(self) -> None:
        """Close and delete the unfinished file, whatever state the disk is in."""
        _discard(self._file, self._path)


class TarShard:
    """A tar with `000000017.jpg` and `000000017.cls` for each image; the bytes depend on nothing but the images."""

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        self._next = first
        self._at = 0
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - it lives as long as the shard is being written
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

    def close(self) -> str:
        """Write the end of the archive, flush to the disk and return the sha256 of the file."""
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Close and delete the unfinished file, whatever state the disk is in."""
        _discard(self._file, self._path)


def npy_header(count: int, size: int) -> bytes:
    """Return the header of a .npy file of `count` squares, always `NPY_HEADER` bytes long."""
    buffer = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(buffer, description)
    header = buffer.getvalue()
    assert len(header) == NPY_HEADER
    return header


def _discard(file: BinaryIO, path: Path) -> None:
    with contextlib.suppress(OSError):  # What could not be flushed belongs to a file that is deleted next.
        file.close()
    path.unlink(missing_ok=True)
