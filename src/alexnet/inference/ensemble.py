"""Several predictors averaged: the mean of their softmax outputs, or a weighted one (paper §6).

The weights can be searched on validation images as the 2012 scripts did. Shapes: `M` members, `N` images, `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import UsageError
from alexnet.predictor import Images, Predictor

STEP = 0.05  # between the weights that are tried, from 0 to 1 (2012 source)


class Ensemble(Predictor):
    """The average of several predictors; an image is decoded once for all of them."""

    def __init__(self, members: Sequence[Predictor], weights: Sequence[float] | None = None) -> None:
        """Take `weights` (default: equal ones) as parts of their sum.

        Raises UsageError for members that differ in classes or in the squares that they take, and for weights that
        are negative, all zero or not one per member.
        """
        if not members:
            raise UsageError("no model is given; name at least one")
        first = self.first = members[0]
        for member in members[1:]:
            if tuple(member.classes) != tuple(first.classes):
                raise UsageError(f"{_name(member)} has other classes than {_name(first)}; they cannot be averaged")
            if (member.size, member.exif_rotate) != (first.size, first.exif_rotate):
                raise UsageError(
                    f"{_name(member)} takes {_squares(member)}, {_name(first)} {_squares(first)}; "
                    "they cannot be averaged"
                )
        self.members = tuple(members)
        self.weights = normalized(weights, len(members))
        self.classes, self.size, self.exif_rotate, self.run = first.classes, first.size, first.exif_rotate, first.run
        self.words = next((member.words for member in members if member.words), None)
        self.batch_size = min(member.batch_size for member in members)

    @cached_property
    def description(self) -> dict[str, Any]:  # type: ignore[override]
        """The members' descriptions and their weights."""
        return {"members": [member.description for member in self.members], "weights": list(self.weights)}

    def probabilities(self, images: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """As `Predictor.probabilities`, averaged over the members."""
        return weighted_sum([member.probabilities(images, views) for member in self.members], self.weights)

    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """As `Predictor.taps`, each member's under its number: `0.conv1`, … `1.conv1`."""
        squares = self.squares(images)
        wanted = None if names is None else [name.partition(".") for name in names]
        taps: dict[str, NDArray[np.float32]] = {}
        for i, member in enumerate(self.members):
            own = None if wanted is None else [name for number, _, name in wanted if number == str(i)]
            if own is None or own:
                taps |= {f"{i}.{name}": value for name, value in member.taps(squares, own).items()}
        if wanted is not None and len(taps) < len({"".join(parts) for parts in wanted}):
            raise UsageError(f"taps of an ensemble are named by member, as 0.conv1 to {len(self.members) - 1}.conv1")
        return taps


def weighted_sum(outputs: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float32]:
    """M arrays (N, C) and M weights → (N, C)."""
    total = np.zeros_like(outputs[0])
    for output, weight in zip(outputs, weights, strict=True):
        total += np.float32(weight) * output
    return total


def normalized(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights as parts of their sum, equal ones for None. Raises UsageError."""
    if weights is None:
        return (1 / count,) * count
    if len(weights) != count:
        raise UsageError(f"{len(weights)} weights are given for {count} models")
    total = sum(weights)
    if not 0 < total < float("inf") or min(weights) < 0:
        raise UsageError(f"the weights {', '.join(map(str, weights))} should be at least 0, and one of them above it")
    return tuple(weight / total for weight in weights)


def search_weights(outputs: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]) -> tuple[float, ...]:
    """The weights with the lowest top-5 error, by coordinate descent as in the 2012 scripts.

    outputs: M arrays (N, C) of probabilities for the same images, labels: int64 (N,). From equal weights of 1 on, one
    member's weight after the other is set to that of 0, 0.05, … 1 with the lowest error (the old one where none is
    lower), until a round changes nothing. Between equal top-5 errors, and up to 5 classes, the top-1 error decides.
    Returns weights that sum to 1.
    """
    weights = [1.0] * len(outputs)
    grid = [round(i * STEP, 2) for i in range(round(1 / STEP) + 1)]
    lowest = _error(weighted_sum(outputs, weights), labels)
    changed = True
    while changed:
        changed = False
        for i, output in enumerate(outputs):
            others = weighted_sum(outputs, [*weights[:i], 0.0, *weights[i + 1 :]])
            for weight in grid:
                error = _error(others + np.float32(weight) * output, labels)
                if error < lowest:  # never all weights 0: ties are errors
                    lowest, weights[i], changed = error, weight, True
    return normalized(weights, len(outputs))


def _error(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[int, int]:
    """The images with top-5 errors, of up to 5 classes none, and with top-1 errors; a tie is an error."""
    ahead = (scores >= scores[np.arange(len(labels)), labels][:, None]).sum(axis=1) - 1
    return int((ahead >= 5).sum()) if scores.shape[1] > 5 else 0, int((ahead >= 1).sum())


def _name(predictor: Predictor) -> str:
    return str(predictor.description.get("run") or type(predictor).__name__)


def _squares(predictor: Predictor) -> str:
    turned = " turned by EXIF" if predictor.exif_rotate else ""
    return f"squares of {predictor.size} pixels{turned}"
