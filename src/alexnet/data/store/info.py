"""Describe a source or a store: splits, classes, counts, sizes and statistics."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from alexnet.data.dataset import Source, Split
from alexnet.data.decode import decode_with_notes
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import FILES, REPORT, STATISTICS, Manifest, is_store, read_manifest
from alexnet.data.statistics import Statistics
from alexnet.device import cpu_count
from alexnet.errors import UnreadableImage

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
class SplitInfo:
    """A split: its images, images per class, and rows and columns of `sampled` files, None where none can be read."""

    count: int
    per_class: Range
    sampled: int
    height: Range | None
    width: Range | None


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
        sizes = _sampled_sizes(split) if store is None else _recorded_sizes(root / name / FILES)
        height, width = (Range.of(column) for column in sizes.T) if len(sizes) else (None, None)
        per_class = Range.of(np.bincount(split.labels, minlength=len(source.classes)))
        splits[name] = SplitInfo(len(split), per_class, len(sizes), height, width)
    return SourceInfo(source.spec, source.classes, splits, store)


def _recorded_sizes(path: Path) -> NDArray[np.int64]:
    """Return rows and columns of the source files of a store's split: (n, 2)."""
    try:
        table = pq.read_table(path, columns=["height", "width"])
    except (OSError, pa.ArrowException):
        return np.zeros((0, 2), np.int64)
    return np.stack([table.column(name).to_numpy() for name in ("height", "width")], axis=1).astype(np.int64)


def _sampled_sizes(split: Split) -> NDArray[np.int64]:
    """Return rows and columns of evenly spaced images that can be read: (n, 2)."""

    def look(i: int) -> tuple[int, int] | None:
        try:
            decoded = decode_with_notes(split.read_bytes(i))
        except UnreadableImage:
            return None
        return decoded.height, decoded.width

    chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), SAMPLED)).astype(np.int64))
    with ThreadPoolExecutor(cpu_count()) as pool:
        sizes = [size for size in pool.map(look, chosen.tolist()) if size is not None]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)
