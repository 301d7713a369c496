"""Prepare a store: every image of a source decoded, squared and written once, with the statistics in the same pass.

Work is done shard by shard; a shard is a pure function of the source and the settings, so a run that was killed goes on
with the shards that are missing and ends with the same bytes. S the side of the squares.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path
from typing import cast

import numpy as np

from alexnet.data.dataset import OnProgress, Source, Split, too_many_unreadable
from alexnet.data.preprocess import SCALING_ROOM
from alexnet.data.readers.folder import FolderSplit
from alexnet.data.readers.labels import check_names
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_format import (
    CODECS,
    MOST_IMAGES,
    MOST_MANIFEST,
    NPY_HEADER,
    Manifest,
    SourceSplit,
    StoredFile,
    is_store,
    manifest_of,
    read_manifest,
    record_bytes,
    record_shape,
    shard_file,
)
from alexnet.data.readers.words import write_words
from alexnet.data.statistics import MOST_SIDE, Accumulator
from alexnet.data.store.manifest import (
    Record,
    ShardRecord,
    difference,
    finish,
    load_shard,
    load_sums,
    save_shard,
    write_unreadable,
)
from alexnet.data.store.squares import Chunk, Settings, SquaredChunk, chunks, square_one, work_on
from alexnet.data.store.verify import damage
from alexnet.data.store.writers import RecordShard, TarShard
from alexnet.device import cpu_count
from alexnet.environment import version
from alexnet.errors import AlexnetError, DataError, quoted
from alexnet.files import atomic_write, lock, remove_leftovers, write_json
from alexnet.records import read_json

SHARD_IMAGES = 4096
UNFINISHED = "unfinished"
ROOM = 0.8  # of the free disk: what a store may take whose codec nobody chose
_LIBRARIES = ("alexnet", "numpy", "pillow", "simplejpeg", "torch", "pyarrow")


class PrepareError(AlexnetError):
    """The preparation had to stop; the message says why and how to go on. What was finished is kept."""


def prepare(
    source: str | os.PathLike[str] | Source,
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    codec: str | None = None,
    quality: int = 90,
    exif_rotate: bool = False,
    strict: bool = False,
    workers: int | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], object] | None = None,
    shard_images: int = SHARD_IMAGES,
    download: bool = False,
) -> Manifest:
    """Turn a source into a store at `out` and return its manifest.

    The shorter side is rescaled to `size` and the central square cut (paper §2). `codec` is yuv420 (luma and halved
    chroma as bytes), raw (the pixels, twice as large) or jpeg (small, at `quality`); None takes yuv420 where that needs
    at most `ROOM` of the free disk, else jpeg, and calls `note` with a line that says so. EXIF orientation is applied
    only with `exif_rotate`. Files that cannot be read are left out and listed in report.csv, unless they are too many
    (`too_many_unreadable`); `strict` stops at the first. `progress(done, total)` is called after every few images. A
    run that was stopped at any moment continues when called again with the same arguments; a finished store is returned
    as it is.

    Raises `DataError` for a wrong request, `PrepareError` when the work fails (files unreadable, disk full).
    """
    if codec is not None and codec not in CODECS:
        raise DataError(f"there is no codec {codec!r}; choose yuv420 (fast), raw (exact) or jpeg (small)")
    if not 1 <= size <= MOST_SIDE or not 1 <= quality <= 100 or shard_images < 1:
        raise DataError(f"size must be 1 to 4096 and quality 1 to 100, not {size} and {quality}")
    if workers is not None and workers < 0:
        raise DataError(f"workers must be at least 0, not {workers}")
    opened = source if isinstance(source, Source) else open_source(source, download=download)
    root = Path(out).expanduser()
    codec = codec or _choose_codec(opened, root, size, note)
    settings = Settings(size, codec, quality if codec == "jpeg" else 0, exif_rotate)
    wanted = _describe(opened, settings, shard_images)
    work = root / UNFINISHED
    if is_store(root):
        return _already_there(root, work, wanted)
    for split in opened.splits.values():
        if isinstance(split, FolderSplit) and Path(split.root).resolve() in root.resolve().parents:
            raise DataError(f"{root}: it would be a class folder of {opened.spec}; choose a folder outside")
    _check_source(opened)
    _enter(root, work, wanted)
    busy = DataError(f"{root}: another preparation is at work there; wait for it")
    with _disk_errors(root), lock(work / "lock", busy):
        if is_store(root):
            return _already_there(root, work, wanted)
        _make_folders(root, opened)
        _make_shards(opened, root, work, settings, shard_images, strict, workers, progress)
        write_words(opened, root)
        manifest = finish(root, work, wanted, {name: len(split) for name, split in opened.splits.items()})
        _tidy(work)
    return manifest


def _choose_codec(source: Source, root: Path, size: int, note: Callable[[str], object] | None) -> str:
    """The codec of a store that names none: that of what is finished or begun there, else by the room on the disk."""
    if is_store(root):
        return read_manifest(root).codec
    with contextlib.suppress(DataError, FileNotFoundError):  # what is wrong with it is said on entering
        begun = read_json(root / UNFINISHED / "settings.json", MOST_MANIFEST, DataError).get("codec")
        if isinstance(begun, str) and begun in CODECS:
            return begun
    with _disk_errors(root):
        place = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
    needed = sum(map(len, source.splits.values())) * record_bytes("yuv420", size)
    codec = "yuv420" if needed <= ROOM * free else "jpeg"
    if note is not None:
        room = f"{needed / 1e9:,.3g} GB, and {free / 1e9:,.3g} GB are free"
        note(f"codec yuv420 needs {room}" if codec == "yuv420" else f"codec jpeg, for yuv420 needs {room}")
    return codec


def _describe(source: Source, settings: Settings, shard_images: int) -> Manifest:
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
            "subsampling": None if settings.codec == "raw" else "420",
        },
        versions={name: version(name) or "not installed" for name in _LIBRARIES}
        | {"python": platform.python_version()},
        classes=source.classes,
        source_splits={name: SourceSplit(len(split), digest[name]) for name, split in source.splits.items()},
        splits={},
        files={},
    )


def _check_source(source: Source) -> None:
    """Refuse what a store could not hold: too many images, names of classes that are there twice or of any bytes."""
    if (largest := max(map(len, source.splits.values()))) > MOST_IMAGES:
        raise DataError(f"{source.spec}: a split of it has {largest:,} images; a store holds {MOST_IMAGES:,} of each")
    for name in check_names(source.spec, source.classes):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{source.spec}: the class name {quoted(name)} is not text in UTF-8; rename it") from None


def _already_there(root: Path, work: Path, wanted: Manifest) -> Manifest:
    manifest = read_manifest(root)
    if what := difference(manifest, wanted, ("size", "codec", "settings", "classes", "source_splits")):
        raise DataError(
            f"{root}: a finished store lies there, with {what}; choose a new folder, or delete {root} to make it again"
        )
    _tidy(work)
    return manifest


def _tidy(work: Path) -> None:
    """Remove what is only needed while shards are missing."""
    shutil.rmtree(work, ignore_errors=True)


def _make_folders(root: Path, source: Source) -> None:
    """Make the splits' folders, and remove what a killed process was writing."""
    for folder in (root, *(root / name for name in source.splits)):
        if folder.is_symlink() and folder != root:
            raise DataError(f"{folder}: it is a link; a store's files lie in its own folder")
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)


