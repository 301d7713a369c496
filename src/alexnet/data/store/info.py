"""Describe a source or a store: splits, classes, counts, sizes and statistics."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.data.dataset import ArraySplit, Source, Split
from alexnet.data.decode import decode, decode_with_notes
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store_files import open_files, read_rows
from alexnet.data.readers.store_format import REPORT, STATISTICS, Manifest, is_store, read_manifest
from alexnet.data.statistics import Statistics
from alexnet.device import cpu_count
from alexnet.errors import DataError, UnreadableImage

SAMPLED = 256


@dataclass(frozen=True)
class Range:
    """The smallest, the middle and the largest of some numbers."""

    min: int
    median: float
    max: int

    @classmethod
    def of(cls, values: NDArray[np.int64]) -> Range:
        """Return the range of at least one number."""
        return cls(int(np.min(values)), float(np.median(values.astype(np.float64))), int(np.max(values)))


@dataclass(frozen=True)
class ClassCount:
    """A class and how many images a split has of it."""

    name: str
    count: int


@dataclass(frozen=True)
class SplitInfo:
    """A split: its images, those of its classes, and what a look at `sampled` files showed.

    `majority` is the share in percent of the largest class: who always answers it errs on the rest. `height` and
    `width` are rows and columns of the files, None where none can be read; `formats` the files by their true format
    and `turned` how many an EXIF orientation would turn, None where there are none, as of a store; `unread` files were
    looked at and cannot be read.
    """

    count: int
    per_class: Range
    smallest: ClassCount
    largest: ClassCount
    majority: float
    sampled: int
    height: Range | None
    width: Range | None
    formats: dict[str, int] | None
    turned: int | None
    unread: int


@dataclass(frozen=True)
class StoreInfo:
    """What a store is besides: its manifest, the path of the report on its files, and the statistics of train."""

    manifest: Manifest
    report: str
    statistics: Statistics | None

    @property
    def unreadable(self) -> int:
        """Source files that were left out."""
        return sum(split.unreadable for split in self.manifest.splits.values())

    @property
    def odd(self) -> int:
        """Source files that are in it but odd."""
        return sum(split.odd for split in self.manifest.splits.values())

    def to_json(self) -> dict[str, Any]:
        """What `alexnet data info --json` prints of a store besides."""
        manifest = self.manifest
        entry: dict[str, Any] = {name: getattr(manifest, name) for name in ("source", "codec", "size", "bytes")}
        entry |= {"unreadable": self.unreadable, "odd": self.odd, "report": self.report}
        entry |= {"settings": manifest.settings, "versions": manifest.versions}
        if self.statistics is not None:
            names = ("rgb_mean", "rgb_covariance", "eigenvalues", "eigenvectors")
            entry["statistics"] = {"count": self.statistics.count}
            entry["statistics"] |= {name: getattr(self.statistics, name).tolist() for name in names}
        return entry


@dataclass(frozen=True)
class SourceInfo:
    """A source or, where `store` is not None, a store."""

    spec: str
    class_names: tuple[str, ...]
    splits: dict[str, SplitInfo]
    store: StoreInfo | None

    @property
    def kind(self) -> str:
        """`store` or `source`."""
        return "source" if self.store is None else "store"

    def to_json(self) -> dict[str, Any]:
        """What `alexnet data info --json` prints."""
        return {
            "spec": self.spec,
            "kind": self.kind,
            "classes": len(self.class_names),
            "class_names": list(self.class_names),
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
            **({} if self.store is None else self.store.to_json()),
        }


def info(spec: str | os.PathLike[str] | Source, *, download: bool = False) -> SourceInfo:
    """Describe a source or a store. Raises `DataError` if it cannot be opened."""
    source = spec if isinstance(spec, Source) else open_source(spec, download=download)
    root = Path(source.spec).expanduser()
    store = None
    if is_store(root):
        manifest = read_manifest(root)
        statistics = Statistics.load(root / STATISTICS) if STATISTICS in manifest.files else None
        store = StoreInfo(manifest, os.fspath(root / REPORT), statistics)
    splits = {}
    for name, split in source.splits.items():
        seen = _look_at(split) if store is None else _recorded(root, name, len(split))
        splits[name] = _describe(split, source.classes, seen)
    return SourceInfo(source.spec, source.classes, splits, store)


def _describe(split: Split, classes: tuple[str, ...], seen: _Seen) -> SplitInfo:
    counts = np.bincount(split.labels, minlength=len(classes))
    few, most = int(counts.argmin()), int(counts.argmax())
    height, width = (Range.of(column) for column in seen.sizes.T) if len(seen.sizes) else (None, None)
    return SplitInfo(
        count=len(split),
        per_class=Range.of(counts),
        smallest=ClassCount(classes[few], int(counts[few])),
        largest=ClassCount(classes[most], int(counts[most])),
        majority=100 * float(counts[most]) / len(split),
        sampled=len(seen.sizes),
        height=height,
        width=width,
        formats=seen.formats,
        turned=seen.turned,
        unread=seen.unread,
    )


@dataclass(frozen=True)
class _Seen:
    """What a look at some files showed: rows and columns, (n, 2), and more where they were decoded for it."""

    sizes: NDArray[np.int64]
    formats: dict[str, int] | None = None
    turned: int | None = None
    unread: int = 0


def _recorded(root: Path, name: str, count: int) -> _Seen:
    """The source files of a store's split as they were recorded; none where the list is damaged, which verify says."""
    sizes = [np.zeros((0, 2), np.int64)]
    try:
        with open_files(root, name, count) as file:
            for group in range(file.num_row_groups):
                rows = read_rows(file, group, ["height", "width"])
                sizes.append(np.stack([rows["height"], rows["width"]], axis=1).astype(np.int64))
    except DataError:
        return _Seen(sizes[0])
    return _Seen(np.concatenate(sizes))


def _look_at(split: Split) -> _Seen:
    """Decode evenly spaced images, those that can be read."""

    def look(i: int) -> tuple[int, int, str, bool] | None:
        try:
            data = split.read_bytes(i)
            decoded = decode_with_notes(data)
            turned = b"Exif" in data and not np.array_equal(decoded.pixels, decode(data, exif_rotate=True))
        except UnreadableImage:
            return None
        return decoded.height, decoded.width, decoded.format, turned

    chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), SAMPLED)).astype(np.int64))
    with ThreadPoolExecutor(cpu_count()) as pool:
        seen = [answer for answer in pool.map(look, chosen.tolist()) if answer is not None]
    sizes = np.array([answer[:2] for answer in seen], np.int64).reshape(-1, 2)
    if isinstance(split, ArraySplit):  # there are no files
        return _Seen(sizes)
    formats = Counter(answer[2] for answer in seen)
    turned = sum(answer[3] for answer in seen)
    return _Seen(sizes, dict(formats.most_common()), turned, len(chosen) - len(seen))
