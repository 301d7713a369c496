"""Prepare a store: every image of a source decoded, squared and written once, with the statistics in the same pass.

Work is done shard by shard; a shard is a pure function of the source and the settings, so a run that was killed goes on
with the shards that are missing and ends with the same bytes. S the side of the squares.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from alexnet.data.dataset import Source, Split
from alexnet.data.preprocess import SCALING_ROOM, decode_square
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import CODECS, FORMAT, MANIFEST, VERSION, is_store, read_manifest
from alexnet.data.statistics import Accumulator
from alexnet.data.store.manifest import Record, ShardRecord, finish, load_shard, save_shard, shard_places
from alexnet.data.store.writers import RawShard, TarShard
from alexnet.device import cpu_count
from alexnet.errors import AlexnetError, DataError, UnreadableImage

SHARD_IMAGES = 4096
TINY = 32  # a shorter side below this is reported as tiny
UNFINISHED = "unfinished"
_LIBRARIES = ("alexnet", "numpy", "pillow", "simplejpeg", "torch", "pyarrow")
_JPEG_ENDINGS = (".jpg", ".jpeg")

Progress = Callable[[int, int], None]


class PrepareError(AlexnetError):
    """The preparation had to stop; the message says why and how to go on. What was finished is kept."""


@dataclass(frozen=True)
class _Chunk:
    """Some neighbouring images of a shard: the unit of work of a thread."""

    split: Split
    shard: int
    first: int
    last: int


@dataclass(frozen=True)
class _Settings:
    """Everything the bytes of a store depend on besides the source's images."""

    size: int
    codec: str
    quality: int
    exif_rotate: bool


def prepare(
    source: str | os.PathLike[str] | Source,
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    codec: str = "raw",
    quality: int = 90,
    exif_rotate: bool = False,
    strict: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    shard_images: int = SHARD_IMAGES,
    download: bool = False,
) -> dict[str, Any]:
    """Turn a source into a store at `out` and return its manifest.

    The shorter side is rescaled to `size` and the central square cut (paper, section 2). `codec` is raw (uint8 pixels,
    fastest to read) or jpeg (small, at `quality`). EXIF orientation is applied only with `exif_rotate`. Files that
    cannot be read are left out and listed in report.csv; `strict` stops at the first instead. `progress(done, total)`
    is told after every few images. A run that was stopped at any moment continues when called again with the same
    arguments; a finished store is returned as it is.

    Raises `DataError` for a wrong request, `PrepareError` when the work fails (unreadable with `strict`, disk full).
    """
    if codec not in CODECS:
        raise DataError(f"there is no codec {codec!r}; choose raw (fastest) or jpeg (small)")
    if not 1 <= size <= 4096 or not 1 <= quality <= 100 or shard_images < 1:
        raise DataError(f"size must be 1 to 4096 and quality 1 to 100, not {size} and {quality}")
    opened = source if isinstance(source, Source) else open_source(source, download=download)
    root = Path(out).expanduser()
    settings = _Settings(size, codec, quality if codec == "jpeg" else 0, exif_rotate)
    wanted = _describe(opened, settings, shard_images)
    work = root / UNFINISHED
    if is_store(root):
        return _already_there(root, work, wanted)
    _enter(root, work, wanted)
    with _locked(root, work):
        _make_shards(opened, root, work, settings, shard_images, strict, workers, progress)
        try:
            manifest = finish(root, work, wanted, {name: len(split) for name, split in opened.splits.items()})
        except OSError as error:
            raise PrepareError(_cannot_write(root, error)) from None
    shutil.rmtree(work)
    return manifest


