"""What a run trains and measures on: the source's splits, classes and statistics."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.config import Config
from alexnet.data.dataset import Source, Split, hold_out, other_classes
from alexnet.data.readers.open import open_source
from alexnet.data.statistics import Statistics, fit
from alexnet.errors import DataError, RunError, UsageError, quoted
from alexnet.files import write_json
from alexnet.progress import Progress
from alexnet.run import Run

if TYPE_CHECKING:
    from alexnet.data.loader import BatchLoader

HELD_OUT_SEED = 2012  # the held-out images are the same for every run on a source


@dataclass(frozen=True)
class RunData:
    """A source made ready for a config: its train and validation splits, and the config with its class count."""

    config: Config
    source: Source
    train: Split
    validation: Split
    held_out: bool  # whether validation was cut from train
    place: str | None = None  # the absolute path of the images; None where the source is no path
    changed: str = ""  # what of them is not as it was when the run began, in words

    def split(self, name: str) -> Split:
        """`train`, `val` or `test`; `val` is the held-out part where the source has none. Raises DataError."""
        splits = {**self.source.splits, "train": self.train, "val": self.validation}
        if name not in splits:
            raise missing_split(self.source, name)
        return splits[name]

    def loader(self, split: Split, progress: Progress, **options: Any) -> BatchLoader:
        """Batches of a split as the config's data settings say; `options` are those of `BatchLoader`."""
        from alexnet.data.loader import BatchLoader

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

        A store's own are taken where they are of these images at this size (those of the squares as they were before
        jpeg or yuv420); others are fitted.
        """
        if path.exists():
            return load_statistics(path, self.config.data.size)
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

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """As `fingerprint` of the source."""
        return fingerprint(self.source)

    def describe(self) -> dict[str, Any]:
        """What `source.json` says."""
        splits = {"train": len(self.train), "val": len(self.validation)}
        splits |= {name: len(split) for name, split in self.source.splits.items() if name not in ("train", "val")}
        return {
            "source": self.source.spec,
            "path": self.place,
            "classes": list(self.source.classes),
            "splits": splits,
            "majority": self.source.classes[self.majority],
            "fingerprint": self.fingerprint,
            "validation": "held out of train" if self.held_out else "the source's own",
            **({"words": list(self.source.words)} if self.source.words else {}),
        }


def missing_split(source: Source, name: str) -> DataError:
    """What to raise where a source has no split called `name`."""
    return DataError(f"{source.spec} has no {name} split, only {', '.join(source.splits)}")


def place_of(spec: str) -> str | None:
    """The absolute path that a source's specification means here and now; None for digits, `hf:…` and other names."""
    if spec == "digits" or spec.startswith("hf:"):
        return None
    path = os.path.abspath(os.path.expanduser(spec))
    return path if os.path.exists(path) else None


def fingerprint(source: Source) -> dict[str, str]:
    """Split → number of images, and the sha256 of their labels and names in order. No image is read."""
    prints = {}
    for name, split in source.splits.items():
        digest = hashlib.sha256(split.labels.tobytes())
        for image in split.image_names():
            digest.update(image.encode(errors="surrogateescape") + b"\0")
        prints[name] = f"{len(split)} {digest.hexdigest()}"
    return prints


def changed_since(known: Mapping[str, Any], source: Source) -> str:
    """What of a source is not as a run's source.json says, in words; empty where nothing is."""
    if classes := other_classes(known.get("classes", source.classes), source.classes):
        return classes  # with which labels and counts are others too
    changes = []
    before: Mapping[str, str] = known.get("fingerprint", {})
    now = fingerprint(source) if before else {}
    for name in [*now, *(name for name in before if name not in now)]:
        then, here = (prints.get(name, "0").partition(" ") for prints in (before, now))
        if then[0] != here[0]:
            changes.append(f"{here[0]} {quoted(name)[1:-1]} images, not {quoted(then[0])[1:-1]}")
        elif then != here:
            changes.append(f"{quoted(name)[1:-1]} images of other names or labels")
    return ", ".join(changes)


