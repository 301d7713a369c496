"""A store: a source's images as checked squares in a few large files, opened in an instant at any size.

    manifest.json         counts, classes, shards and their sha256, settings, library versions
    report.csv            every unreadable or odd file with its reason
    statistics.npz        mean image, RGB covariance and PCA of the train split
    train/00000.npy …     codec raw: (n, S, S, 3) uint8
    train/00000.tar …     codec jpeg: WebDataset layout, 000000017.jpg and 000000017.cls
    train/labels.npy      (N,) int64
    train/index.npy       codec jpeg: (N, 2) int64, offset in its shard and size of each image
    train/files.parquet   name, sha256, height, width and notes of each image's source file

S the side of the squares, N images of a split.
"""

from __future__ import annotations

import dataclasses
import io
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.dataset import SPLITS, Source, Split
from alexnet.data.decode import Pixels
from alexnet.data.mmap_cache import MmapCache
from alexnet.errors import DataError, UnreadableImage

MANIFEST, REPORT, STATISTICS = "manifest.json", "report.csv", "statistics.npz"
LABELS, INDEX, FILES = "labels.npy", "index.npy", "files.parquet"
FORMAT, VERSION = "alexnet-store", 1
CODECS = {"raw": ".npy", "jpeg": ".tar"}
# The header of a shard of pixels has this length for any count, so that it can be written last.
NPY_HEADER = 128


@dataclass(frozen=True)
class StoredFile:
    """A file of a store as it was written: its length in bytes and sha256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A shard: its path within the store, images, bytes and sha256."""

    file: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredSplit:
    """A split of a store: images in it, source files left out as unreadable, odd ones, shards, and other files."""

    count: int
    unreadable: int
    odd: int
    shards: tuple[Shard, ...]
    files: dict[str, StoredFile]

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> StoredSplit:
        """Rebuild it from its part of the manifest. Raises `KeyError` or `TypeError` for another one."""
        shards = tuple(Shard(**shard) for shard in entry["shards"])
        files = {name: StoredFile(**known) for name, known in entry["files"].items()}
        return cls(int(entry["count"]), int(entry["unreadable"]), int(entry["odd"]), shards, files)


@dataclass(frozen=True)
class Manifest:
    """What a store is: where it came from, how it was made, and every file in it.

    `size` is the side of the squares in pixels; `settings` and `versions` (of libraries) are what the bytes depend on
    besides; `source_splits` are the count and the sha256 of the labels of each split of the source.
    """

    source: str
    codec: str
    size: int
    settings: dict[str, Any]
    versions: dict[str, str]
    classes: tuple[str, ...]
    source_splits: dict[str, dict[str, Any]]
    splits: dict[str, StoredSplit]
    files: dict[str, StoredFile]

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for split in self.splits.values() for shard in split.shards)

    def to_json(self) -> dict[str, Any]:
        """The contents of manifest.json."""
        fields = dataclasses.asdict(self) | {"classes": list(self.classes)}
        for split in fields["splits"].values():
            split["shards"] = list(split["shards"])
        return {"format": FORMAT, "version": VERSION, **fields}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Manifest:
        """Rebuild it from `to_json`. Raises `KeyError` or `TypeError` for another one."""
        fields = {field.name: entry[field.name] for field in dataclasses.fields(cls)}
        fields["classes"] = tuple(entry["classes"])
        fields["splits"] = {name: StoredSplit.from_json(split) for name, split in entry["splits"].items()}
        fields["files"] = {name: StoredFile(**known) for name, known in entry["files"].items()}
        return cls(**fields)


def is_store(root: Path) -> bool:
    """Return whether a folder holds a finished store."""
    return (root / MANIFEST).is_file()


