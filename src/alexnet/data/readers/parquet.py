"""Folders of Parquet files in the Hugging Face layout: `image{bytes, path}` and a label, one file name per split."""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.data.dataset import Source, Split, check_source
from alexnet.errors import DataError, UnreadableImage, one_line

_NAME = re.compile(r"^(train|validation|valid|val|test)([-._].*)?\.parquet$")
_SPLIT = {"validation": "val", "valid": "val"}
_LABELS = ("label", "labels", "fine_label")
# Row groups kept decoded for random access; beyond it the least recently used ones are read again.
RESIDENT_BYTES = 4 << 30


def shards(root: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of each split in a folder or its `data` folder, in order; empty if there are none."""
    for folder in (root, root / "data"):
        paths: dict[str, list[Path]] = {}
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                match = _NAME.match(path.name)
                if match:
                    paths.setdefault(_SPLIT.get(match[1], match[1]), []).append(path)
        if paths:
            return paths
    return {}


class ParquetSplit(Split):
    """Images in the row groups of Parquet files, the most recently used ones kept in memory."""

    def __init__(self, name: str, paths: list[Path], image: str, label: str) -> None:
        self.name = name
        self._image = image
        self._files = [_open(path) for path in paths]
        self._groups: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._names = [path.name for path in paths]
        labels = []
        row = 0
        for f, file in enumerate(self._files):
            for g in range(file.num_row_groups):
                self._groups.append((f, g))
                self._starts.append(row)
                row += file.metadata.row_group(g).num_rows
            column = file.read(columns=[label]).column(label)
            if column.null_count:
                raise DataError(f"{paths[f]}: column {label} has {column.null_count} rows without a label")
            labels.append(np.asarray(column.to_numpy(), dtype=np.int64))
        self.labels = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        self._tables: OrderedDict[int, tuple[Any, Any, int]] = OrderedDict()
        self._resident = 0
        self._locks = [threading.Lock() for _ in self._files]
        self._cache_lock = threading.Lock()

    def _columns(self, group: int) -> tuple[Any, Any]:
        """Return the bytes and the paths (or None) of a row group."""
        with self._cache_lock:
            if group in self._tables:
                self._tables.move_to_end(group)
                return self._tables[group][:2]
        f, g = self._groups[group]
        with self._locks[f]:
            with self._cache_lock:
                if group in self._tables:
                    return self._tables[group][:2]
            table = self._files[f].read_row_group(g, columns=[self._image], use_threads=False)
        column = table.column(0).combine_chunks()
        chunk = column if isinstance(column, pa.Array) else column.chunk(0)
        data, path = chunk, None
        if pa.types.is_struct(chunk.type):
            data = chunk.field("bytes")
            path = chunk.field("path") if chunk.type.get_field_index("path") >= 0 else None
        with self._cache_lock:
            self._tables[group] = (data, path, table.nbytes)
            self._resident += table.nbytes
            while self._resident > RESIDENT_BYTES and len(self._tables) > 1:
                self._resident -= self._tables.popitem(last=False)[1][2]
        return data, path

    def _row(self, i: int) -> tuple[int, int]:
        group = bisect_right(self._starts, i) - 1
        return group, i - self._starts[group]

    def image_name(self, i: int) -> str:
        """As `Split.image_name`."""
        group, row = self._row(i)
        _, path = self._columns(group)
        name = path[row].as_py() if path is not None else None
        return name or f"{self._names[self._groups[group][0]]}#{i}"

    def image_names(self) -> Iterable[str]:
        """As `Split.image_names`: files and row numbers, since the names stand beside the images."""
        return (f"{self._names[self._groups[self._row(i)[0]][0]]}#{i}" for i in range(len(self)))

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`. Raises `UnreadableImage` for a row without an image."""
        group, row = self._row(i)
        try:
            data = self._columns(group)[0][row].as_py()
        except (OSError, pa.ArrowException) as error:
            raise UnreadableImage(f"its row group cannot be read: {one_line(error)}") from None
        if data is None:
            raise UnreadableImage("the row holds no bytes")
        return bytes(data)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {one_line(error)}") from None


def open_parquet(spec: str, root: Path) -> Source:
    """Open a folder of Parquet files; class names come from the schema's `huggingface` metadata or else are numbers."""
    paths = shards(root)
    first = next(iter(next(iter(paths.values()))))
    schema = _open(first).schema_arrow
    features = _features(schema)
    image = _image_column(first, schema)
    labels = [name for name in _LABELS if name in schema.names]
    labels += [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"]
    if not labels:
        raise DataError(f"{first}: it has no label column, only {', '.join(schema.names)}")
    label = labels[0]
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{first}: column {label} holds {schema.field(label).type}, but labels must be integers")
    splits: dict[str, Split] = {}
    for name in ("train", "val", "test"):
        if name in paths:
            for path in paths[name]:
                other = _open(path).schema_arrow
                missing = {image, label} - set(other.names)
                if missing:
                    raise DataError(f"{path}: column {missing.pop()} is missing, which {first.name} has")
                if _features(other).get(label, features.get(label)) != features.get(label):
                    raise DataError(f"{path}: its class names or their order differ from those of {first.name}")
            splits[name] = ParquetSplit(name, paths[name], image, label)
    kind = features.get(label)
    names = kind.get("names") if isinstance(kind, dict) else None
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if not names:
        highest = max(int(split.labels.max(initial=-1)) for split in splits.values())
        names = [str(number) for number in range(highest + 1)]
    return check_source(spec, [str(name) for name in names], splits)


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _image_column(path: Path, schema: pa.Schema) -> str:
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    for field in schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return str(field.name)
    raise DataError(f"{path}: it has no image column, only {', '.join(schema.names)}")
