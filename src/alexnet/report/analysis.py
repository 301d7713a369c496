"""What a trained network does with a split's images: errors, confusions, examples and their nearest training images.

Shapes: `N` images, `C` classes, `S` side of an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.architecture import hidden_layer
from alexnet.data.dataset import Split, Subset
from alexnet.data.decode import Pixels
from alexnet.data.loader import BatchLoader
from alexnet.data.random import permutation
from alexnet.data.run_data import RunData, open_known_source, open_run_data
from alexnet.errors import DataError
from alexnet.evaluation.metrics import ErrorCounter, Measurement
from alexnet.inference.evaluate import log_probabilities
from alexnet.predictor import Predictor
from alexnet.progress import Progress, quiet
from alexnet.report.nearest import features, nearest
from alexnet.run import Run

RANDOM, MISTAKES, NEIGHBOURS = 8, 4, 6
TOP = 5
SEARCHED = 20_000  # training images searched for the nearest ones


@dataclass(frozen=True)
class Neighbour:
    """A training image, (S, S, 3), and its Euclidean distance from an example in the last hidden layer."""

    image: Pixels
    name: str
    label: int
    distance: float


@dataclass(frozen=True)
class Example:
    """An image, (S, S, 3), its true label, its most probable labels and its nearest training images, nearest first.

    `random` says whether the image was drawn at random; the others are the mistakes of the highest probability.
    """

    image: Pixels
    name: str
    truth: int
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    random: bool
    neighbours: tuple[Neighbour, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the most probable label is the true one."""
        return self.labels[0] == self.truth


@dataclass(frozen=True)
class Analysis:
    """A split in the centre view; `confusion` (C, C) counts true class by predicted class.

    `hidden_layer` and its `hidden_units` are what images are compared by, `searched` of `training_images` those that
    were searched for the nearest; `changed` says what of the images is not as it was when the run began.
    """

    split: str
    measurement: Measurement
    confusion: NDArray[np.int64]
    examples: tuple[Example, ...]
    hidden_layer: str
    hidden_units: int
    searched: int
    training_images: int
    changed: str = ""


def analyse(
    predictor: Predictor, run: Run, progress: Progress = quiet, searched: int = SEARCHED, data: str | None = None
) -> Analysis:
    """What a predictor does with a run's test split, with validation where there is none.

    `data` says where the images are now, if they were moved.

    The nearest images are looked for among at most `searched` training images. The same run gives the same analysis.
    Raises DataError where the images are no longer there.
    """
    opened, split = open_measured(predictor, run, progress, data)
    source = opened.source
    progress.note(f"classifying the {len(split):,} images of the {split.name} split")
    guesses, measurement = _classify(predictor, _loader(opened, split, progress), opened)
    confusion = np.zeros((len(source.classes),) * 2, np.int64)
    np.add.at(confusion, (guesses.truths, guesses.labels[:, 0]), 1)
    examples = _examples(guesses, split, opened, progress)
    layer = hidden_layer(opened.config.network)
    queries = features(predictor, np.stack([example.image for example in examples]), layer)
    train = at_most(opened.train, searched)
    progress.note(f"comparing {len(examples)} of them with {len(train):,} training images")
    batches = (batch for batch in _loader(opened, train, progress).epoch(0) if len(batch.labels))
    vectors = (
        (torch.from_numpy(batch.positions), features(predictor, batch.images.numpy(), layer)) for batch in batches
    )
    distances, positions = nearest(queries, vectors, NEIGHBOURS)
    pictures = _squares(opened, train, np.unique(positions.numpy()), progress)
    neighbours = [
        tuple(
            Neighbour(pictures[i], train.image_name(i), int(train.labels[i]), distance)
            for i, distance in zip(row, row_distances, strict=True)
        )
        for row, row_distances in zip(positions.tolist(), distances.tolist(), strict=True)
    ]
    return Analysis(
        split.name,
        measurement,
        confusion,
        tuple(replace(example, neighbours=own) for example, own in zip(examples, neighbours, strict=True)),
        layer,
        queries.shape[1],
        len(train),
        len(opened.train),
        opened.changed,
    )


