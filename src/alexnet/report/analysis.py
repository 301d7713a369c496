"""What a trained network does with a split's images: errors, confusions, examples and their nearest training images.

Shapes: `N` images, `C` classes, `U` units of the last hidden layer, `S` side of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.dataset import Split, Subset
from alexnet.data.decode import square
from alexnet.data.loader import Batch, order
from alexnet.data.run_data import Inputs, open_inputs
from alexnet.errors import DataError
from alexnet.evaluation.metrics import ErrorCounter
from alexnet.inference.network import NetworkPredictor as Classifier
from alexnet.model.zoo import hidden_tap
from alexnet.progress import Progress, quiet

BY_LOT, MISTAKES, NEAREST = 8, 4, 6
GALLERY = 20_000  # training images searched for the nearest ones
SHOWN_SIDE = 160  # pixels at most of an image in the report
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Neighbour:
    """A training image and its Euclidean distance from an example in the last hidden layer."""

    image: Pixels
    key: str
    label: int
    distance: float


@dataclass(frozen=True)
class Example:
    """An image, its true label, its most probable labels and its nearest training images, nearest first."""

    image: Pixels
    key: str
    truth: int
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    by_lot: bool  # drawn by lot; otherwise one of the surest mistakes
    nearest: tuple[Neighbour, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the most probable label is the true one."""
        return self.labels[0] == self.truth


@dataclass(frozen=True)
class Observations:
    """What was seen on one split with the centre view; `confusion` (C, C) counts true class by predicted class."""

    split: str
    count: int
    top1_error: float
    top5_error: float | None
    loss: float
    confusion: NDArray[np.int64]
    examples: tuple[Example, ...]
    hidden_layer: str
    hidden_units: int
    gallery: int  # training images searched
    train: int  # training images there are


def observe(classifier: Classifier, progress: Progress = quiet, gallery: int = GALLERY) -> Observations:
    """Look at the test split, or at validation where there is none. Raises DataError when the source is not there."""
    inputs = open_inputs(classifier.config)
    name = "test" if "test" in inputs.source.splits else "val"
    split = inputs.split(name)
    looker = _Looker(inputs, classifier, progress)
    progress.note(f"looking at the {len(split):,} images of the {name} split")
    counter, confusion, seen = looker.classify(split)
    chosen = _choose(seen)
    searched = min(gallery, len(inputs.train))
    progress.note(f"comparing {len(chosen.positions)} of them with {searched:,} training images")
    nearest, units = looker.nearest(split, chosen.positions, gallery)
    examples = tuple(
        Example(_view(split, i), split.key(i), truth, tuple(labels), tuple(probabilities), by_lot, around)
        for i, truth, labels, probabilities, by_lot, around in zip(
            chosen.positions.tolist(),
            chosen.truths.tolist(),
            chosen.labels.tolist(),
            chosen.probabilities.tolist(),
            chosen.by_lot.tolist(),
            nearest,
            strict=True,
        )
    )
    return Observations(
        name,
        counter.count,
        counter.top1_error,
        counter.top5_error,
        counter.loss,
        confusion,
        examples,
        hidden_tap(classifier.model),
        units,
        searched,
        len(inputs.train),
    )


@dataclass(frozen=True)
class _Seen:
    """Positions (N,), true labels (N,), most probable labels and their probabilities (N, 5), by lot or not (N,)."""

    positions: NDArray[np.int64]
    truths: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    by_lot: NDArray[np.bool_]

    def take(self, indices: NDArray[np.int64], by_lot: NDArray[np.bool_]) -> _Seen:
        return _Seen(
            self.positions[indices], self.truths[indices], self.labels[indices], self.probabilities[indices], by_lot
        )


