"""Prepare a store: every image of a source decoded, squared and written once, with the statistics in the same pass.

Work is done shard by shard; a shard is a pure function of the source and the settings, so a run that was killed goes on
with the shards that are missing and ends with the same bytes. S the side of the squares.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import shutil
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from alexnet.data.dataset import OnProgress, Source, Split
from alexnet.data.decode import notes_of
from alexnet.data.preprocess import SCALING_ROOM, decode_square
from alexnet.data.readers.folder import FolderSplit
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import CODECS, Manifest, is_store, read_manifest
from alexnet.data.readers.words import write_words
from alexnet.data.statistics import Accumulator
from alexnet.data.store.manifest import Record, ShardRecord, finish, load_shard, save_shard, shard_file
from alexnet.data.store.writers import RawShard, TarShard
from alexnet.device import cpu_count
from alexnet.environment import version
from alexnet.errors import AlexnetError, DataError, UnreadableImage
from alexnet.files import atomic_write, lock, write_json

SHARD_IMAGES = 4096
TINY = 32  # a shorter side below this is reported as tiny
UNFINISHED = "unfinished"
_LIBRARIES = ("alexnet", "numpy", "pillow", "simplejpeg", "torch", "pyarrow")


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
    progress: OnProgress | None = None,
    shard_images: int = SHARD_IMAGES,
    download: bool = False,
) -> Manifest:
    """Turn a source into a store at `out` and return its manifest.

    The shorter side is rescaled to `size` and the central square cut (paper §2). `codec` is raw (uint8 pixels,
    fastest to read) or jpeg (small, at `quality`). EXIF orientation is applied only with `exif_rotate`. Files that
    cannot be read are left out and listed in report.csv; `strict` stops at the first instead. `progress(done, total)`
    is called after every few images. A run that was stopped at any moment continues when called again with the same
    arguments; a finished store is returned as it is.

    Raises `DataError` for a wrong request, `PrepareError` when the work fails (unreadable with `strict`, disk full).
    """
    if codec not in CODECS:
        raise DataError(f"there is no codec {codec!r}; choose raw (fastest) or jpeg (small)")
    if not 1 <= size <= 4096 or not 1 <= quality <= 100 or shard_images < 1:
        raise DataError(f"size must be 1 to 4096 and quality 1 to 100, not {size} and {quality}")
    if workers is not None and workers < 0:
        raise DataError(f"workers must be at least 0, not {workers}")
    opened = source if isinstance(source, Source) else open_source(source, download=download)
    root = Path(out).expanduser()
    settings = _Settings(size, codec, quality if codec == "jpeg" else 0, exif_rotate)
    wanted = _describe(opened, settings, shard_images)
    work = root / UNFINISHED
    if is_store(root):
        return _already_there(root, work, wanted)
    for split in opened.splits.values():
        if isinstance(split, FolderSplit) and Path(split.root).resolve() in root.resolve().parents:
            raise DataError(f"{root}: it would be a class folder of {opened.spec}; choose a folder outside")
    _enter(root, work, wanted)
    busy = DataError(f"{root}: another preparation is at work there; wait for it")
    with _disk_errors(root), lock(work / "lock", busy):
        _make_shards(opened, root, work, settings, shard_images, strict, workers, progress)
        write_words(opened, root)
        manifest = finish(root, work, wanted, {name: len(split) for name, split in opened.splits.items()})
    shutil.rmtree(work)
    return manifest


def _describe(source: Source, settings: _Settings, shard_images: int) -> Manifest:
    """Return the part of the manifest that is known before work begins; equal descriptions give equal stores."""
    digest = {
        name: hashlib.sha256(np.ascontiguousarray(split.labels, dtype="<i8").tobytes()).hexdigest()
        for name, split in source.splits.items()
    }
    return Manifest(
        source=source.spec,
        codec=settings.codec,
        size=settings.size,
        settings={
            "quality": settings.quality or None,
            "exif_rotate": settings.exif_rotate,
            "shard_images": shard_images,
            "resampling": "antialiased bilinear",
            "jpeg_scaling_from": 2 * SCALING_ROOM * settings.size,
            "subsampling": "420" if settings.codec == "jpeg" else None,
        },
        versions={name: version(name) or "not installed" for name in _LIBRARIES}
        | {"python": platform.python_version()},
        classes=source.classes,
        source_splits={
            name: {"count": len(split), "labels_sha256": digest[name]} for name, split in source.splits.items()
        },
        splits={},
        files={},
    )


def _already_there(root: Path, work: Path, wanted: Manifest) -> Manifest:
    manifest = read_manifest(root)
    for field in ("size", "codec", "settings", "classes", "source_splits"):
        if getattr(manifest, field) != getattr(wanted, field):
            raise DataError(
                f"{root}: there is a finished store with another {field}; choose another folder for this one"
            )
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _enter(root: Path, work: Path, wanted: Manifest) -> None:
    """Make the folder, or make sure that what lies unfinished there is the same work."""
    path, entry = work / "settings.json", wanted.to_json()
    if not work.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(f"{root}: it exists and is neither empty nor a store; choose another folder")
        try:
            work.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{root}: the folder cannot be made: {error.strerror}") from None
    if not path.exists():
        with _disk_errors(root):
            write_json(path, entry)
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    for field, value in entry.items():
        if begun.get(field) != value:
            raise DataError(
                f"{root}: an unfinished preparation with another {field} lies there; "
                "repeat its command, or delete the folder to start again"
            )


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn what the disk has to say into a `PrepareError` that says how to go on."""
    try:
        yield
    except OSError as error:
        raise PrepareError(_cannot_write(root, error)) from None