def _enter(root: Path, work: Path, wanted: Manifest) -> None:
    """Make the folder, or make sure that what lies unfinished there is the same work."""
    path = work / "settings.json"
    if not work.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(f"{root}: it exists and is neither empty nor a store; choose another folder")
        try:
            work.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{root}: the folder cannot be made: {error.strerror}") from None
    if not path.exists():
        with _disk_errors(root):
            write_json(path, wanted.to_json())
        return
    try:
        begun = manifest_of(read_json(path, MOST_MANIFEST, DataError), path)
    except DataError as error:
        raise DataError(f"{error}; delete {root} to start again") from None
    if what := difference(begun, wanted, [field.name for field in dataclasses.fields(Manifest)]):
        raise DataError(
            f"{root}: an unfinished preparation lies there, with {what}; go on with it by its own command and "
            f"pictures, choose a new folder, or delete {root} to start again"
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
    settings: Settings,
    shard_images: int,
    strict: bool,
    workers: int | None,
    progress: OnProgress | None,
) -> None:
    """Write every shard that is not there yet."""
    total = sum(len(split) for split in source.splits.values())
    shards = [
        Chunk(split, first // shard_images, first, min(len(split), first + shard_images))
        for split in source.splits.values()
        for first in range(0, len(split), shard_images)
    ]
    missing: list[Chunk] = []
    dropped, done = _Dropped(strict, root, work, source.spec), 0
    for shard in shards:
        records = _finished(shard, root, work, settings)
        if records is None:
            missing.append(shard)
        else:
            dropped.add(shard.split, records)
            done += len(records)
    _check_room(root, settings, total - done)
    if progress is not None:
        progress(done, total)
    results = work_on(chunks(missing, _per_chunk(settings.size)), settings, workers or cpu_count())
    with contextlib.closing(results):
        for chunk in missing:
            file = root / shard_file(chunk.split.name, chunk.shard, settings.codec)
            with atomic_write(file, "w+b") as opened:
                writer = _Writer(cast(BufferedRandom, opened), settings, chunk)
                while writer.images < chunk.last - chunk.first:
                    part = next(results)
                    dropped.add(chunk.split, part.records)
                    writer.add(part)
                    done += len(part.records)
                    if progress is not None and writer.images < chunk.last - chunk.first:
                        progress(done, total)
                digest = writer.file.finish()
            shard_record = ShardRecord(writer.count, file.stat().st_size, digest, writer.records)
            save_shard(work, chunk.split.name, chunk.shard, shard_record, writer.sums)
            if progress is not None:
                progress(done, total)


def _finished(shard: Chunk, root: Path, work: Path, settings: Settings) -> list[Record] | None:
    """Return the records of a shard that an earlier process finished, or None where it has to be made (again).

    That is so where a file is damaged, and where a source file that could not be read is mended since.
    """
    kept = load_shard(work, shard.split.name, shard.shard)
    if kept is None or len(kept.records) != shard.last - shard.first:
        return None
    if shard.split.name == "train" and load_sums(work, "train", shard.shard, settings.size) is None:
        return None
    if settings.codec != "jpeg" and kept.bytes != NPY_HEADER + kept.count * record_bytes(settings.codec, settings.size):
        return None  # of other settings
    stored = StoredFile(kept.bytes, kept.sha256)
    if damage(root, shard_file(shard.split.name, shard.shard, settings.codec), stored):
        return None
    scratch = np.empty((settings.size, settings.size, 3), np.uint8)
    for i, record in enumerate(kept.records, shard.first):
        if record.reason and not square_one(shard.split, i, settings, scratch).reason:
            return None
    return kept.records


def _per_chunk(size: int) -> int:
    """Return how many images a thread takes at a time: few enough to stay in the cache, enough to be worth handing."""
    return max(8, min(256, (1 << 19) // size**2))


class _Dropped:
    """Counts the files that cannot be read, and stops the work where they are too many."""

    def __init__(self, strict: bool, root: Path, work: Path, spec: str) -> None:
        self._strict, self._root, self._list, self._spec = strict, root, work / "unreadable.csv", spec
        self._records: dict[str, list[Record]] = {}

    def add(self, split: Split, records: list[Record]) -> None:
        """Raises `PrepareError` that names the first of them, with a list of all beside the unfinished store."""
        dropped = self._records.setdefault(split.name, [])
        dropped += (record for record in records if record.reason)
        if not dropped or not (self._strict or too_many_unreadable(len(dropped), len(split))):
            return
        few = "; ".join(
            f"{quoted(record.file)[1:-1]}: {record.reason}" for record in dropped[: 1 if self._strict else 3]
        )
        if self._strict:
            raise PrepareError(f"{few}; mend or remove it, or prepare without --strict")
        write_unreadable(self._list, split.name, dropped)
        raise PrepareError(
            f"{split.name}: {len(dropped):,} of {len(split):,} pictures cannot be read, too many to leave out; mend "
            f"them and give the same command again, or remove them and delete {self._root} or choose a new folder; "
            f"those met so far are listed in {self._list}, and `alexnet data verify {self._spec} --json` lists all; "
            f"the first: {few}"
        )


def _check_room(root: Path, settings: Settings, images: int) -> None:
    """Refuse what cannot fit before work begins; JPEG sizes are not known then."""
    if settings.codec == "jpeg":
        return
    needed, free = images * record_bytes(settings.codec, settings.size), shutil.disk_usage(root).free
    if needed > free:
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


class _Writer:
    """One shard in the making: its file, its records and its sums. `images` counts those of the source so far."""

    def __init__(self, file: BufferedRandom, settings: Settings, shard: Chunk) -> None:
        self.file: RecordShard | TarShard
        if settings.codec == "jpeg":
            self.file = TarShard(file, shard.first)
        else:
            self.file = RecordShard(file, record_shape(settings.codec, settings.size), shard.last - shard.first)
        self.records: list[Record] = []
        self.sums = Accumulator(settings.size) if shard.split.name == "train" else None

    @property
    def images(self) -> int:
        return len(self.records)

    @property
    def count(self) -> int:
        """Images in the shard."""
        return sum(not record.reason for record in self.records)

    def add(self, part: SquaredChunk) -> None:
        """Append a chunk."""
        payloads = iter(part.payloads)
        for record in part.records:
            if not record.reason:
                record = record.at(*self.file.add(next(payloads), record.label))
            self.records.append(record)
        if self.sums is not None and part.sums is not None:
            self.sums.merge(part.sums)