def open_measured(
    predictor: Predictor, run: Run, progress: Progress = quiet, data: str | None = None
) -> tuple[RunData, Split]:
    """A run's images as they are now, and the split that a page is about: test, or validation where there is none.

    `data` says where the images are now, if they were moved. Raises DataError where they are no longer there, or of
    other classes.
    """
    source, place, changed = open_known_source(run, data)
    if tuple(source.classes) != predictor.classes:
        raise DataError(
            f"{source.spec} is not what the run began with: {changed}; name with data (--data) where its images are"
        )
    if changed:
        progress.warn(f"{source.spec} is not as it was when the run began: {changed}")
    opened = replace(open_run_data(run.config, source, place), changed=changed)
    return opened, opened.split("test" if "test" in source.splits else "val")


def at_most(split: Split, count: int) -> Split:
    """A split, or so many of its images, drawn at random and the same each time, in their order."""
    if len(split) <= count:
        return split
    return Subset(split, np.sort(permutation(len(split), 0, 0)[:count]), split.name)


@dataclass(frozen=True)
class _Guesses:
    """Positions (N,), true labels (N,), the most probable labels and their probabilities, both (N, TOP)."""

    positions: NDArray[np.int64]
    truths: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def _classify(predictor: Predictor, loader: BatchLoader, data: RunData) -> tuple[_Guesses, Measurement]:
    classes = len(data.source.classes)
    counter = ErrorCounter(classes, data.majority)
    parts = []
    for batch in loader.epoch(0):
        if not len(batch.labels):
            continue
        scores = torch.from_numpy(log_probabilities(predictor, batch.images.numpy()))
        counter.add(scores, batch.labels)
        highest, labels = scores.topk(min(TOP, classes), 1)
        parts.append((batch.positions, batch.labels.numpy(), labels.numpy(), highest.double().exp().numpy()))
    total = len(loader.split)
    if not parts:
        raise DataError(f"none of the {total:,} images of the {loader.split.name} split can be read")
    guesses = _Guesses(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    return guesses, counter.result(unreadable=total - counter.count)


def _examples(guesses: _Guesses, split: Split, data: RunData, progress: Progress) -> list[Example]:
    """Images at random (the same each time), of many classes, then the mistakes of the highest probability."""
    shuffled = permutation(len(guesses.truths), 0, 0)
    _, firsts = np.unique(guesses.truths[shuffled], return_index=True)
    rest = np.setdiff1d(np.arange(len(shuffled)), firsts)
    drawn = shuffled[np.concatenate([np.sort(firsts), rest])][:RANDOM]
    wrong = np.setdiff1d(np.flatnonzero(guesses.labels[:, 0] != guesses.truths), drawn)
    surest = wrong[np.argsort(-guesses.probabilities[wrong, 0], kind="stable")][:MISTAKES]
    chosen = [(int(i), True) for i in drawn] + [(int(i), False) for i in surest]
    pictures = _squares(data, split, guesses.positions[[i for i, _ in chosen]], progress)
    return [
        Example(
            pictures[int(guesses.positions[i])],
            split.image_name(int(guesses.positions[i])),
            int(guesses.truths[i]),
            tuple(guesses.labels[i].tolist()),
            tuple(guesses.probabilities[i].tolist()),
            random,
        )
        for i, random in chosen
    ]


def _loader(data: RunData, split: Split, progress: Progress) -> BatchLoader:
    return data.loader(split, progress, shuffle=False)


def _squares(data: RunData, split: Split, positions: Iterable[int], progress: Progress) -> dict[int, Pixels]:
    """Some of a split's images as the network is given them, by position."""
    chosen = np.array(list(positions), np.int64)
    batches = _loader(data, Subset(split, chosen, split.name), progress).epoch(0)
    return {
        int(chosen[i]): image.numpy().copy()
        for batch in batches
        for i, image in zip(batch.positions, batch.images, strict=True)
    }
