"""What a store is: its manifest, the files that it names, and what they must be before anything relies on them."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.data.dataset import SPLITS
from alexnet.data.readers.labels import check_names
from alexnet.data.statistics import MOST_SIDE
from alexnet.engine.ycbcr import planes_bytes
from alexnet.errors import DataError, quoted
from alexnet.records import read_json, read_record

MANIFEST, REPORT, STATISTICS = "manifest.json", "report.csv", "statistics.npz"
LABELS, INDEX, FILES = "labels.npy", "index.npy", "files.parquet"
FORMAT, VERSION = "alexnet-store", 1
CODECS = {"yuv420": ".npy", "raw": ".npy", "jpeg": ".tar"}  # and how their shards are called
# The header of a shard of records has this length for any count, so that it can be written last.
NPY_HEADER = 128
FILES_ROWS = 1 << 16  # of a row group of files.parquet; the last one has fewer
MOST_IMAGES = 1 << 25  # of a split
MOST_MANIFEST = 16 << 20  # bytes
_SHA256 = re.compile("[0-9a-f]{64}")


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


@dataclass(frozen=True)
class SourceSplit:
    """A split of the source that a store was made of: its images, and the sha256 of their labels as int64."""

    count: int
    labels_sha256: str


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
    source_splits: dict[str, SourceSplit]
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

    def stored(self) -> dict[str, StoredFile | Shard]:
        """Every file of the store but the manifest, by its path in it."""
        files: dict[str, StoredFile | Shard] = dict(self.files)
        for name, split in self.splits.items():
            files |= {shard.file: shard for shard in split.shards}
            files |= {f"{name}/{file}": known for file, known in split.files.items()}
        return files


def shard_file(split: str, shard: int, codec: str) -> str:
    """Return the path of a shard within its store."""
    return f"{split}/{shard:05d}{CODECS[codec]}"


def record_shape(codec: str, size: int) -> tuple[int, ...]:
    """The shape of an image in a shard of a codec whose images all take the same bytes: raw or yuv420."""
    return (size, size, 3) if codec == "raw" else (planes_bytes(size),)


def record_bytes(codec: str, size: int) -> int:
    """The bytes of such an image."""
    return math.prod(record_shape(codec, size))


def is_store(root: Path) -> bool:
    """Return whether a folder holds a finished store."""
    return (root / MANIFEST).is_file()


def read_manifest(root: Path) -> Manifest:
    """Return a store's manifest. Raises `DataError` naming the first field that no store of this version has."""
    path = root / MANIFEST
    if leads_out(root, path):
        raise DataError(f"{path}: it is a link that leads out of the store")
    try:
        entry = read_json(path, MOST_MANIFEST, DataError)
    except FileNotFoundError:
        raise DataError(f"{path}: it is not there, so {root} is no finished store") from None
    manifest = manifest_of(entry, path)
    check_names(f"{path}: manifest.classes", manifest.classes)
    for field, value, good, wanted in _demands(manifest):
        if not good:
            raise DataError(f"{path}: manifest.{field} {quoted(value)} should be {wanted}")
    return manifest


def manifest_of(entry: Mapping[str, Any], path: Path) -> Manifest:
    """The manifest in a file's JSON, its fields of the right types. Raises `DataError` naming the first of another."""
    rest = dict(entry)
    if rest.pop("format", None) != FORMAT or type(version := rest.pop("version", None)) is not int:
        raise DataError(f"{path}: it is not the manifest of a store; prepare it again")
    if version != VERSION:
        raise DataError(f"{path}: it is of a store of version {version}, not {VERSION}; prepare the store again")
    optional = {field.name: field.default for field in dataclasses.fields(Manifest)}
    optional = {name: value for name, value in optional.items() if value is not dataclasses.MISSING}
    return read_record(Manifest, optional | rest, f"{path}: manifest", DataError)


