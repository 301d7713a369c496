"""An index of many tars' members, to read images without unpacking, also out of tars inside a tar."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alexnet.data.dataset import Labels, Split
from alexnet.data.mmap_cache import MmapCache
from alexnet.data.readers.tar import Member
from alexnet.errors import DataError
from alexnet.files import atomic_write, cache_folder

# An index is kept for later openings once there are this many members: a million takes about a minute to find.
CACHED_FROM = 20_000
_COLUMNS = ("file", "group", "offset", "size", "name")


@dataclass(frozen=True)
class Index:
    """Where the members of several tars lie: file (N,), group (N,), offset (N,), size (N,) and name of each.

    `groups` are the names that members are gathered under (such as the synset a tar holds); `names` is an Arrow array
    of binary, because millions of Python strings would take gigabytes.
    """

    files: NDArray[np.int32]
    group: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: pa.LargeBinaryArray
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, i: int) -> str:
        """Return a member's name."""
        return os.fsdecode(self.names[i].as_py())

    def sorted_by_name(self) -> Index:
        """Return the index in order of the names' bytes."""
        ranking = np.array(sorted(range(len(self)), key=[name.as_py() for name in self.names].__getitem__), np.int64)
        return Index(
            self.files[ranking],
            self.group[ranking],
            self.offsets[ranking],
            self.sizes[ranking],
            self.names.take(pa.array(ranking)),
            self.groups,
        )


class TarSplit(Split):
    """The members of an index as images with labels (N,)."""

    def __init__(self, name: str, paths: list[Path], labels: Labels, index: Index) -> None:
        self.name = name
        self.paths = paths
        self.labels = labels
        self._index = index
        self._mapped = MmapCache(paths)

    def image_name(self, i: int) -> str:
        """As `Split.image_name`."""
        return self._index.name(i)

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`."""
        index = self._index
        return self._mapped.slice(int(index.files[i]), int(index.offsets[i]), int(index.sizes[i])).tobytes()


def build_index(paths: list[Path], kind: str, find: Callable[[int, Path], Iterable[tuple[str, Member]]]) -> Index:
    """Collect what `find(number, path)` yields for each tar, (group, member), into an index.

    Large indexes are kept in the user's cache folder under the files' paths, sizes and times, and read back.
    """
    path = _cache_path(paths, kind)
    if path and path.is_file() and (kept := _read(path)) is not None:
        return kept
    # Flat arrays: a list of a million objects per field would take gigabytes for the larger archives.
    files, group, offsets, sizes, ends = array("i"), array("i"), array("q"), array("q"), array("q", [0])
    block = bytearray()
    groups: dict[str, int] = {}
    for number, tar in enumerate(paths):
        for gathered_under, member in find(number, tar):
            files.append(number)
            group.append(groups.setdefault(gathered_under, len(groups)))
            offsets.append(member.offset)
            sizes.append(member.size)
            block += os.fsencode(member.name)
            ends.append(len(block))
    buffers = [None, pa.py_buffer(np.array(ends, np.int64)), pa.py_buffer(bytes(block))]
    index = Index(
        np.array(files, np.int32),
        np.array(group, np.int32),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(files), buffers),
        tuple(groups),
    )
    if path and len(index) >= CACHED_FROM:
        _write(path, index)
    return index


def _cache_path(paths: list[Path], kind: str) -> Path | None:
    """Where the index of these tars is kept; None where the user has no home. Raises `DataError` for a missing one."""
    digest = hashlib.sha256(kind.encode())
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: it cannot be read: {error.strerror}") from None
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    try:
        return cache_folder() / f"tars-{digest.hexdigest()[:24]}.arrow"
    except RuntimeError:
        return None


def _read(path: Path) -> Index | None:
    try:
        with pa.memory_map(os.fspath(path)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        files, group, offsets, sizes, names = (table.column(name).chunk(0) for name in _COLUMNS)
        groups = tuple(json.loads(table.schema.metadata[b"groups"]))
        index = Index(files.to_numpy(), group.to_numpy(), offsets.to_numpy(), sizes.to_numpy(), names, groups)
        return index if table.schema.metadata[b"sha256"].decode() == _digest(index) else None
    except Exception:  # A damaged cache is only a cache: it is made again.
        return None


def _write(path: Path, index: Index) -> None:
    table = pa.table(
        dict(zip(_COLUMNS, (index.files, index.group, index.offsets, index.sizes, index.names), strict=True))
    )
    table = table.replace_schema_metadata({"groups": json.dumps(index.groups), "sha256": _digest(index)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    except OSError:
        return  # no room for a cache: the index is made again next time


def _digest(index: Index) -> str:
    """The sha256 of an index: a flipped bit in an offset would give other bytes for an image."""
    digest = hashlib.sha256(repr(index.groups).encode(errors="surrogateescape"))
    for values in (index.files, index.group, index.offsets, index.sizes):
        digest.update(values.tobytes())
    for buffer in index.names.buffers():
        digest.update(buffer or b"")
    return digest.hexdigest()
