"""Verify a source or a store: counts, md5 and sha256 sums, labels against names, duplicates, and known odd files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import OnProgress, Split
from alexnet.data.decode import decode_with_notes, notes_of
from alexnet.data.readers.ilsvrc import Edition, edition
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import map_array, read_labels
from alexnet.data.readers.store_files import open_files, read_rows
from alexnet.data.readers.store_format import (
    FILES,
    INDEX,
    LABELS,
    STATISTICS,
    Manifest,
    Shard,
    StoredFile,
    is_store,
    read_manifest,
    wrong_with,
)
from alexnet.data.statistics import Statistics
from alexnet.data.store import checks
from alexnet.data.store.checks import FileRecords, Issue
from alexnet.device import cpu_count
from alexnet.errors import DataError, UnreadableImage
from alexnet.files import open_regular

_CHUNK = 64
_LEVELS = ("error", "warning", "note")


@dataclass(frozen=True)
class Verification:
    """What is wrong with a source or store, errors first, then warnings and notes; none where all is well."""

    source: str
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> int:
        """Issues that forbid training on it."""
        return sum(issue.level == "error" for issue in self.issues)

    def to_json(self) -> dict[str, Any]:
        """What `alexnet data verify --json` prints."""
        return {"source": self.source, "issues": [dataclasses.asdict(issue) for issue in self.issues]}


def verify(
    spec: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: OnProgress | None = None,
    download: bool = False,
) -> Verification:
    """Check a source or a store.

    A source has every file hashed and decoded; a store has its files' sha256 compared with the manifest and the hashes
    of its source files with each other. Archives of ILSVRC are compared with the official counts and md5 sums.
    `progress(done, total)` counts images, or bytes of a store. Raises `DataError` if it cannot be opened at all.
    """
    spec = os.fspath(spec)
    root = Path(spec).expanduser()
    issues: list[Issue] = []
    splits: list[FileRecords] = []
    if is_store(root):
        manifest = read_manifest(root)
        classes = manifest.classes
        _check_store(root, manifest, issues, splits, progress)
    else:
        source = open_source(spec, download=download)
        classes = source.classes
        if root.is_dir() and (known := edition(root)) is not None:
            issues += _official(root, known, {name: len(split) for name, split in source.splits.items()})
        total, done = sum(len(split) for split in source.splits.values()), 0
        for split in source.splits.values():
            splits.append(_scan(split, workers, progress, done, total))
            done += len(split)
    for files in splits:
        issues += checks.labels_against_names(classes, files)
        issues += checks.validation_order(classes, files)
        issues += checks.known_odd_files(classes, files)
        issues += checks.unreadable(files)
        issues += checks.odd(files)
    issues += checks.duplicates(splits, classes)
    return Verification(spec, tuple(sorted(issues, key=lambda issue: _LEVELS.index(issue.level))))


def _scan(split: Split, workers: int | None, progress: OnProgress | None, before: int, total: int) -> FileRecords:
    """Hash and decode every file of a split."""
    files = FileRecords(split.name, split.labels)

    def look(first: int) -> list[tuple[str, bytes, str, str]]:
        rows = []
        for i in range(first, min(len(split), first + _CHUNK)):
            digest, notes, reason, name = b"", "", "", split.image_name(i)
            try:
                data = split.read_bytes(i)
                digest = hashlib.sha256(data).digest()
                decoded = decode_with_notes(data)
                notes = "; ".join(notes_of(decoded, name))
            except UnreadableImage as error:
                digest, reason = b"", str(error)  # what is unreadable is no one's duplicate
            rows.append((name, digest, notes, reason))
        return rows

    with ThreadPoolExecutor(workers or cpu_count()) as pool:
        for rows in pool.map(look, range(0, len(split), _CHUNK)):
            for name, digest, notes, reason in rows:
                files.names.append(name)
                files.hashes.append(digest)
                if reason:
                    files.reasons[name] = reason
                elif notes:
                    files.notes[name] = notes
            if progress is not None:
                progress(before + len(files.names), total)
    return files


def _official(root: Path, known: Edition, counts: dict[str, int]) -> list[Issue]:
    """Compare the archives of an ILSVRC edition with the official counts and md5 sums."""
    issues: list[Issue] = []
    for name, count in known.counts.items():
        if name in counts and counts[name] != count:
            message = f"{counts[name]} images where ILSVRC-{known.year} has {count}"
            issues.append(Issue("error", known.archives[name], message))
        elif name not in counts:
            issues.append(Issue("warning", known.archives[name], f"it is not there, so there is no {name} split"))
    for name, expected in known.md5.items():
        path = root / name
        if path.is_file():
            with open(path, "rb") as file:
                actual = hashlib.file_digest(file, "md5").hexdigest()
            if actual != expected:
                issues.append(Issue("error", name, f"md5 is {actual}, officially {expected}; fetch it again"))
    return issues


def _check_store(
    root: Path, manifest: Manifest, issues: list[Issue], splits: list[FileRecords], progress: OnProgress | None
) -> None:
    """Compare a store's files with its manifest; add what is wrong to `issues`, and what is recorded to `splits`."""
    wanted = manifest.stored()
    total, done = sum(known.bytes for known in wanted.values()), 0
    damaged: set[str] = set()
    for file, known in wanted.items():
        if message := damage(root, file, known):
            damaged.add(file)
            issues.append(Issue("error", file, f"{message}; prepare the store again"))
        done += known.bytes
        if progress is not None:
            progress(done, total)
    for name in manifest.splits:
        if not {f"{name}/{FILES}", f"{name}/{LABELS}"} & damaged:
            try:
                splits.append(_recorded(root, name, manifest, issues, f"{name}/{INDEX}" in damaged))
            except DataError as error:
                issues.append(Issue("error", name, str(error)))
    if STATISTICS in manifest.files and STATISTICS not in damaged:
        try:
            statistics = Statistics.load(root / STATISTICS)
        except DataError as error:
            issues.append(Issue("error", STATISTICS, str(error)))
            return
        if (statistics.count, len(statistics.mean_image)) != (manifest.splits["train"].count, manifest.size):
            issues.append(Issue("error", STATISTICS, f"it is of {statistics.count} images, not of the train split's"))