def _choose(seen: _Seen) -> _Seen:
    """Images drawn by lot (the same each time), of many classes, and the mistakes of the highest probability."""
    drawn = order(len(seen.positions), 0, 0)
    _, firsts = np.unique(seen.truths[drawn], return_index=True)
    lot = drawn[np.concatenate([np.sort(firsts), np.setdiff1d(np.arange(len(drawn)), firsts)])][:BY_LOT]
    wrong = np.flatnonzero(seen.labels[:, 0] != seen.truths)
    wrong = wrong[~np.isin(wrong, lot)]
    surest = wrong[np.argsort(-seen.probabilities[wrong, 0], kind="stable")][:MISTAKES]
    indices = np.concatenate([lot, surest]).astype(np.int64)
    return seen.take(indices, np.arange(len(indices)) < len(lot))


class _Looker:
    """A network and the way images reach it."""

    def __init__(self, inputs: Inputs, classifier: Classifier, progress: Progress) -> None:
        self.inputs, self.classifier, self.progress = inputs, classifier, progress
        self.config = classifier.config

    def _batches(self, split: Split) -> Iterator[Batch]:
        return self.inputs.feed(split, self.progress, shuffle=False).epoch(0)

    def classify(self, split: Split) -> tuple[ErrorCounter, NDArray[np.int64], _Seen]:
        """Errors, confusion matrix and the five most probable labels of every image, from the centre view."""
        classes = self.config.network.classes
        counter = ErrorCounter(classes)
        confusion = np.zeros((classes, classes), np.int64)
        parts = []
        for batch in self._batches(split):
            probabilities = self.classifier.probabilities(batch.images)
            counter.add(probabilities.log(), batch.labels)
            top, labels = probabilities.topk(min(5, classes), 1)
            truths = batch.labels.numpy()
            np.add.at(confusion, (truths, labels[:, 0].numpy()), 1)
            parts.append((batch.positions, truths, labels.numpy(), top.double().numpy()))
        if not parts:
            raise DataError(f"none of the {len(split):,} images of the {split.name} split can be read")
        positions, truths, found, most = (np.concatenate(values) for values in zip(*parts, strict=True))
        return counter, confusion, _Seen(positions, truths, found, most, np.zeros(len(positions), bool))

    def nearest(
        self, split: Split, positions: NDArray[np.int64], gallery: int
    ) -> tuple[list[tuple[Neighbour, ...]], int]:
        """The training images nearest to some of a split's images, and the units of the layer they are compared by.

        Of a larger training set `gallery` images are searched, drawn by lot, always the same.
        """
        train = self.inputs.train
        if len(train) > gallery:
            train = Subset(train, np.sort(order(len(train), 0, 0)[:gallery]), "train")
        size = self.config.data.size
        images = torch.from_numpy(np.stack([square(split.read(int(i)), size) for i in positions]))
        queries = self._features(images)  # (n, U)
        distances = torch.full((len(positions), NEAREST), float("inf"))
        where = torch.zeros(len(positions), NEAREST, dtype=torch.int64)
        for batch in self._batches(train):
            found = torch.cdist(
                queries, self._features(batch.images), compute_mode="donot_use_mm_for_euclid_dist"
            ).cpu()
            candidates = torch.cat([distances, found], 1)
            indices = torch.cat([where, torch.from_numpy(batch.positions).expand(len(positions), -1)], 1)
            distances, kept = candidates.topk(min(NEAREST, candidates.shape[1]), 1, largest=False)
            where = indices.gather(1, kept)
        return [
            tuple(
                Neighbour(_view(train, i), train.key(i), int(train.labels[i]), d)
                for i, d in zip(row.tolist(), far.tolist(), strict=True)
                if d < float("inf")
            )
            for row, far in zip(where, distances, strict=True)
        ], queries.shape[1]

    def _features(self, images: Tensor) -> Tensor:
        """uint8 (n, S, S, 3) → activations of the last hidden layer from the centre view, float (n, U)."""
        tap = hidden_tap(self.classifier.model)
        return self.classifier.taps(images, [tap])[tap].float().flatten(1)


def _view(split: Split, i: int) -> Pixels:
    """An image's central square as people look at it: as it is where small, else brought to a small side."""
    pixels = split.read(int(i))
    return square(pixels, min(SHOWN_SIDE, *pixels.shape[:2]))
