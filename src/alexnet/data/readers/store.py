"""A store: a source's images as checked squares in a few large files, opened in an instant at any size.

    manifest.json         counts, classes, shards and their sha256, settings, library versions
    report.csv            every unreadable or odd file with its reason
    statistics.npz        mean image, RGB covariance and PCA of the train split
    words.txt             what the classes' wnids mean, where the source told
    train/00000.npy …     codec yuv420: (n, S·S + 2·H·H) uint8; codec raw: (n, S, S, 3) uint8
    train/00000.tar …     codec jpeg: WebDataset layout, 000000017.jpg and 000000017.cls
    train/labels.npy      (N,) int64
    train/index.npy       codec jpeg: (N, 2) int64, offset in its shard and size of each image
    train/files.parquet   name, sha256, height, width and notes of each image's source file

S the side of the squares, H = ceil(S / 2) that of their halved chroma, N images of a split, n of a shard. docs/store.md
has what is in a record of codec yuv420, and how to read one.

A store may come from a stranger: nothing outside its folder is read, whatever its manifest and its links say, and what
it says of itself is checked before anything relies on it.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.dataset import SPLITS, Source, Split
from alexnet.data.decode import Pixels
from alexnet.data.mmap_cache import MmapCache
from alexnet.data.readers.store_format import (
    FILES,
    FILES_ROWS,
    INDEX,
    LABELS,
    NPY_HEADER,
    REPORT,
    STATISTICS,
    Manifest,
    read_manifest,
    record_bytes,
    wrong_with,
)
from alexnet.data.readers.store_format import (
    is_store as is_store,
)
from alexnet.engine import ycbcr
from alexnet.errors import DataError, UnreadableImage, one_line
from alexnet.files import map_npy, open_regular


def open_store(spec: str, root: Path) -> Source:
    """Open a store; its files are mapped, not read, so this takes the same instant for a million images or fifteen.

    Raises `DataError` where the manifest, or a file that it names, is not what `alexnet data prepare` makes.
    """
    manifest = read_manifest(root)
    for file, known in manifest.stored().items():
        # Without its list of files a store still trains; then the images have no names.
        if not file.endswith((REPORT, FILES)) and (message := wrong_with(root, file, known)):
            raise DataError(f"{root / file}: {message}; see `alexnet data verify`, and prepare the store again")
    kind = {"yuv420": PlanesSplit, "raw": RawSplit, "jpeg": JpegSplit}[manifest.codec]
    splits: dict[str, Split] = {name: kind(name, root, manifest) for name in SPLITS if name in manifest.splits}
    statistics = root / STATISTICS if STATISTICS in manifest.files else None
    return Source(spec, manifest.classes, splits, manifest.settings["exif_rotate"], statistics)


class StoreSplit(Split):
    """What the codecs share: labels, names of the source files, and in which shard an image is."""

    def __init__(self, name: str, root: Path, manifest: Manifest) -> None:
        entry = manifest.splits[name]
        self.name = name
        self.root = root
        self.size = manifest.size
        self.labels = read_labels(root, name, manifest)
        self.shards = entry.shards
        self._ends = np.cumsum([shard.count for shard in entry.shards], dtype=np.int64)
        self._mapped = MmapCache([root / shard.file for shard in entry.shards])
        self._names: tuple[int, list[str]] = (-1, [])  # of one row group of files.parquet
        self._lock = threading.Lock()

    def _place(self, i: int) -> tuple[int, int]:
        """Return the shard of image i and its row in it."""
        k = int(self._ends.searchsorted(i, side="right"))
        return k, i - (int(self._ends[k - 1]) if k else 0)

    def read_bytes(self, i: int) -> bytes:
        """The square as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.decode(i)).save(buffer, "PNG")
        return buffer.getvalue()

    def rotated(self) -> Split:
        """The split itself: its squares are as they were prepared."""
        return self  # the squares are as they were prepared

    def image_name(self, i: int) -> str:
        """The name of the image's source file, or the split and the number where the store does not tell."""
        from alexnet.data.readers.store_files import open_files, read_rows  # by pyarrow, which nothing else here needs

        group, row = divmod(i, FILES_ROWS)
        try:
            with self._lock:
                if self._names[0] != group:
                    with open_files(self.root, self.name, len(self)) as file:
                        self._names = (group, read_rows(file, group, ["file"])["file"])
                return self._names[1][row]
        except DataError:
            return f"{self.name}#{i}"

    def image_names(self) -> Iterable[str]:
        """As `Split.image_names`, by the checksums of the shards: they stand for every image."""
        return (f"{shard.file} {shard.sha256}" for shard in self.shards)


