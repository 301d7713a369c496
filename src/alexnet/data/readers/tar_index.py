"""Tar files read without unpacking: an index of where each member's bytes lie, also within tars inside a tar."""

import hashlib
import os
import tarfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from alexnet.data.dataset import Labels, Split
from alexnet.data.mmap_cache import MmapCache
from alexnet.data.readers.names import Names
from alexnet.errors import DataError
from alexnet.files import cache_folder, write_npz

# An index is kept for later openings once there are this many members: a million takes about a minute to find.
CACHED_FROM = 20_000


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, the offset of its bytes in the outermost file, and their number."""

    name: str
    offset: int
    size: int


class _Window(RawIOBase):
    """A part of a file as a file of its own, for reading a tar inside a tar."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, where: int, whence: int = 0) -> int:
        self._at = max(0, where + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, n: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._offset + self._at)
        data = self._file.read(left if n < 0 else min(n, left))
        self._at += len(data)
        return data


def members(path: Path, offset: int = 0, size: int | None = None) -> Iterator[Member]:
    """Yield the regular files of a tar, or of a tar at `offset` within a file, in the archive's order.

    Raises `DataError` if it is no plain tar or ends too soon.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            whole = os.fstat(file.fileno()).st_size
            view = _Window(cast(BinaryIO, file), offset, whole - offset if size is None else size)
            with tarfile.open(fileobj=cast(BinaryIO, view), mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps every one of a million
                    if info.isreg() and not info.issparse():
                        if offset + info.offset_data + info.size > whole:
                            raise DataError(f"{path}: the archive is cut short within {info.name}; fetch it again")
                        yield Member(info.name, offset + info.offset_data, info.size)
                # tarfile takes a missing or broken header for the end; a whole archive ends with a block of zeros.
                view.seek(archive.offset)
                if view.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise DataError(f"{path}: the archive is damaged or cut short; fetch it again")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such archive") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: it is no readable uncompressed tar: {error}") from None


class TarSplit(Split):
    """Images at known places in tar files: which file (N,), offset (N,), size (N,) and name of each."""

    def __init__(
        self,
        name: str,
        paths: list[Path],
        labels: Labels,
        files: NDArray[np.int32],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        names: Names,
    ) -> None:
        self.name = name
        self.paths = paths
        self.labels = labels
        self._files, self._offsets, self._sizes, self._names = files, offsets, sizes, names
        self._mapped = MmapCache(paths)

    def image_name(self, i: int) -> str:
        return self._names[i]

    def read_bytes(self, i: int) -> bytes:
        view = self._mapped.slice(int(self._files[i]), int(self._offsets[i]), int(self._sizes[i]))
        return view.tobytes()


@dataclass(frozen=True)
class Index:
    """Where the members of several tars lie: file (N,), group (N,), offset (N,), size (N,) and name of each.

    `groups` are the names that members are gathered under (such as the synset a tar holds).
    """

    files: NDArray[np.int32]
    group: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: Names
    groups: tuple[str, ...]

    def split(self, name: str, paths: list[Path], labels: Labels) -> TarSplit:
        """Return the members as a split with these labels (N,)."""
        return TarSplit(name, paths, labels, self.files, self.offsets, self.sizes, self.names)


def index(paths: list[Path], kind: str, find: Callable[[int, Path], Iterable[tuple[str, Member]]]) -> Index:
    """Collect what `find(number, path)` yields for each tar, (group, member), into an index.

    Large indexes are kept in the user's cache folder under the files' paths, sizes and times, and read back.
    """
    place = _cache_place(paths, kind)
    if place.exists():
        kept = _read(place)
        if kept is not None:
            return kept
    # Flat arrays: a list of a million objects a field would take gigabytes for the larger archives.
    files, group, offsets, sizes, ends = array("i"), array("i"), array("q"), array("q"), array("q")
    block = bytearray()
    groups: dict[str, int] = {}
    for number, path in enumerate(paths):
        for where, member in find(number, path):
            files.append(number)
            group.append(groups.setdefault(where, len(groups)))
            offsets.append(member.offset)
            sizes.append(member.size)
            block += os.fsencode(member.name)
            ends.append(len(block))
    made = Index(
        np.array(files, np.int32),
        np.array(group, np.int32),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        Names.of(np.frombuffer(bytes(block), np.uint8), np.array(ends, np.int64)),
        tuple(groups),
    )
    if len(made.names) >= CACHED_FROM:
        _write(place, made)
    return made


def _cache_place(paths: list[Path], kind: str) -> Path:
    digest = hashlib.sha256(kind.encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return cache_folder() / f"tars-{digest.hexdigest()[:24]}.npz"


def _read(place: Path) -> Index | None:
    try:
        with np.load(place, allow_pickle=False) as kept:
            groups = Names.of(kept["groups"], kept["group_ends"])
            return Index(
                kept["files"],
                kept["group"],
                kept["offsets"],
                kept["sizes"],
                Names.of(kept["names"], kept["ends"]),
                tuple(groups[i] for i in range(len(groups))),
            )
    except Exception:  # A damaged cache is only a cache: it is made again.
        return None


def _write(place: Path, made: Index) -> None:
    groups = Names(made.groups)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_npz(
            place,
            {
                "files": made.files,
                "group": made.group,
                "offsets": made.offsets,
                "sizes": made.sizes,
                "names": made.names.block,
                "ends": made.names.ends,
                "groups": groups.block,
                "group_ends": groups.ends,
            },
        )
    except OSError:
        return  # No room for a cache, or no home to keep it in: the index is made anew next time.
