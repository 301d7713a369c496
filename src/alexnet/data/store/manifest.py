"""What preparing keeps of each shard until all are done, and joining it into the store's index, report and manifest."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.data.readers.store import CODECS, FILES, INDEX, LABELS, MANIFEST, REPORT, STATISTICS
from alexnet.data.statistics import Accumulator
from alexnet.errors import DataError
from alexnet.files import file_sha256, write_npz

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

    def at(self, offset: int, size: int) -> "Record":
        """Return the record with its place in the shard."""
        return replace(self, offset=offset, size=size)


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: images in it, bytes, sha256, and a record for every source file, readable or not."""

    count: int
    bytes: int
    sha256: str
    records: list[Record]


def shard_places(root: Path, split: str, shard: int, ending: str) -> tuple[Path, Path]:
    """Return the path of a shard and the one it is written under until it is whole."""
    path = root / split / f"{shard:05d}{ending}"
    return path, path.with_name(path.name + ".part")


def save_shard(work: Path, split: str, number: int, shard: ShardRecord, sums: Accumulator | None) -> None:
    """Keep a finished shard's records; the last file renamed marks it as done."""
    if sums is not None:
        write_npz(work / f"{split}-{number:05d}.npz", dict(sums.state()))
    columns = {name: [getattr(record, name) for record in shard.records] for name in _SCHEMA.names}
    known = {"count": str(shard.count), "bytes": str(shard.bytes), "sha256": shard.sha256}
    table = pa.table(columns, schema=_SCHEMA.with_metadata(known))
    path = work / f"{split}-{number:05d}.parquet"
    beside = path.with_name(path.name + ".part")
    pq.write_table(table, beside)
    os.replace(beside, path)


def load_shard(work: Path, split: str, number: int, columns: Sequence[str] | None = None) -> ShardRecord | None:
    """Return what `save_shard` kept, or None; with `columns` the other fields of the records are blank."""
    path = work / f"{split}-{number:05d}.parquet"
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, columns=list(columns) if columns else None, schema=None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: it is damaged ({error}); delete it and give the command again") from None
    known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    blank: dict[str, Any] = dict(file="", sha256=b"", label=0, height=0, width=0, notes="", reason="")
    records = [Record(**{**blank, **row}) for row in table.to_pylist()]
    return ShardRecord(int(known["count"]), int(known["bytes"]), known["sha256"], records)


def finish(root: Path, work: Path, described: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """Join the shards' records into the store's other files and write the manifest last; return the manifest."""
    ending = CODECS[described["codec"]]
    per_shard = described["settings"]["shard_images"]
    splits: dict[str, Any] = {}
    beside = root / (REPORT + ".part")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        report = csv.writer(file, lineterminator="\n")
        report.writerow(("split", "file", "kind", "reason"))
        for name, count in counts.items():
            splits[name] = _join(root, work, name, range(-(-count // per_shard)), ending, report.writerow)
    os.replace(beside, root / REPORT)
    others = {REPORT: _known(root / REPORT)}
    if "train" in counts:
        others[STATISTICS] = _statistics(root, work, range(-(-counts["train"] // per_shard)))
    manifest = {**described, "splits": splits, "files": others}
    beside = root / (MANIFEST + ".part")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, root / MANIFEST)
    return manifest


def _join(
    root: Path, work: Path, name: str, numbers: range, ending: str, report: Callable[[tuple[str, ...]], object]
) -> dict[str, Any]:
    """Write a split's labels, index and list of files, and its rows of the report; return its entry for the manifest.

    Raises `DataError` if none of its images could be read.
    """
    folder = root / name
    labels: list[np.ndarray] = []
    places: list[np.ndarray] = []
    shards: list[dict[str, Any]] = []
    unreadable = odd = 0
    first_reason = ""
    with _files_writer(folder / FILES) as writer:
        for number in numbers:
            shard = load_shard(work, name, number)
            if shard is None:
                raise DataError(f"{work}: the records of shard {number} of {name} are missing; give the command again")
            kept = [record for record in shard.records if not record.reason]
            path, _ = shard_places(root, name, number, ending)
            shards.append(
                {
                    "file": f"{name}/{path.name}",
                    "count": shard.count,
                    "bytes": shard.bytes,
                    "sha256": shard.sha256,
                }
            )
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
            writer.add(kept)
    if not any(shard["count"] for shard in shards):
        raise DataError(f"split {name}: none of its {unreadable} images can be read; the first is {first_reason}")
    _save_array(folder / LABELS, np.concatenate(labels))
    kept_files = [LABELS, FILES]
    if ending == CODECS["jpeg"]:
        _save_array(folder / INDEX, np.concatenate(places))
        kept_files.append(INDEX)
    return {
        "count": int(sum(shard["count"] for shard in shards)),
        "unreadable": unreadable,
        "odd": odd,
        "shards": shards,
        "files": {file: _known(folder / file) for file in kept_files},
    }


class _files_writer:
    """Writes files.parquet in row groups of a fixed number of rows, so that a row's group follows from its number."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(path.name + ".part")
        self._pending: list[Record] = []

    def __enter__(self) -> "_files_writer":
        self._writer = pq.ParquetWriter(self._beside, _FILES_SCHEMA)
        return self

    def add(self, records: list[Record]) -> None:
        self._pending.extend(records)
        while len(self._pending) >= _FILES_ROWS:
            self._put(_FILES_ROWS)

    def _put(self, count: int) -> None:
        part, self._pending = self._pending[:count], self._pending[count:]
        columns = {field: [getattr(record, field) for record in part] for field in _FILES_SCHEMA.names}
        self._writer.write_table(pa.table(columns, schema=_FILES_SCHEMA), row_group_size=_FILES_ROWS)

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None and self._pending:
            self._put(len(self._pending))
        self._writer.close()
        if kind is None:
            os.replace(self._beside, self._path)


def _save_array(path: Path, array: np.ndarray) -> None:
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(beside, path)


def _statistics(root: Path, work: Path, numbers: range) -> dict[str, Any]:
    sums: Accumulator | None = None
    for state in _states(work, numbers):
        sums = state if sums is None else sums
        if state is not sums:
            sums.merge(state)
    assert sums is not None
    sums.statistics().save(root / STATISTICS)
    return _known(root / STATISTICS)


def _states(work: Path, numbers: range) -> Iterator[Accumulator]:
    for number in numbers:
        with np.load(work / f"train-{number:05d}.npz", allow_pickle=False) as state:
            yield Accumulator.from_state(dict(state))


def _known(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
