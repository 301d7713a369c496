"""Whether images that a network finds alike are of one kind, though far apart in pixels (claim 16, §6.1, fig. 4 right).

Shapes: `Q` queries, `N` images of the gallery, `U` units of the layer, `S` side of an image, `k` neighbours per query.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import hidden_layer
from alexnet.data.dataset import Split
from alexnet.data.run_data import RunData
from alexnet.errors import DataError, UsageError
from alexnet.predictor import Predictor
from alexnet.progress import Progress, quiet
from alexnet.report.analysis import at_most, open_measured
from alexnet.report.nearest import features
from alexnet.run import Run

NEAREST = 6  # the paper's figure shows so many
QUERIES, GALLERY = 1_000, 10_000
_PART = 1 << 22  # numbers in float64 at a time

Part = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]  # features (N, U), pixels (N, …), labels (N,)


@dataclass(frozen=True)
class Neighbourhoods:
    """What the nearest of a gallery are to queries, by features and by pixels (Euclidean), all in percent.

    `same_class` by features, by pixels and by chance is the share of the nearest that have the query's class.
    `pixel_distance` is the neighbours' mean distance in pixels over that of a random image of the gallery: near 100
    where they look no more alike, pixel by pixel, than any two images.
    """

    same_class_by_features: float
    same_class_by_pixels: float
    same_class_by_chance: float
    pixel_distance_by_features: float
    pixel_distance_by_pixels: float
    queries: int
    gallery: int
    neighbours: int
    layer: str = ""


def neighbourhoods(queries: Part, gallery: Iterable[Part], k: int = NEAREST) -> Neighbourhoods:
    """Measure queries against a gallery that comes in parts, of which only the newest is kept.

    Of equal distances the earlier image is the nearer one. Raises DataError where the gallery has fewer than k images
    or there is no query, UsageError for k below 1.
    """
    if k < 1:
        raise UsageError(f"{k} neighbours should be at least 1")
    vectors, pixels, labels = queries
    by_features, by_pixels = _Nearest(len(labels), k), _Nearest(len(labels), k)
    total, same, count = 0.0, 0, 0
    for own_vectors, own_pixels, own_labels in gallery:
        if not len(own_labels):
            continue
        apart = distances(pixels, own_pixels)
        equal = labels[:, None] == own_labels
        by_features.add(distances(vectors, own_vectors), apart, equal)
        by_pixels.add(apart, apart, equal)
        total, same, count = total + float(apart.sum()), same + int(equal.sum()), count + len(own_labels)
    if count < k or not len(labels):
        raise DataError(f"{len(labels)} queries and a gallery of {count} images are too few for {k} neighbours of each")
    pairs = count * len(labels)
    random = total / pairs or 1.0  # all images are equal
    return Neighbourhoods(
        100 * float(by_features.equal.mean()),
        100 * float(by_pixels.equal.mean()),
        100 * same / pairs,
        100 * float(by_features.apart.mean()) / random,
        100 * float(by_pixels.apart.mean()) / random,
        len(labels),
        count,
        k,
    )


def distances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean distances of (Q, …) and (N, …), flattened: (Q, N).

    By products in float64, which are exact for pixels and close for features; bounded memory beside the result.
    """
    numbers = math.prod(first.shape[1:])
    left, right = first.reshape(len(first), numbers), second.reshape(len(second), numbers)
    rows = max(1, _PART // numbers)
    out = np.empty((len(left), len(right)))
    for j in range(0, len(right), rows):
        b = right[j : j + rows].astype(np.float64)
        squares = np.einsum("nu,nu->n", b, b)
        for i in range(0, len(left), rows):
            a = left[i : i + rows].astype(np.float64)
            square = np.einsum("qu,qu->q", a, a)[:, None] + squares - 2 * (a @ b.T)
            out[i : i + rows, j : j + rows] = np.sqrt(np.maximum(square, 0))
    return out


class _Nearest:
    """The k nearest so far of each query: how far they are in pixels, and whether they have its class, (Q, k)."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.distances, self.apart = np.empty((queries, 0)), np.empty((queries, 0))
        self.equal = np.empty((queries, 0), bool)

    def add(self, far: NDArray[np.float64], apart: NDArray[np.float64], equal: NDArray[np.bool_]) -> None:
        """Take the nearest of those there are and of new ones, all (Q, N)."""
        far = np.concatenate([self.distances, far], 1)
        order = np.argsort(far, axis=1, kind="stable")[:, : self.k]
        self.distances = np.take_along_axis(far, order, 1)
        self.apart = np.take_along_axis(np.concatenate([self.apart, apart], 1), order, 1)
        self.equal = np.take_along_axis(np.concatenate([self.equal, equal], 1), order, 1)


def measure_neighbours(
    predictor: Predictor,
    run: Run,
    progress: Progress = quiet,
    queries: int = QUERIES,
    gallery: int = GALLERY,
    data: str | None = None,
) -> Neighbourhoods:
    """The neighbourhoods of a run's test images (validation where there is no test) among its training images.

    Of both at most so many, drawn at random and the same each time, as a split may be sorted by class; the centre view
    in the last hidden layer, and the whole squares as pixels. `data` says where the images are now, if they were
    moved. Raises DataError where they are no longer there or too few.
    """
    opened, split = open_measured(predictor, run, progress, data)
    layer = hidden_layer(opened.config.network)
    asked, searched = at_most(split, queries), at_most(opened.train, gallery)
    progress.note(f"comparing {len(asked):,} images of the {split.name} split with {len(searched):,} training images")
    with progress.counting("decoding"):
        parts = list(_parts(predictor, opened, asked, layer, progress))
        if not parts:
            raise DataError(f"none of the {len(asked):,} images of the {split.name} split can be read")
        whole: Part = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # type: ignore[assignment]
        found = neighbourhoods(whole, _parts(predictor, opened, searched, layer, progress))
    return Neighbourhoods(**{**vars(found), "layer": layer})


def _parts(predictor: Predictor, data: RunData, split: Split, layer: str, progress: Progress) -> Iterator[Part]:
    for batch in data.loader(split, progress, shuffle=False).epoch(0):
        if len(batch.labels):
            pixels = batch.images.numpy().copy()
            yield features(predictor, pixels, layer).numpy(), pixels, batch.labels.numpy().copy()