_Demand = tuple[str, Any, bool, str]  # a field, its value, whether that is good, and what it should be


def _demands(manifest: Manifest) -> Iterator[_Demand]:
    """What the fields of a manifest must hold besides their types, for the files to be where and what they should."""
    yield "codec", manifest.codec, manifest.codec in CODECS, "yuv420, raw or jpeg"
    yield "size", manifest.size, 1 <= manifest.size <= MOST_SIDE, f"from 1 to {MOST_SIDE}"
    yield "classes", manifest.classes, len(manifest.classes) > 1, "the names of two classes or more"
    for name, value in manifest.settings.items():
        yield (
            f"settings.{quoted(name)[1:-1]}",
            value,
            not isinstance(value, dict | list),
            "a text or a number",
        )
    turned = manifest.settings.get("exif_rotate")
    yield "settings.exif_rotate", turned, isinstance(turned, bool), "true or false"
    names = list(manifest.splits)
    yield "splits", names, len(names) > 0 and set(names) <= set(SPLITS), "among train, val and test"
    source = manifest.source_splits
    yield "source_splits", list(source), source.keys() == manifest.splits.keys(), "the same as splits"
    for name, split in manifest.splits.items():
        yield from _demands_of_split(manifest, name, split)
        total = split.count + split.unreadable
        yield f"source_splits.{name}.count", source[name].count, source[name].count == total, f"{total}, as of splits"
    wanted = {REPORT, STATISTICS} if "train" in manifest.splits else {REPORT}
    yield "files", list(manifest.files), manifest.files.keys() == wanted, " and ".join(sorted(wanted))
    for file, known in manifest.stored().items():
        yield f"the sha256 of {file}", known.sha256, bool(_SHA256.fullmatch(known.sha256)), "64 hexadecimal digits"


def _demands_of_split(manifest: Manifest, name: str, split: StoredSplit) -> Iterator[_Demand]:
    where = f"splits.{name}"
    yield f"{where}.count", split.count, 1 <= split.count <= MOST_IMAGES, f"from 1 to {MOST_IMAGES}"
    counts = sum(shard.count for shard in split.shards)
    yield f"{where}.count", split.count, split.count == counts, f"the sum of those of its shards, {counts}"
    yield f"{where}.odd", split.odd, split.odd <= split.count, f"at most {split.count}"
    for number, shard in enumerate(split.shards):
        file, place = shard_file(name, number, manifest.codec), f"{where}.shards[{number}]"
        yield f"{place}.file", shard.file, shard.file == file, quoted(file)
        if manifest.codec != "jpeg":
            length = NPY_HEADER + shard.count * record_bytes(manifest.codec, manifest.size)
            yield f"{place}.bytes", shard.bytes, shard.bytes == length, f"{length}, of so many images"
        else:  # of each image two headers of a tar, and what follows them
            length = 2048 * shard.count + 1024
            yield f"{place}.bytes", shard.bytes, shard.bytes >= length, f"at least {length}, of so many images"
    wanted = {LABELS, FILES, INDEX} if manifest.codec == "jpeg" else {LABELS, FILES}
    yield f"{where}.files", list(split.files), split.files.keys() == wanted, " and ".join(sorted(wanted))


def leads_out(root: Path, path: Path) -> bool:
    """Return whether a file right in a store, or in a folder of it, lies elsewhere through a link."""
    if not path.is_symlink() and (path.parent == root or not path.parent.is_symlink()):
        return False
    return not os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)


def wrong_with(root: Path, file: str, known: StoredFile | Shard) -> str:
    """Return what is wrong with a file of a store, as a look at the folder shows, or an empty text.

    It should be a regular file of the length that the manifest says, and no link should lead out of the store.
    """
    path = root / file
    try:
        if leads_out(root, path):
            return "it is a link that leads out of the store"
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return "" if status.st_size == known.bytes else f"it has {status.st_size} bytes instead of {known.bytes}"
