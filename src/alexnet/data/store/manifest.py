"""What preparing keeps of each shard until all are done, and joining it into the store's index, report and manifest."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.config import text_of
from alexnet.data.dataset import other_classes
from alexnet.data.readers.store_files import FILES_SCHEMA
from alexnet.data.readers.store_format import (
    FILES,
    FILES_ROWS,
    INDEX,
    LABELS,
    MANIFEST,
    MOST_MANIFEST,
    REPORT,
    STATISTICS,
    Manifest,
    Shard,
    StoredFile,
    StoredSplit,
    shard_file,
)
from alexnet.data.statistics import MOST_SIDE, Accumulator
from alexnet.errors import DataError, quoted
from alexnet.files import atomic_write, file_sha256, open_regular, read_npz, write_npz, write_text

_SCHEMA = pa.schema([*FILES_SCHEMA, ("reason", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
_MOST_RECORDS = 1 << 28  # bytes of the records of a shard
_MOST_SUMS = MOST_SIDE**2 * 3 * 8 + (1 << 16)  # and of its sums
COLUMNS = ("split", "file", "kind", "reason")  # of the report
FEW = 5  # files that are named where more are left out


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


def save_shard(work: Path, split: str, number: int, shard: ShardRecord, sums: Accumulator | None) -> None:
    """Keep a finished shard's records; the last file renamed marks it as done."""
    if sums is not None:
        write_npz(work / f"{split}-{number:05d}.npz", dict(sums.state()))
    columns = {name: [getattr(record, name) for record in shard.records] for name in _SCHEMA.names}
    known = {"count": str(shard.count), "bytes": str(shard.bytes), "sha256": shard.sha256}
    table = pa.table(columns, schema=_SCHEMA.with_metadata(known))
    with atomic_write(work / f"{split}-{number:05d}.parquet") as file:
        pq.write_table(table, file)


def load_shard(work: Path, split: str, number: int) -> ShardRecord | None:
    """Return what `save_shard` kept, or None where nothing is kept or it is damaged."""
    path = work / f"{split}-{number:05d}.parquet"
    try:
        with open_regular(path, _MOST_RECORDS) as file:
            table = pq.read_table(file)
        if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
            return None
        known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        records = [Record(**row) for row in table.to_pylist()]
        return ShardRecord(int(known["count"]), int(known["bytes"]), known["sha256"], records)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def load_sums(work: Path, split: str, number: int, size: int) -> Accumulator | None:
    """Return the sums that `save_shard` kept, or None where there are none of such squares."""
    try:
        sums = Accumulator.from_state(read_npz(work / f"{split}-{number:05d}.npz", _MOST_SUMS))
    except (OSError, ValueError):
        return None
    return sums if sums.size == size else None


def finish(root: Path, work: Path, begun: Manifest, counts: dict[str, int]) -> Manifest:
    """Join the shards' records into the store's other files and write the manifest last; return the manifest.

    `begun` is the manifest without files, `counts` the images of each split of the source. Raises `DataError` where
    records are missing, `OSError` where the disk is full.
    """
    per_shard = begun.settings["shard_images"]
    splits: dict[str, StoredSplit] = {}
    with atomic_write(root / REPORT, "w", newline="") as file:
        report = csv.writer(file, lineterminator="\n")
        report.writerow(COLUMNS)
        for name, count in counts.items():
            splits[name] = _join(root, work, name, range(-(-count // per_shard)), begun.codec, report.writerow)
    files = {REPORT: _stored(root / REPORT)}
    if "train" in counts:
        sums = Accumulator(begun.size)
        for number in range(-(-counts["train"] // per_shard)):
            if (part := load_sums(work, "train", number, begun.size)) is None:
                raise DataError(f"{work}: the sums of shard {number} of train are missing; give the command again")
            sums.merge(part)
        sums.statistics().save(root / STATISTICS)
        files[STATISTICS] = _stored(root / STATISTICS)
    manifest = replace(begun, splits=splits, files=files)
    text = json.dumps(manifest.to_json(), indent=1) + "\n"
    if len(text) > MOST_MANIFEST:
        raise DataError(f"{root}: its manifest would have {len(text):,} bytes; give classes shorter names")
    write_text(root / MANIFEST, text)
    return manifest


def _join(
    root: Path, work: Path, name: str, numbers: range, codec: str, report: Callable[[tuple[str, ...]], object]
) -> StoredSplit:
    """Write a split's labels, index and list of files, and its rows of the report."""
    labels: list[np.ndarray] = []
    places: list[np.ndarray] = []
    shards: list[Shard] = []
    unreadable = odd = 0
    with atomic_write(root / name / FILES) as file, pq.ParquetWriter(file, FILES_SCHEMA) as writer:
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
                    report((name, record.file, "unreadable", record.reason))
                elif record.notes:
                    odd += 1
                    report((name, record.file, "odd", record.notes))
            table.add(kept)
        table.flush()
    count = sum(shard.count for shard in shards)
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
        while len(self._pending) >= FILES_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the next group, the last of which may be shorter."""
        part, self._pending = self._pending[:FILES_ROWS], self._pending[FILES_ROWS:]
        if part:
            columns = {field: [getattr(record, field) for record in part] for field in FILES_SCHEMA.names}
            self._writer.write_table(pa.table(columns, schema=FILES_SCHEMA), row_group_size=FILES_ROWS)


def write_unreadable(path: Path, split: str, records: Iterable[Record]) -> None:
    """List a split's files that cannot be read as report.csv does, where there will be no store."""
    with atomic_write(path, "w", newline="") as file:
        report = csv.writer(file, lineterminator="\n")
        report.writerow(COLUMNS)
        report.writerows((split, record.file, "unreadable", record.reason) for record in records)


def difference(known: Manifest, wanted: Manifest, fields: Iterable[str]) -> str:
    """The first of the fields in which two manifests differ, in words: `size 20, not 24`; empty where none does."""
    for name in fields:
        before, now = getattr(known, name), getattr(wanted, name)
        if before == now:
            continue
        if name == "classes":
            return other_classes(before, now)
        if name == "source_splits":
            part = next(part for part in [*now, *before] if before.get(part) != now.get(part))
            counts = [splits[part].count if part in splits else 0 for splits in (before, now)]
            part = quoted(part)[1:-1]
            return f"{counts[0]:,} {part} pictures, not {counts[1]:,}" if len({*counts}) > 1 else f"other {part} labels"
        if isinstance(now, dict):
            name = next(part for part in [*now, *before] if before.get(part) != now.get(part))
            before, now = before.get(name), now.get(name)
        return f"{name} {text_of(before)}, not {text_of(now)}"
    return ""


def left_out(root: Path, most: int = FEW) -> list[tuple[str, str]]:
    """Return the first source files that a store's report lists as unreadable, and why: (file, reason)."""
    try:
        with open_regular(root / REPORT) as raw, io.TextIOWrapper(raw, "utf-8", newline="") as file:
            rows = (row for row in csv.DictReader(file) if row["kind"] == "unreadable")
            return [(row["file"], row["reason"]) for row in itertools.islice(rows, most)]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def _stored(path: Path) -> StoredFile:
    return StoredFile(path.stat().st_size, file_sha256(path))