def _make_shards(
    source: Source,
    root: Path,
    work: Path,
    settings: _Settings,
    shard_images: int,
    strict: bool,
    workers: int | None,
    progress: OnProgress | None,
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
    results = _work_on(_chunks(missing, _per_chunk(settings.size)), settings, workers or cpu_count())
    with contextlib.closing(results):
        for chunk in missing:
            file = root / shard_file(chunk.split.name, chunk.shard, settings.codec)
            with atomic_write(file, "w+b") as opened:
                writer = _Writer(cast(BufferedRandom, opened), settings, chunk)
                while writer.images < chunk.last - chunk.first:
                    part = next(results)
                    _be_strict(strict, part.records)
                    writer.add(part)
                    done += len(part.records)
                    if progress is not None and writer.images < chunk.last - chunk.first:
                        progress(done, total)
                digest = writer.file.finish()
            shard_record = ShardRecord(writer.count, file.stat().st_size, digest, writer.records)
            save_shard(work, chunk.split.name, chunk.shard, shard_record, writer.sums)
            if progress is not None:
                progress(done, total)


def _work_on(chunks: Iterator[_Chunk], settings: _Settings, threads: int) -> Generator[_SquaredChunk, None, None]:
    """Yield what is made of each chunk, in order; a few per thread are under way, which bounds the memory."""
    waiting: deque[Future[_SquaredChunk]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            while True:
                for chunk in itertools.islice(chunks, 3 * threads - len(waiting)):
                    waiting.append(pool.submit(_square_chunk, chunk, settings))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
    """Refuse what cannot fit before work begins; JPEG sizes are not known then."""
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
class _SquaredChunk:
    """A chunk's records, and the payloads of those that could be read."""

    records: list[Record]
    payloads: list[bytes | memoryview]
    sums: Accumulator | None


def _square_chunk(chunk: _Chunk, settings: _Settings) -> _SquaredChunk:
    """Decode, square and encode a chunk's images, and add up the statistics of the train split."""
    split = chunk.split
    squares = np.empty((chunk.last - chunk.first, settings.size, settings.size, 3), np.uint8)
    records: list[Record] = []
    payloads: list[bytes | memoryview] = []
    for i in range(chunk.first, chunk.last):
        pixels = squares[len(payloads)]
        record = _square_one(split, i, settings, pixels)
        records.append(record)
        if not record.reason:
            payloads.append(_encode(pixels, settings) if settings.codec == "jpeg" else pixels.data)
    sums = None
    if split.name == "train":
        sums = Accumulator(settings.size)
        sums.add(squares[: len(payloads)])
    return _SquaredChunk(records, payloads, sums)


def _square_one(split: Split, i: int, settings: _Settings, out: NDArray[np.uint8]) -> Record:
    """Square image i into `out`, (S, S, 3), and return what is known of its file."""
    name, label, size = _printable(split.image_name(i)), int(split.labels[i]), settings.size
    digest = b""
    try:
        data = split.read_bytes(i)
        digest = hashlib.sha256(data).digest()
        decoded = decode_square(data, size, settings.exif_rotate)
        out[:] = decoded.pixels
    except UnreadableImage as error:
        return Record(name, digest, label, 0, 0, "", str(error) or "it cannot be decoded")
    notes = list(notes_of(decoded, name))
    shorter = min(decoded.height, decoded.width)
    if shorter < TINY and shorter < size:
        notes.append(f"tiny, {decoded.width}x{decoded.height}")
    if shorter < size:
        notes.append(f"upscaled from {shorter} to {size}")
    return Record(name, digest, label, decoded.height, decoded.width, "; ".join(notes), "")


def _encode(pixels: NDArray[np.uint8], settings: _Settings) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels, settings.quality, "RGB", "420"))


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class _Writer:
    """One shard in the making: its file, its records and its sums. `images` counts those of the source so far."""

    def __init__(self, file: BufferedRandom, settings: _Settings, shard: _Chunk) -> None:
        self.file: RawShard | TarShard
        if settings.codec == "raw":
            self.file = RawShard(file, settings.size, shard.last - shard.first)
        else:
            self.file = TarShard(file, shard.first)
        self.records: list[Record] = []
        self.sums = Accumulator(settings.size) if shard.split.name == "train" else None

    @property
    def images(self) -> int:
        return len(self.records)

    @property
    def count(self) -> int:
        """Images in the shard."""
        return sum(not record.reason for record in self.records)

    def add(self, part: _SquaredChunk) -> None:
        """Append a chunk."""
        payloads = iter(part.payloads)
        for record in part.records:
            if not record.reason:
                record = record.at(*self.file.add(next(payloads), record.label))
            self.records.append(record)
        if self.sums is not None and part.sums is not None:
            self.sums.merge(part.sums)