def _describe(source: Source, settings: _Settings, shard_images: int) -> dict[str, Any]:
    """Return the part of the manifest that is known beforehand; equal descriptions give equal stores."""
    digest = {
        name: hashlib.sha256(np.ascontiguousarray(split.labels, dtype="<i8").tobytes()).hexdigest()
        for name, split in source.splits.items()
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": source.spec,
        "codec": settings.codec,
        "size": settings.size,
        "settings": {
            "quality": settings.quality or None,
            "exif_rotate": settings.exif_rotate,
            "shard_images": shard_images,
            "resampling": "antialiased bilinear",
            "jpeg_scaling_from": 2 * SCALING_ROOM * settings.size,
            "subsampling": "420" if settings.codec == "jpeg" else None,
        },
        "versions": {name: _version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        "classes": list(source.classes),
        "source_splits": {
            name: {"count": len(split), "labels_sha256": digest[name]} for name, split in source.splits.items()
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _already_there(root: Path, work: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    manifest = read_manifest(root)
    for field in ("size", "codec", "settings", "classes", "source_splits"):
        if manifest.get(field) != wanted[field]:
            raise DataError(
                f"{root}: there is a finished store with another {field}; choose another folder for this one"
            )
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _enter(root: Path, work: Path, wanted: dict[str, Any]) -> None:
    """Make the folder, or make sure that what lies unfinished there is the same work."""
    place = work / "settings.json"
    if not work.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(f"{root}: it exists and is neither empty nor a store; choose another folder")
        try:
            work.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{root}: the folder cannot be made: {error.strerror}") from None
    if place.exists():
        begun = json.loads(place.read_text(encoding="utf-8"))
        for field, value in wanted.items():
            if begun.get(field) != value:
                raise DataError(
                    f"{root}: an unfinished preparation with another {field} lies there; "
                    "repeat its command, or delete the folder to start anew"
                )
        return
    beside = work / "settings.json.part"
    try:
        beside.write_text(json.dumps(wanted), encoding="utf-8")
        os.replace(beside, place)
    except OSError as error:
        raise PrepareError(_cannot_write(root, error)) from None


@contextmanager
def _locked(root: Path, work: Path) -> Iterator[None]:
    """Keep a second preparation out of the same folder; the system frees the lock when the process ends in any way."""
    try:
        import fcntl
    except ImportError:  # Not on this platform; two runs at once are then the user's to avoid.
        yield
        return
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{root}: another preparation is at work there; wait for it") from None
        yield


def _make_shards(
    source: Source,
    root: Path,
    work: Path,
    settings: _Settings,
    shard_images: int,
    strict: bool,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Write every shard that is not there yet."""
    total = sum(len(split) for split in source.splits.values())
    missing: list[_Chunk] = []
    done = 0
    for name, split in source.splits.items():
        (root / name).mkdir(exist_ok=True)
        for shard in range(-(-len(split) // shard_images)):
            first, end = shard * shard_images, min(len(split), (shard + 1) * shard_images)
            if (finished := load_shard(work, name, shard, columns=("file", "reason"))) is not None:
                _be_strict(strict, finished.records)
                done += end - first
                continue
            missing.append(_Chunk(split, shard, first, end))
    _check_room(root, settings, total - done)
    if progress is not None:
        progress(done, total)
    threads = workers or cpu_count()
    worker = _Worker(settings)
    waiting: deque[tuple[_Chunk, Future[_Done]]] = deque()
    upcoming = _chunks(missing, _per_chunk(settings.size))
    current: _Writer | None = None
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            while True:
                # A few chunks a thread are under way at a time, which bounds the memory.
                while len(waiting) < 3 * threads and (chunk := next(upcoming, None)) is not None:
                    waiting.append((chunk, pool.submit(worker, chunk)))
                if not waiting:
                    break
                chunk, future = waiting.popleft()
                made = future.result()
                _be_strict(strict, made.records)
                if current is None:
                    current = _Writer(root, work, settings, chunk, shard_images)
                current.add(made)
                if chunk.last == current.end:
                    current.close()
                    current = None
                done += chunk.last - chunk.first
                if progress is not None:
                    progress(done, total)
        except OSError as error:
            raise PrepareError(_cannot_write(root, error)) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if current is not None:
                current.abandon()


def _chunks(shards: list[_Chunk], count: int) -> Iterator[_Chunk]:
    """Yield whole shards in parts of `count` images."""
    for shard in shards:
        for at in range(shard.first, shard.last, count):
            yield _Chunk(shard.split, shard.shard, at, min(shard.last, at + count))


def _per_chunk(size: int) -> int:
    """Return how many images a thread takes at a time: few enough to stay in the cache, enough to be worth handing."""
    return max(8, min(256, (1 << 19) // size**2))


def _be_strict(strict: bool, records: list[Record]) -> None:
    if strict:
        for record in records:
            if record.reason:
                raise PrepareError(f"{record.file}: {record.reason}; mend or remove it, or prepare without --strict")


def _check_room(root: Path, settings: _Settings, images: int) -> None:
    """Refuse beforehand what cannot fit; JPEG sizes are not known beforehand."""
    needed = images * settings.size**2 * 3
    free = shutil.disk_usage(root).free
    if settings.codec == "raw" and needed > free:
        raise PrepareError(
            f"{root}: {images} images need {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; "
            "free some, or choose --codec jpeg or a smaller --size"
        )


def _cannot_write(root: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{root}: the disk is full; what is finished is kept: free some space and give the same command again"
    where = error.filename or root
    return (
        f"{where}: {error.strerror or error}; what is finished is kept: give the same command again once it is mended"
    )


@dataclass(frozen=True)
class _Done:
    """A chunk's records, and the payloads of those that could be read."""

    records: list[Record]
    payloads: list[bytes | memoryview]
    sums: Accumulator | None


class _Worker:
    """Decodes, squares and encodes chunks, and adds up the statistics of the train split; called from many threads."""

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._local = threading.local()

    def __call__(self, chunk: _Chunk) -> _Done:
        settings, split = self._settings, chunk.split
        squares = np.empty((chunk.last - chunk.first, settings.size, settings.size, 3), np.uint8)
        records: list[Record] = []
        payloads: list[bytes | memoryview] = []
        for i in range(chunk.first, chunk.last):
            record = self._one(split, i, squares[len(payloads)])
            records.append(record)
            if not record.reason:
                pixels = squares[len(payloads)]
                payloads.append(_encode(pixels, settings) if settings.codec == "jpeg" else pixels.data)
        sums = None
        if split.name == "train":
            sums = Accumulator(settings.size)
            sums.add(squares[: len(payloads)])
        return _Done(records, payloads, sums)

    def _one(self, split: Split, i: int, out: NDArray[np.uint8]) -> Record:
        """Square image i into `out`, (S, S, 3), and return what is known of its file."""
        key, label, size = _printable(split.image_name(i)), int(split.labels[i]), self._settings.size
        digest = b""
        try:
            data = split.read_bytes(i)
            digest = hashlib.sha256(data).digest()
            decoded = decode_square(data, size, self._settings.exif_rotate)
            out[:] = decoded.pixels
        except UnreadableImage as error:
            return Record(key, digest, label, 0, 0, "", str(error) or "it cannot be decoded")
        notes = list(decoded.notes)
        if decoded.format != "JPEG" and key.lower().endswith(_JPEG_ENDINGS):
            notes.insert(0, f"{decoded.format} named JPEG")
        shorter = min(decoded.height, decoded.width)
        if shorter < TINY and shorter < size:
            notes.append(f"tiny, {decoded.width}x{decoded.height}")
        if shorter < size:
            notes.append(f"upscaled from {shorter} to {size}")
        return Record(key, digest, label, decoded.height, decoded.width, "; ".join(notes), "")


def _encode(pixels: NDArray[np.uint8], settings: _Settings) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels, settings.quality, "RGB", "420"))


def _printable(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode("utf-8")


class _Writer:
    """One shard in the making: its file, its records and its sums."""

    def __init__(self, root: Path, work: Path, settings: _Settings, chunk: _Chunk, shard_images: int) -> None:
        name = chunk.split.name
        first = chunk.shard * shard_images
        self.end = min(len(chunk.split), first + shard_images)
        self._work, self._name, self._shard = work, name, chunk.shard
        self._final, self._beside = shard_places(root, name, chunk.shard, CODECS[settings.codec])
        self._records: list[Record] = []
        self._sums = Accumulator(settings.size) if name == "train" else None
        self._file: RawShard | TarShard
        if settings.codec == "raw":
            self._file = RawShard(self._beside, settings.size, self.end - first)
        else:
            self._file = TarShard(self._beside, first)

    def add(self, made: _Done) -> None:
        payloads = iter(made.payloads)
        for record in made.records:
            if not record.reason:
                record = record.at(*self._file.add(next(payloads), record.label))
            self._records.append(record)
        if self._sums is not None and made.sums is not None:
            self._sums.merge(made.sums)

    def close(self) -> None:
        digest = self._file.close()
        count = sum(not record.reason for record in self._records)
        os.replace(self._beside, self._final)
        shard = ShardRecord(count, self._final.stat().st_size, digest, self._records)
        save_shard(self._work, self._name, self._shard, shard, self._sums)

    def abandon(self) -> None:
        self._file.abandon()


__all__ = ["MANIFEST", "PrepareError", "prepare"]
