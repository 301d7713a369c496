"""Folders of Parquet files in the Hugging Face layout: `image{bytes, path}` and a label, one file name per split.

Opening reads the labels alone; a row group's images are read when one is asked for. Row groups are kept up to
`RESIDENT_BYTES`, or a multiple of the files' size where these are small; reading one takes at most what
`parquet_pages` allows, 128 MiB for a small file, and twice that for a moment.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.data.dataset import SPLITS, Labels, Source, Split, check_source
from alexnet.data.mmap_cache import MmapCache, open_regular
from alexnet.data.readers.labels import MAX_CLASSES, check_names, numbered
from alexnet.data.readers.parquet_pages import MiB, measure
from alexnet.errors import DataError, UnreadableImage, one_line, quoted

_LABELS = ("label", "labels", "fine_label")
# Row groups kept for random access; beyond it the least recently used ones are read again.
RESIDENT_BYTES = 4 << 30
_MOST_FOOTER = 16 * MiB
_MOST_FEATURES = 4 * MiB  # of the description by Hugging Face, in JSON
_MOST_LISTED = 1 << 16  # row groups, or columns of one
_BATCH_BYTES = 64 * MiB
_MOST_NAME = 4096
_DAMAGE = (ValueError, OSError, MemoryError, OverflowError, pa.ArrowException)  # what reading a hostile file raises


@dataclass(frozen=True)
class Shard:
    """An open Parquet file, and its columns: those of the images' bytes and paths (if any), and that of the labels.

    `names` is what it says of its classes.
    """

    path: Path
    file: Any
    image: str
    name: str | None
    label: str
    names: Any

    def read(self, data: memoryview, group: int, column: str) -> pa.ChunkedArray:
        """Return a column of a row group, out of the file's bytes.

        Raises ValueError, OSError or pyarrow's errors for one that is damaged or expands too far.
        """
        metadata = self.file.metadata.row_group(group)
        chunk = metadata.column(self._number(column))
        expansion = measure(data, chunk, is_number=column == self.label)
        rows = max(1, min(65_536, _BATCH_BYTES // max(1, expansion.dictionary)))
        parts, size = [], 0
        for batch in self.file.iter_batches(rows, [group], [column], use_threads=False):
            part = batch.column(0)
            part = part.flatten()[0] if pa.types.is_struct(part.type) else part
            size += part.nbytes
            if size > expansion.allowed:
                raise ValueError(f"its values take more than the {expansion.allowed:,} bytes that a row group may")
            parts.append(part)
        if sum(map(len, parts)) != metadata.num_rows:
            raise ValueError("it has not the number of rows that it says")
        return pa.chunked_array(parts, parts[0].type if parts else pa.null())

    def _number(self, column: str) -> int:
        """The number of a column in a row group."""
        schema = self.file.schema
        paths = [schema.column(j).path for j in range(len(schema.names))]
        found = [j for j, path in enumerate(paths) if path == column or path.startswith(column + ".")]
        if len(found) != 1 or schema.column(found[0]).max_repetition_level:
            raise ValueError(f"{quoted(column)} must be one column with one value a row")
        return found[0]


class ParquetSplit(Split):
    """Images in the row groups of Parquet files, the most recently used ones kept in memory."""

    def __init__(self, name: str, shards: list[Shard]) -> None:
        self.name = name
        self._shards = shards
        self._groups: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._mapped = MmapCache([shard.path for shard in shards])
        labels, row = [], 0
        for f, shard in enumerate(shards):
            counts = _row_counts(shard)
            for g, count in enumerate(counts):
                self._groups.append((f, g))
                self._starts.append(row)
                row += count
            labels.append(_labels(shard, self._mapped[f].data, len(counts)))
        self.labels = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        whole = sum(shard.path.stat().st_size for shard in shards)
        self._room = min(RESIDENT_BYTES, max(256 * MiB, 8 * whole))
        self._kept: OrderedDict[tuple[int, str], tuple[pa.ChunkedArray | UnreadableImage, int]] = OrderedDict()
        self._resident = 0
        self._locks = [threading.Lock() for _ in shards]
        self._cache_lock = threading.Lock()

    def _column(self, group: int, path: str) -> pa.ChunkedArray:
        """Return a column of a row group. Raises `UnreadableImage`, at once where it was tried before."""
        key = (group, path)
        f, g = self._groups[group]
        kept = self._known(key)
        if kept is None:
            with self._locks[f]:
                kept = self._known(key)  # another thread may have read it
                if kept is None:
                    kept = self._read(self._shards[f], f, g, path)
                    self._keep(key, kept)
        if isinstance(kept, UnreadableImage):
            raise UnreadableImage(*kept.args)
        return kept

    def _known(self, key: tuple[int, str]) -> pa.ChunkedArray | UnreadableImage | None:
        with self._cache_lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def _keep(self, key: tuple[int, str], column: pa.ChunkedArray | UnreadableImage) -> None:
        size = 0 if isinstance(column, UnreadableImage) else column.nbytes
        with self._cache_lock:
            self._kept[key] = (column, size)
            self._resident += size
            while self._resident > self._room and len(self._kept) > 1:
                self._resident -= self._kept.popitem(last=False)[1][1]

    def _read(self, shard: Shard, f: int, g: int, path: str) -> pa.ChunkedArray | UnreadableImage:
        try:
            return shard.read(self._mapped[f].data, g, path)
        except _DAMAGE as error:
            return UnreadableImage(f"row group {g} of {quoted(shard.path.name)} cannot be read: {one_line(error)}")

    def _row(self, i: int) -> tuple[int, int]:
        group = bisect_right(self._starts, i) - 1
        return group, i - self._starts[group]

    def image_name(self, i: int) -> str:
        """As `Split.image_name`: the row's path, where it has one, else the file's name and the row's number."""
        group, row = self._row(i)
        shard = self._shards[self._groups[group][0]]
        if shard.name is not None:
            try:
                name = self._column(group, shard.name)[row]
            except UnreadableImage:
                name = None
            if name is not None and name.is_valid and 0 < len(name.as_buffer()) <= _MOST_NAME:
                return bytes(name.as_buffer()).decode("utf-8", "surrogateescape")
        return f"{shard.path.name}#{i}"

    def image_names(self) -> Iterable[str]:
        """As `Split.image_names`: files and row numbers, since the names stand beside the images."""
        return (f"{self._shards[self._groups[self._row(i)[0]][0]].path.name}#{i}" for i in range(len(self)))

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`. Raises `UnreadableImage` for a row without an image."""
        group, row = self._row(i)
        data = self._column(group, self._shards[self._groups[group][0]].image)[row]
        if not data.is_valid:
            raise UnreadableImage("the row holds no bytes")
        return bytes(data.as_buffer())


def _row_counts(shard: Shard) -> list[int]:
    metadata = shard.file.metadata
    counts = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) > shard.path.stat().st_size:
        raise DataError(f"{shard.path}: it says that it has {sum(counts)} rows, more than fit into it")
    return counts


def _labels(shard: Shard, data: memoryview, groups: int) -> Labels:
    """Return the labels of a file, (N,) int64; -1 stands for one that is kept back."""
    found = [np.zeros(0, np.int64)]
    row = 0
    for group in range(groups):
        try:
            column = shard.read(data, group, shard.label)
        except _DAMAGE as error:
            raise DataError(f"{shard.path}: column {quoted(shard.label)} cannot be read: {one_line(error)}") from None
        if column.null_count:
            raise DataError(f"{shard.path}: column {quoted(shard.label)} has {column.null_count} rows without a label")
        values = column.to_numpy()
        wrong = np.flatnonzero((values < -1) | (values >= MAX_CLASSES) if len(values) else values)
        if len(wrong):
            raise DataError(
                f"{shard.path}: the label {values[wrong[0]]} of row {row + wrong[0]} is out of range; "
                f"labels run from 0 to {MAX_CLASSES - 1}"
            )
        found.append(values.astype(np.int64))
        row += len(values)
    return np.concatenate(found)


def open_parquet(spec: str, paths: dict[str, list[Path]]) -> Source:
    """Open the Parquet files of each split; class names come from the schema's `huggingface` metadata or are numbers.

    A split whose labels are all -1, kept back by whoever published it, is left out.
    """
    first: Shard | None = None
    splits: dict[str, Split] = {}
    for name in SPLITS:
        shards = []
        for path in paths.get(name, []):
            shards.append(_open(path, first))
            first = first or shards[0]
        if shards:
            split = ParquetSplit(name, shards)
            if not len(split) or split.labels.max() >= 0:
                splits[name] = split
    assert first
    if first.names:
        classes: Sequence[str] = check_names(str(first.path), first.names)
    else:
        classes = numbered(spec, splits.values())
    return check_source(spec, classes, splits)


def _open(path: Path, first: Shard | None) -> Shard:
    """Open a file; its columns and classes must be those of `first`, if that is given. Raises `DataError`."""
    try:
        _check_footer(path)
        file = pq.ParquetFile(
            path, memory_map=True, thrift_string_size_limit=_MOST_FOOTER, thrift_container_size_limit=_MOST_LISTED
        )
        schema = file.schema_arrow
        described = (schema.metadata or {}).get(b"huggingface", b"")
        columns = {str(field.name): field.type for field in schema}
    except (*_DAMAGE, RecursionError) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {one_line(error)}") from None
    if len(columns) != len(schema):
        raise DataError(f"{path}: two of its columns have the same name")
    if first is None:
        image, label = _image_column(path, columns), _label_column(path, columns, _features(described))
    else:
        image, label = first.image, first.label
        missing = {image.partition(".")[0] if image not in columns else image, label} - columns.keys()
        if missing:
            raise DataError(f"{path}: column {quoted(missing.pop())} is missing, which {first.path.name} has")
        if _image_column(path, {name: kind for name, kind in columns.items() if image.startswith(name)}) != image:
            raise DataError(f"{path}: its images are not in {quoted(image)}, where {first.path.name} has them")
    if not pa.types.is_integer(columns[label]):
        kind = quoted(str(columns[label]))
        raise DataError(f"{path}: column {quoted(label)} holds {kind}, but labels must be integers")
    names = _names(path, _features(described).get(label))
    if first and first.names and names and names != first.names:
        raise DataError(f"{path}: its class names or their order differ from those of {first.path.name}")
    image_type = columns.get(image.removesuffix(".bytes"))
    parts = {field.name: field.type for field in image_type} if isinstance(image_type, pa.StructType) else {}
    named = "path" in parts and pa.types.is_string(parts["path"])
    return Shard(path, file, image, image.removesuffix("bytes") + "path" if named else None, label, names)


def _check_footer(path: Path) -> None:
    """Raise ValueError or OSError for what is no regular file with a footer of a size that can be trusted."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        if size < 12 or tail[4:] != b"PAR1":
            raise ValueError("it does not end as a Parquet file does")
        if int.from_bytes(tail[:4], "little") > min(size - 8, _MOST_FOOTER):
            raise ValueError(f"its footer's size is wrong or more than {_MOST_FOOTER:,} bytes")


def _features(described: bytes) -> dict[str, Any]:
    """What the Hugging Face library says of the columns, by name; empty where it is absent or makes no sense."""
    try:
        features = json.loads(described[:_MOST_FEATURES])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _names(path: Path, feature: Any) -> list[Any] | None:
    """The names of the classes by a feature: a list, or an object with a key for each label."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):
        try:
            names = [names[str(label)] for label in range(len(names))]
        except KeyError as error:
            raise DataError(f"{path}: the names of its classes lack one for label {error.args[0]}") from None
    return check_names(str(path), names) if names is not None and names != [] else None


def _label_column(path: Path, columns: dict[str, Any], features: dict[str, Any]) -> str:
    known = [name for name in _LABELS if name in columns]
    known += [
        name
        for name, kind in features.items()
        if name in columns and isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
    ]
    if not known:
        raise DataError(f"{path}: it has no label column, only {quoted(', '.join(columns), 200)}")
    return known[0]


def _image_column(path: Path, columns: dict[str, Any]) -> str:
    """The column of the images' bytes, such as `image.bytes`."""

    def is_bytes(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    for name, kind in columns.items():
        if isinstance(kind, pa.StructType) and [field.name for field in kind].count("bytes") == 1:
            if is_bytes(kind.field("bytes").type):
                return f"{name}.bytes"
            raise DataError(f"{path}: {quoted(name)} holds its bytes as {quoted(str(kind.field('bytes').type))}")
    for name, kind in columns.items():
        if is_bytes(kind):
            return name
    raise DataError(f"{path}: it has no image column, only {quoted(', '.join(columns), 200)}")