def open_known_source(run: Run, data: str | None = None) -> tuple[Source, str | None, str]:
    """A run's images, where they were when it began or where `data` says: source, absolute path, and what has changed.

    What was typed when the run began means nothing in another folder, so the path decides. Raises DataError where the
    images are no longer there.
    """
    known = run.source if (run.path / "source.json").exists() else {}
    if data is not None:
        source, place = open_source(data), place_of(data)
    elif (place := known.get("path")) is not None:
        if not os.path.exists(place):
            raise DataError(
                f"the images of {run.path} are no longer at {place}: put them back, or name with data (--data) "
                "where they are"
            )
        source = dataclasses.replace(open_source(place), spec=run.config.data.source)
    else:
        source = open_source(run.config.data.source)
        place = place_of(run.config.data.source) if not known else None
    source = source.only(run.config.data.classes)
    return source, place, changed_since(known, source)


def open_resumed_data(run: Run, config: Config, progress: Progress, data: str | None = None) -> RunData:
    """A run's images to go on with. Raises RunError where their classes are others than when it began; else warns."""
    source, place, changes = open_known_source(run, data)
    exif_rotate = config.data.exif_rotate
    if source.exif_rotate not in (None, exif_rotate):
        raise RunError(f"{source.spec} was prepared with{'out' if exif_rotate else ''} exif_rotate, unlike this run")
    if "classes" in changes:
        raise RunError(
            f"{source.spec} is not what {run.path} began with: {changes}; put its images back, name with data "
            "(--data) where they are, or begin another run"
        )
    if changes:
        progress.warn(
            f"{source.spec} is not as it was when the run began ({changes}): it goes on, but not exactly as it would "
            "have"
        )
    return dataclasses.replace(open_run_data(config, source, place), changed=changes)


def load_statistics(path: Path, size: int) -> Statistics:
    """A run's statistics, for squares of a side. Raises DataError for those of another size or without sense."""
    statistics = Statistics.load(path)
    if statistics.mean_image.shape != (size, size, 3):
        side = len(statistics.mean_image)
        raise DataError(f"{path}: its mean_image should be for pictures of {size}×{size}, not {side}×{side}")
    return statistics


class SourceManifest:
    """A run's `source.json`: the source as it was, and the images that could not be read, with the reason."""

    def __init__(self, run: Run, data: RunData) -> None:
        """Writes the file."""
        self.path = run.path / "source.json"
        self.described = data.describe()
        self.before: dict[str, str] = {}  # what an earlier process could not read
        self.written: dict[str, Any] = {}
        if self.path.exists():
            self.before = run.source.get("unreadable", {})
        self.write({})

    def write(self, unreadable: dict[str, str]) -> None:
        """Bring the list of unreadable images (name → reason) up to date."""
        missing = dict(sorted((self.before | unreadable).items()))
        entry = {**self.described, "unreadable": missing} if missing else self.described
        if entry != self.written:
            write_json(self.path, entry)
            self.written = entry


def open_run_data(config: Config, source: Source | None = None, place: str | None = None) -> RunData:
    """Open a config's source, unless it is given with its absolute path, and choose its splits.

    Pictures are turned as `config.data.exif_rotate` says; a store was prepared one way or the other, which the returned
    config tells. Raises UsageError where none is named, DataError for a source that cannot be trained on.
    """
    exif_rotate = config.data.exif_rotate
    if source is None:
        if not config.data.source:
            raise UsageError(f"preset {config.preset} has no images of its own: name yours with data (--data SRC)")
        source, place = open_source(config.data.source).only(config.data.classes), place_of(config.data.source)
        if exif_rotate and source.exif_rotate is False:
            raise DataError(f"{source.spec} was prepared without exif_rotate, but data.exif_rotate asks for it")
    if source.exif_rotate is not None:
        if source.exif_rotate and not exif_rotate and "data.exif_rotate" in config.chosen:
            raise DataError(f"{source.spec} was prepared with exif_rotate, but data.exif_rotate is false")
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
    return RunData(dataclasses.replace(config, network=network, data=data), source, train, validation, held_out, place)