def damage(root: Path, file: str, known: StoredFile | Shard) -> str:
    """Return what is wrong with a file of a store, which is read whole, or an empty text."""
    if message := wrong_with(root, file, known):
        return message
    try:
        with open_regular(root / file) as opened:
            actual = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return "" if actual == known.sha256 else "its sha256 differs from the manifest's"


def _recorded(root: Path, name: str, manifest: Manifest, issues: list[Issue], index_damaged: bool) -> FileRecords:
    """Return what a store recorded of a split's source files, after checking that its parts agree."""
    entry = manifest.splits[name]
    labels = read_labels(root, name, manifest)
    files = FileRecords(name, labels)
    recorded: list[int] = []
    with open_files(root, name, entry.count) as table:
        for group in range(table.num_row_groups):
            rows = read_rows(table, group, ["file", "sha256", "label", "notes"])
            files.names += rows["file"]
            files.hashes += rows["sha256"]
            files.notes |= {file: note for file, note in zip(rows["file"], rows["notes"], strict=True) if note}
            recorded += rows["label"]
    if not np.array_equal(labels, np.array(recorded, np.int64)):
        issues.append(Issue("error", name, f"{LABELS} and {FILES} do not agree"))
    if INDEX in entry.files and not index_damaged:
        places = map_array(root / name / INDEX, np.dtype(np.int64), (entry.count, 2))
        sizes = np.repeat([shard.bytes for shard in entry.shards], [shard.count for shard in entry.shards])
        if ((places < 0) | (places > sizes[:, None])).any() or (places.sum(axis=1) > sizes).any():
            issues.append(Issue("error", f"{name}/{INDEX}", "it points outside the shards"))
    return files
