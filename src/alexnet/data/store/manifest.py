"""What preparing keeps of each shard until all are done, and joining it into the store's index, report and manifest."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.data.readers.store import (
    CODECS,
    FILES,
    INDEX,
    LABELS,
    MANIFEST,
    REPORT,
    STATISTICS,
    Manifest,
    Shard,
    StoredFile,
    StoredSplit,
)
from alexnet.data.statistics import Accumulator
from alexnet.errors import DataError
from alexnet.files import atomic_write, file_sha256, write_json, write_npz

_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("sha256", pa.binary()),
        ("label", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("notes", pa.string()),
        ("reason", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)
_FILES_SCHEMA = pa.schema([field for field in _SCHEMA if field.name not in ("reason", "offset", "size")])
_FILES_ROWS = 1 << 16


@dataclass(frozen=True)
class Record:
    """A source file: name, sha256, label, rows and columns, what was odd, why it is left out, and where it now lies."""

    file: str
    sha256: bytes
    label: int
    height: int
    width: int
    notes: str
    reason: str
    offset: int = 0
    size: int = 0

    def at(self, offset: int, size: int) -> Record:
        """Return the record with its place in the shard."""
        return replace(self, offset=offset, size=size)


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: images in it, bytes, sha256, and a record for every source file, readable or not."""

    count: int
    bytes: int
    sha256: str
    records: list[Record]


def shard_file(split: str, shard: int, codec: str) -> str:
    """Return the path of a shard within its store."""
    return f"{split}/{shard:05d}{CODECS[codec]}"


def save_shard(work: Path, split: str, number: int, shard: ShardRecord, sums: Accumulator | None) -> None:
    """Keep a finished shard's records; the last file renamed marks it as done."""
    if sums is not None:
        write_npz(work / f"{split}-{number:05d}.npz", dict(sums.state()))
    columns = {name: [getattr(record, name) for record in shard.records] for name in _SCHEMA.names}
    known = {"count": str(shard.count), "bytes": str(shard.bytes), "sha256": shard.sha256}
    table = pa.table(columns, schema=_SCHEMA.with_metadata(known))
    with atomic_write(work / f"{split}-{number:05d}.parquet") as file:
        pq.write_table(table, file)


def load_shard(work: Path, split: str, number: int, columns: Sequence[str] | None = None) -> ShardRecord | None:
    """Return what `save_shard` kept, or None; with `columns` the other fields of the records are blank."""
    path = work / f"{split}-{number:05d}.parquet"
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, columns=list(columns) if columns else None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: it is damaged ({error}); delete it and give the command again") from None
    known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    blank: dict[str, Any] = dict(file="", sha256=b"", label=0, height=0, width=0, notes="", reason="")
    records = [Record(**{**blank, **row}) for row in table.to_pylist()]
    return ShardRecord(int(known["count"]), int(known["bytes"]), known["sha256"], records)


def finish(root: Path, work: Path, begun: Manifest, counts: dict[str, int]) -> Manifest:
    """Join the shards' records into the store's other files and write the manifest last; return the manifest.

    `begun` is the manifest without files, `counts` the images of each split of the source. Raises `DataError` where
    none of a split's images could be read, `OSError` where the disk is full.
    """
    per_shard = begun.settings["shard_images"]
    splits: dict[str, StoredSplit] = {}
    with atomic_write(root / REPORT, "w", newline="") as file:
        report = csv.writer(file, lineterminator="\n")
        report.writerow(("split", "file", "kind", "reason"))
        for name, count in counts.items():
            splits[name] = _join(root, work, name, range(-(-count // per_shard)), begun.codec, report.writerow)
    files = {REPORT: _stored(root / REPORT)}
    if "train" in counts:
        _sum(work, range(-(-counts["train"] // per_shard))).statistics().save(root / STATISTICS)
        files[STATISTICS] = _stored(root / STATISTICS)
    manifest = replace(begun, splits=splits, files=files)
    write_json(root / MANIFEST, manifest.to_json())
    return manifest


def _join(
    root: Path, work: Path, name: str, numbers: range, codec: str, report: Callable[[tuple[str, ...]], object]
) -> StoredSplit:
    """Write a split's labels, index and list of files, and its rows of the report. Raises `DataError` if empty."""
    labels: list[np.ndarray] = []
    places: list[np.ndarray] = []
    shards: list[Shard] = []
    unreadable = odd = 0
    first_reason = ""
    with atomic_write(root / name / FILES) as file, pq.ParquetWriter(file, _FILES_SCHEMA) as writer:
        table = _FilesTable(writer)
        for number in numbers:
            shard = load_shard(work, name, number)
            if shard is None:
                raise DataError(f"{work}: the records of shard {number} of {name} are missing; give the command again")
            kept = [record for record in shard.records if not record.reason]
            shards.append(Shard(shard_file(name, number, codec), shard.count, shard.bytes, shard.sha256))
            labels.append(np.array([record.label for record in kept], np.int64))
            places.append(np.array([(record.offset, record.size) for record in kept], np.int64).reshape(-1, 2))
            for record in shard.records:
                if record.reason:
                    unreadable += 1
                    first_reason = first_reason or f"{record.file}: {record.reason}"
                    report((name, record.file, "unreadable", record.reason))
                elif record.notes:
                    odd += 1
                    report((name, record.file, "odd", record.notes))
            table.add(kept)
        table.flush()
    count = sum(shard.count for shard in shards)
    if not count:
        raise DataError(f"split {name}: none of its {unreadable} images can be read; the first is {first_reason}")
    arrays = {LABELS: labels, INDEX: places} if codec == "jpeg" else {LABELS: labels}
    for file_name, parts in arrays.items():
        with atomic_write(root / name / file_name) as file:
            np.save(file, np.concatenate(parts), allow_pickle=False)
    files = {file_name: _stored(root / name / file_name) for file_name in (LABELS, FILES, *arrays)}
    return StoredSplit(count, unreadable, odd, tuple(shards), files)


class _FilesTable:
    """Writes files.parquet in row groups of a fixed number of rows, so that a row's group follows from its number."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._pending: list[Record] = []

    def add(self, records: list[Record]) -> None:
        self._pending.extend(records)
        while len(self._pending) >= _FILES_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the next group, the last of which may be shorter."""
        part, self._pending = self._pending[:_FILES_ROWS], self._pending[_FILES_ROWS:]
        if part:
            columns = {field: [getattr(record, field) for record in part] for field in _FILES_SCHEMA.names}
            self._writer.write_table(pa.table(columns, schema=_FILES_SCHEMA), row_group_size=_FILES_ROWS)


def _sum(work: Path, numbers: range) -> Accumulator:
    """Return the sums over all shards of the train split."""
    sums: Accumulator | None = None
    for number in numbers:
        with np.load(work / f"train-{number:05d}.npz", allow_pickle=False) as state:
            part = Accumulator.from_state(dict(state))
        if sums is None:
            sums = part
        else:
            sums.merge(part)
    assert sums is not None, "a split has at least one shard"
    return sums


def _stored(path: Path) -> StoredFile:
    return StoredFile(path.stat().st_size, file_sha256(path))