class RecordsSplit(StoreSplit):
    """Images that all take the same bytes: each is found in the mapped file without an index."""

    def __init__(self, name: str, root: Path, manifest: Manifest) -> None:
        super().__init__(name, root, manifest)
        self.side = self.size
        self._step = record_bytes(manifest.codec, manifest.size)

    def _record(self, i: int) -> NDArray[np.uint8]:
        k, row = self._place(i)
        return self._mapped.slice(k, NPY_HEADER + row * self._step, self._step)


class RawSplit(RecordsSplit):
    """Squares as pixels: a crop is copied straight out of the mapped file."""

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """As `Split.decode`."""
        return self._record(i).reshape(self.size, self.size, 3)

    def crop_into(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """As `Split.crop_into`."""
        if size != self.size:
            return super().crop_into(i, size, row, column, out)
        crop = out.shape[0]
        out[:] = self.decode(i)[row : row + crop, column : column + crop]


class PlanesSplit(RecordsSplit):
    """Squares as planes of luma and halved chroma: of the mapped file a crop reads what lies within it."""

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """As `Split.decode`."""
        pixels = np.empty((self.size, self.size, 3), np.uint8)
        ycbcr.crop(self._record(i), self.size, 0, 0, pixels)
        return pixels

    def crop_into(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """As `Split.crop_into`."""
        if size != self.size:
            return super().crop_into(i, size, row, column, out)
        ycbcr.crop(self._record(i), size, row, column, out)


class JpegSplit(StoreSplit):
    """Squares as JPEG: decoded by libjpeg-turbo into a buffer of the thread, the crop copied out of it."""

    def __init__(self, name: str, root: Path, manifest: Manifest) -> None:
        super().__init__(name, root, manifest)
        self._index = map_array(root / name / INDEX, np.dtype(np.int64), (len(self.labels), 2))
        self._local = threading.local()

    def _bytes(self, i: int) -> NDArray[np.uint8]:
        offset, size = self._index[i].tolist()
        if offset < 0 or size <= 0:
            raise UnreadableImage("the store is damaged there: its index points nowhere; run alexnet data verify")
        return self._mapped.slice(self._place(i)[0], offset, size)

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`."""
        return self._bytes(i).tobytes()

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """As `Split.decode`."""
        return self._decode(i, np.empty((self.size, self.size, 3), np.uint8))

    def crop_into(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """As `Split.crop_into`."""
        if size != self.size:
            return super().crop_into(i, size, row, column, out)
        crop = out.shape[0]
        if crop == size and out.flags.c_contiguous:
            self._decode(i, out)
            return
        buffer = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = np.empty((size, size, 3), np.uint8)
        out[:] = self._decode(i, buffer)[row : row + crop, column : column + crop]

    def _decode(self, i: int, buffer: Pixels) -> Pixels:
        data = self._bytes(i).tobytes()
        if data.count(b"\xff\xda") != 1:  # a JPEG of many scans takes long; ours have one
            raise UnreadableImage("the store is damaged there: it holds another kind of JPEG; run alexnet data verify")
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=buffer)
        except ValueError as error:
            raise UnreadableImage(f"the store is damaged there: {error}; run alexnet data verify") from None
        if pixels.shape != buffer.shape:
            raise UnreadableImage(f"the store is damaged there: the image is {pixels.shape}, not {buffer.shape}")
        return buffer


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a .npy file read-only. Raises `DataError` if it is not an array of that kind."""
    try:
        return map_npy(path, dtype, shape)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: it cannot be mapped: {one_line(error)}; prepare the store again") from None


def read_labels(root: Path, name: str, manifest: Manifest) -> NDArray[np.int64]:
    """Map a split's labels, (N,) int64, after a look at each. Raises `DataError` where one is of no class."""
    path, count, classes = root / name / LABELS, manifest.splits[name].count, len(manifest.classes)
    labels = map_array(path, np.dtype(np.int64), (count,))
    with open_regular(path) as file:  # not through the map, which would keep all in memory
        file.seek(-8 * count, os.SEEK_END)
        while block := file.read(8 << 20):
            largest = np.frombuffer(block[: len(block) // 8 * 8], np.uint64).max(initial=0)  # of a negative one: 2**63
            if largest >= classes:
                label = int(largest.astype(np.int64))
                raise DataError(f"{path}: it has label {label}, but they run from 0 to {classes - 1}")
    return labels
