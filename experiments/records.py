"""The record of trainings: the form of `benchmarks.records`, with what each run did."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.files import write_json
from benchmarks.records import Json, Record, Result

RECORDS = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Errors(Json):
    """What `alexnet evaluate` measured of a run: errors in percent, loss in nats.

    `chance_error` and `majority_error` are the top-1 errors of guessing and of the most frequent class of train; older
    records have none.
    """

    views: int
    split: str
    count: int
    top1_error: float
    top5_error: float | None
    loss: float
    chance_error: float | None = None
    majority_error: float | None = None


@dataclass(frozen=True)
class TrainingRun(Json):
    """One run: how long it took, what it measured."""

    seed: int
    epochs: int
    steps: int
    training_seconds: float
    seconds_estimated_from_speed: bool
    threads: int
    images_per_second: float  # the median over log intervals
    commit: str | None
    errors: tuple[Errors, ...] = ()
    validation: tuple[tuple[int, float, float | None], ...] = ()  # epoch, top-1 and top-5 error in percent
    loss_curve: tuple[tuple[int, float], ...] = ()  # step, loss


@dataclass(frozen=True)
class TrainingRecord(Record):
    """The errors of an experiment's runs, mean and range, and the runs themselves."""

    preset: str
    data: str  # as people call it
    published: str  # the results published for it
    note: str  # what a reader should know
    runs: tuple[TrainingRun, ...]


def summarize(runs: Sequence[TrainingRun], views: Sequence[int]) -> tuple[Result, ...]:
    """The mean of each error over the runs, with its range, in percent: `top1_error_views_1`, …."""
    results = []
    for count in views:
        for error in ("top1_error", "top5_error"):
            values = [getattr(entry, error) for run in runs for entry in run.errors if entry.views == count]
            if values and None not in values:
                spread = (min(values), max(values))
                name = f"{error}_views_{count}"
                results.append(Result(name, round(statistics.mean(values), 3), "%", spread, len(values)))
    return tuple(results)


def save(record: TrainingRecord, folder: Path = RECORDS) -> Path:
    """Write a record as `folder/<experiment>.json` and return its path."""
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{record.name}.json", record.to_json())
    return folder / f"{record.name}.json"


def load(name: str, folder: Path = RECORDS) -> TrainingRecord | None:
    """The record of an experiment, or None where there is none. Raises DataError for a damaged one."""
    path = folder / f"{name}.json"
    return TrainingRecord.from_json(json.loads(path.read_text())) if path.exists() else None
