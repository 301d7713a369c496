"""Verify a source or a store: counts, md5 and sha256 sums, labels against names, duplicates, and known odd files."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.data.dataset import Split
from alexnet.data.decode import decode_with_notes
from alexnet.data.readers.ilsvrc import Edition, edition
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import FILES, INDEX, LABELS, STATISTICS, is_store, map_array, read_manifest
from alexnet.data.statistics import Statistics
from alexnet.data.store import checks as findings
from alexnet.data.store.checks import FileRecords, Issue
from alexnet.device import cpu_count
from alexnet.errors import DataError, UnreadableImage
from alexnet.files import file_sha256

Progress = Callable[[int, int], None]
_CHUNK = 64


def verify(
    spec: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    download: bool = False,
) -> list[Issue]:
    """Check a source or a store and return what was found, errors first; an empty list means nothing to remark.

    A source has every file hashed and decoded; a store has its files' sha256 compared with the manifest and the hashes
    of its source files with each other. Archives of ILSVRC are compared with the official counts and md5 sums.
    `progress(done, total)` counts images, or bytes of a store. Raises `DataError` if it cannot be opened at all.
    """
    spec = os.fspath(spec)
    root = Path(spec).expanduser()
    if is_store(root):
        made, evidence, classes = _store(root, progress)
    else:
        source = open_source(spec, download=download)
        classes = list(source.classes)
        made = []
        if root.is_dir() and (known := edition(root)) is not None:
            made += _official(root, known, {name: len(split) for name, split in source.splits.items()})
        total, done = sum(len(split) for split in source.splits.values()), 0
        evidence = []
        for split in source.splits.values():
            evidence.append(_scan(split, workers, progress, done, total))
            done += len(split)
    for found in evidence:
        made += findings.labels_against_names(classes, found)
        made += findings.validation_order(classes, found)
        made += findings.known_odd_files(classes, found)
        made += findings.unreadable(found)
        made += findings.odd(found)
    made += findings.duplicates(evidence)
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted(made, key=lambda finding: rank[finding.level])


def _scan(split: Split, workers: int | None, progress: Progress | None, before: int, total: int) -> FileRecords:
    """Hash and decode every file of a split."""
    found = FileRecords(split.name, split.labels)

    def look(first: int) -> list[tuple[str, bytes, str, str]]:
        rows = []
        for i in range(first, min(len(split), first + _CHUNK)):
            digest, notes, reason, name = b"", "", "", split.image_name(i)
            try:
                data = split.read_bytes(i)
                digest = hashlib.sha256(data).digest()
                decoded = decode_with_notes(data)
                notes = "; ".join(decoded.notes)
                if decoded.format != "JPEG" and name.lower().endswith((".jpg", ".jpeg")):
                    notes = "; ".join([f"{decoded.format} named JPEG", *decoded.notes])
            except UnreadableImage as error:
                reason = str(error)
            rows.append((name, digest, notes, reason))
        return rows

    with ThreadPoolExecutor(workers or cpu_count()) as pool:
        for rows in pool.map(look, range(0, len(split), _CHUNK)):
            for name, digest, notes, reason in rows:
                found.names.append(name)
                found.hashes.append(digest)
                if reason:
                    found.reasons[name] = reason
                elif notes:
                    found.notes[name] = notes
            if progress is not None:
                progress(before + len(found.names), total)
    return found


def _official(root: Path, known: Edition, counts: dict[str, int]) -> list[Issue]:
    """Compare the archives of an ILSVRC edition with the official counts and md5 sums."""
    made: list[Issue] = []
    for name, count in known.counts.items():
        if name in counts and counts[name] != count:
            message = f"{counts[name]} images where ILSVRC-{known.year} has {count}"
            made.append(Issue("error", known.archives[name], message))
        elif name not in counts:
            made.append(Issue("warning", known.archives[name], f"it is not there, so there is no {name} split"))
    for name, expected in known.md5.items():
        path = root / name
        if path.is_file():
            with open(path, "rb") as file:
                actual = hashlib.file_digest(file, "md5").hexdigest()
            if actual != expected:
                made.append(Issue("error", name, f"md5 is {actual}, officially {expected}; fetch it again"))
    return made


def _store(root: Path, progress: Progress | None) -> tuple[list[Issue], list[FileRecords], list[str]]:
    """Compare a store's files with its manifest."""
    manifest = read_manifest(root)
    made: list[Issue] = []
    wanted: list[tuple[str, dict[str, Any]]] = [(name, entry) for name, entry in manifest["files"].items()]
    for name, entry in manifest["splits"].items():
        wanted += [(shard["file"], shard) for shard in entry["shards"]]
        wanted += [(f"{name}/{file}", known) for file, known in entry["files"].items()]
    total, done = sum(int(known["bytes"]) for _, known in wanted), 0
    damaged: set[str] = set()
    for file, known in wanted:
        message = _compare(root / file, known)
        if message:
            damaged.add(file)
            made.append(Issue("error", file, f"{message}; prepare the store again"))
        done += int(known["bytes"])
        if progress is not None:
            progress(done, total)
    evidence = []
    for name, entry in manifest["splits"].items():
        if f"{name}/{FILES}" in damaged or f"{name}/{LABELS}" in damaged:
            continue
        try:
            evidence.append(_recorded(root, name, entry, manifest, made, f"{name}/{INDEX}" in damaged))
        except (DataError, OSError, pa.ArrowException) as error:
            made.append(Issue("error", name, " ".join(str(error).split())))
    if STATISTICS in manifest["files"] and STATISTICS not in damaged:
        count = Statistics.load(root / STATISTICS).count
        if count != manifest["splits"]["train"]["count"]:
            made.append(Issue("error", STATISTICS, f"it is of {count} images, not of the train split's"))
    return made, evidence, list(manifest["classes"])


def _compare(path: Path, known: dict[str, Any]) -> str:
    try:
        size = path.stat().st_size
        if size != known["bytes"]:
            return f"it has {size} bytes instead of {known['bytes']}"
        return "" if file_sha256(path) == known["sha256"] else "its sha256 differs from the manifest's"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _recorded(
    root: Path, name: str, entry: dict[str, Any], manifest: dict[str, Any], made: list[Issue], index_damaged: bool
) -> FileRecords:
    """Return what a store recorded of a split's source files, after checking that its parts agree."""
    count = int(entry["count"])
    labels = np.asarray(map_array(root / name / LABELS, np.dtype(np.int64), (count,)))
    table = pq.read_table(root / name / FILES)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(manifest["classes"]):
        made.append(Issue("error", name, f"labels lie outside 0..{len(manifest['classes']) - 1}"))
    if not np.array_equal(labels, table.column("label").to_numpy()):
        made.append(Issue("error", name, f"{LABELS} and {FILES} do not agree"))
    if INDEX in entry["files"] and not index_damaged:
        places = map_array(root / name / INDEX, np.dtype(np.int64), (count, 2))
        sizes = np.repeat([shard["bytes"] for shard in entry["shards"]], [shard["count"] for shard in entry["shards"]])
        if len(places) and ((places < 0).any() or (places.sum(axis=1) > sizes).any()):
            made.append(Issue("error", f"{name}/{INDEX}", "it points outside the shards"))
    names, notes = table.column("file").to_pylist(), table.column("notes").to_pylist()
    return FileRecords(
        name,
        labels,
        names,
        table.column("sha256").to_pylist(),
        {file: note for file, note in zip(names, notes, strict=True) if note},
    )