def read_manifest(root: Path) -> Manifest:
    """Return a store's manifest. Raises `DataError` if it is not one that this version can read."""
    path = root / MANIFEST
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        known = entry["format"] == FORMAT and entry["version"] == VERSION and entry["codec"] in CODECS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: it is not a readable manifest of a store ({error}); prepare it again") from None
    if not known:
        raise DataError(f"{path}: it is not a manifest of store version {VERSION}; prepare the store again")
    try:
        return Manifest.from_json(entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: it lacks {error}; prepare the store again") from None


def open_store(spec: str, root: Path) -> Source:
    """Open a store; its files are mapped, not read, so this takes the same instant for a million images or fifteen."""
    manifest = read_manifest(root)
    kind = RawSplit if manifest.codec == "raw" else JpegSplit
    splits: dict[str, Split] = {name: kind(name, root, manifest) for name in SPLITS if name in manifest.splits}
    statistics = root / STATISTICS if STATISTICS in manifest.files else None
    return Source(spec, manifest.classes, splits, bool(manifest.settings.get("exif_rotate")), statistics)


class StoreSplit(Split):
    """What both codecs share: labels, names of the source files, and in which shard an image is."""

    def __init__(self, name: str, root: Path, manifest: Manifest) -> None:
        entry = manifest.splits[name]
        self.name = name
        self.root = root
        self.size = manifest.size
        self.labels = map_array(root / name / LABELS, np.dtype(np.int64), (entry.count,))
        self.shards = entry.shards
        counts = [shard.count for shard in entry.shards]
        self._ends = np.cumsum(counts, dtype=np.int64)
        if sum(counts) != len(self.labels):
            raise DataError(f"{root}: the shards of {name} have {sum(counts)} images, its labels {len(self.labels)}")
        self._mapped = MmapCache([root / shard.file for shard in entry.shards])
        self._names: tuple[int, list[str]] = (-1, [])  # of one row group of files.parquet
        self._lock = threading.Lock()

    def _place(self, i: int) -> tuple[int, int]:
        """Return the shard of image i and its row in it."""
        k = int(self._ends.searchsorted(i, side="right"))
        return k, i - (int(self._ends[k - 1]) if k else 0)

    def rotated(self) -> Split:
        """The split itself: its squares are as they were prepared."""
        return self  # the squares are as they were prepared

    def image_name(self, i: int) -> str:
        """The name of the image's source file."""
        path = self.root / self.name / FILES
        try:
            with self._lock, pq.ParquetFile(path) as file:
                rows = file.metadata.row_group(0).num_rows
                if self._names[0] != i // rows:
                    names = file.read_row_group(i // rows, columns=["file"]).column("file").to_pylist()
                    self._names = (i // rows, names)
                return str(self._names[1][i % rows])
        except (OSError, pa.ArrowException, IndexError):
            return f"{self.name}#{i}"

    def image_names(self) -> Iterable[str]:
        """As `Split.image_names`, by the checksums of the shards: they stand for every image."""
        return (f"{shard.file} {shard.sha256}" for shard in self.shards)


class RawSplit(StoreSplit):
    """Squares as pixels: a crop is copied straight out of the mapped file."""

    def __init__(self, name: str, root: Path, manifest: Manifest) -> None:
        super().__init__(name, root, manifest)
        self.side = self.size

    def decode(self, i: int, shortest: int = 0) -> Pixels:
        """As `Split.decode`."""
        k, row = self._place(i)
        step = self.size * self.size * 3
        return self._mapped.slice(k, NPY_HEADER + row * step, step).reshape(self.size, self.size, 3)

    def read_bytes(self, i: int) -> bytes:
        """The square as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.decode(i)).save(buffer, "PNG")
        return buffer.getvalue()

    def crop_into(self, i: int, size: int, row: int, column: int, out: Pixels) -> None:
        """As `Split.crop_into`."""
        if size != self.size:
            return super().crop_into(i, size, row, column, out)
        crop = out.shape[0]
        out[:] = self.decode(i)[row : row + crop, column : column + crop]


class JpegSplit(StoreSplit):
    """Squares as JPEG: decoded by libjpeg-turbo into a buffer of the thread, the crop copied out of it."""

    def __init__(self, name: str, root: Path, manifest: Manifest) -> None:
        super().__init__(name, root, manifest)
        self._index = map_array(root / name / INDEX, np.dtype(np.int64), (len(self.labels), 2))
        self._local = threading.local()

    def _bytes(self, i: int) -> NDArray[np.uint8]:
        offset, size = self._index[i].tolist()
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
        try:
            pixels = simplejpeg.decode_jpeg(self._bytes(i), "RGB", buffer=buffer)
        except ValueError as error:
            raise UnreadableImage(f"the store is damaged there: {error}; run alexnet data verify") from None
        if pixels.shape != buffer.shape:
            raise UnreadableImage(f"the store is damaged there: the image is {pixels.shape}, not {buffer.shape}")
        return buffer


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a .npy file read-only. Raises `DataError` if it is not an array of that kind."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: it cannot be mapped ({error}); prepare the store again") from None
    if array.dtype != dtype or array.shape != shape:
        raise DataError(f"{path}: it holds {array.dtype} {array.shape}, not {dtype} {shape}; prepare the store again")
    return np.asarray(array)
