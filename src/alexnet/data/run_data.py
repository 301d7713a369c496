"""What a run trains and measures on: the source's splits, classes and statistics."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.config import Config
from alexnet.data.dataset import Source, Split, hold_out
from alexnet.data.loader import BatchLoader
from alexnet.data.readers.open import open_source
from alexnet.data.statistics import Statistics, fit
from alexnet.errors import DataError, RunError, UsageError, quoted
from alexnet.files import write_json
from alexnet.progress import Progress
from alexnet.run import Run

HELD_OUT_SEED = 2012  # the held-out images are the same for every run on a source


@dataclass(frozen=True)
class RunData:
    """A source made ready for a config: its train and validation splits, and the config with its class count."""

    config: Config
    source: Source
    train: Split
    validation: Split
    held_out: bool  # whether validation was cut from train

    def split(self, name: str) -> Split:
        """`train`, `val` or `test`; `val` is the held-out part where the source has none. Raises DataError."""
        splits = {**self.source.splits, "train": self.train, "val": self.validation}
        if name not in splits:
            raise missing_split(self.source, name)
        return splits[name]

    def loader(self, split: Split, progress: Progress, **options: Any) -> BatchLoader:
        """Batches of a split as the config's data settings say; `options` are those of `BatchLoader`."""
        data = self.config.data
        return BatchLoader(
            split,
            data.size,
            self.config.train.batch_size,
            self.config.train.seed,
            workers=data.workers or None,
            memory=data.memory << 20,
            progress=progress.decoding,
            **options,
        )

    def statistics(self, path: Path, progress: Progress) -> Statistics:
        """The training set's mean image and PCA: read from `path`, or else determined and written there.

        A store's own are taken where they are of these images at this size (for the jpeg codec before compression);
        others are fitted.
        """
        if path.exists():
            return Statistics.load(path)
        statistics = self._prepared_statistics() or self._fit(progress)
        statistics.save(path)
        return statistics

    def _prepared_statistics(self) -> Statistics | None:
        file = self.source.statistics_file
        if file is None or self.train is not self.source.splits["train"]:
            return None
        statistics, side = Statistics.load(file), self.config.data.size
        same = statistics.count == len(self.train) and statistics.mean_image.shape == (side, side, 3)
        return statistics if same else None

    def _fit(self, progress: Progress) -> Statistics:
        data = self.config.data
        progress.note(f"fitting the mean image and PCA over {len(self.train):,} training images")
        with progress.counting("decoding"):
            return fit(
                self.train,
                data.size,
                workers=data.workers or None,
                progress=progress.decoding,
                memory=data.memory << 20,
            )

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Training images of each class, (C,)."""
        return np.bincount(self.train.labels, minlength=len(self.source.classes))

    @property
    def majority(self) -> int:
        """The most frequent class of the training images, the first of equals."""
        return int(self.class_counts.argmax())

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the last short one included."""
        return -(-len(self.train) // self.config.train.batch_size)

    def summary_line(self) -> str:
        """What a training is given, in one line: source, images per split, classes, steps per epoch."""
        counts = [f"{len(self.train):,} training images", f"{len(self.validation):,} for validation"]
        counts[1] += ", held out" if self.held_out else ""
        counts += [f"{len(self.source.splits['test']):,} for the test"] if "test" in self.source.splits else []
        steps, batch = self.steps_per_epoch, self.config.train.batch_size
        return (
            f"{quoted(self.source.spec)[1:-1]}: {', '.join(counts)}, of {len(self.source.classes):,} classes; "
            f"{steps:,} step{'s' if steps > 1 else ''} of {batch} images per epoch"
        )

    def describe(self) -> dict[str, Any]:
        """What `source.json` says."""
        splits = {"train": len(self.train), "val": len(self.validation)}
        splits |= {name: len(split) for name, split in self.source.splits.items() if name not in ("train", "val")}
        return {
            "source": self.source.spec,
            "classes": list(self.source.classes),
            "splits": splits,
            "majority": self.source.classes[self.majority],
            "validation": "held out of train" if self.held_out else "the source's own",
            **({"words": list(self.source.words)} if self.source.words else {}),
        }


def missing_split(source: Source, name: str) -> DataError:
    """What to raise where a source has no split called `name`."""
    return DataError(f"{source.spec} has no {name} split (it has {', '.join(source.splits)}); choose one with --split")


class SourceManifest:
    """A run's `source.json`: the source as it was, and the images that could not be read, with the reason."""

    def __init__(self, run: Run, data: RunData, progress: Progress) -> None:
        """Writes the file. Raises RunError where a resumed run's source has other classes than before."""
        self.path = run.path / "source.json"
        self.described = data.describe()
        self.before: dict[str, str] = {}  # what an earlier process could not read
        self.written: dict[str, Any] = {}
        if self.path.exists():
            self._compare(run, progress)
        self.write({})

    def _compare(self, run: Run, progress: Progress) -> None:
        before, now, spec = run.source, self.described, self.described["source"]
        if before["classes"] != now["classes"]:
            changed = sorted(set(before["classes"]) ^ set(now["classes"])) or ["their order"]
            raise RunError(
                f"{spec} no longer has the classes that {run.path} began with (changed: "
                f"{', '.join(changed)}); put them back to go on, or begin another run"
            )
        if before["splits"] != now["splits"]:
            progress.warn(
                f"{spec} has {_counts(now)} images, and had {_counts(before)} when the run began: "
                "it goes on, but not exactly as it would have"
            )
        self.before = before.get("unreadable", {})

    def write(self, unreadable: dict[str, str]) -> None:
        """Bring the list of unreadable images (name → reason) up to date."""
        missing = dict(sorted((self.before | unreadable).items()))
        entry = {**self.described, "unreadable": missing} if missing else self.described
        if entry != self.written:
            write_json(self.path, entry)
            self.written = entry


def _counts(described: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in described["splits"].items())


def open_run_data(config: Config, source: Source | None = None) -> RunData:
    """Open a config's source, unless it is given, and choose its splits.

    Pictures are turned as `config.data.exif_rotate` says; a store was prepared one way or the other, which the returned
    config tells. Raises UsageError where none is named, DataError for a source that cannot be trained on.
    """
    exif_rotate = config.data.exif_rotate
    if source is None:
        if not config.data.source:
            raise UsageError(f"preset {config.preset} has no images of its own: name yours with --data SRC")
        source = open_source(config.data.source)
        if exif_rotate and source.exif_rotate is False:
            raise DataError(f"{source.spec} was prepared without --exif-rotate, but data.exif_rotate asks for it")
    if source.exif_rotate is not None:
        exif_rotate = source.exif_rotate
    elif exif_rotate:
        source = source.rotated()
    if "train" not in source.splits:
        raise DataError(f"{source.spec} has no train split, only {', '.join(source.splits)}")
    train = source.splits["train"]
    held_out = "val" not in source.splits
    if held_out:
        train, validation = hold_out(train, config.data.validation, HELD_OUT_SEED)
    else:
        validation = source.splits["val"]
    network = dataclasses.replace(config.network, classes=len(source.classes))
    data = dataclasses.replace(config.data, exif_rotate=exif_rotate)
    return RunData(dataclasses.replace(config, network=network, data=data), source, train, validation, held_out)
