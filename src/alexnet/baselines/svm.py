"""Linear support vector machines, one class against the rest, by averaged stochastic gradient descent (Lin 2011).

Many are fitted in one pass over the features: those of all classes, for several strengths of the penalty at once.
Shapes: `N` rows of a batch, `D` features, `C` classes, `L` penalties, `M` = L · C machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.grid import Floats
from alexnet.baselines.rows import Rows

BLOCK = 4096  # features that a thread takes at once: sums over them are the same for any number of threads
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
POWER = 0.75  # of the rate's decay


@dataclass
class Machines:
    """M linear machines on their way: `weights` (D, M) and `biases` (M,), and their averages over the steps taken.

    The loss of a machine is the mean of max(0, 1 − y·score)² / 2 plus λ/2·‖w‖². A step follows its gradient on a batch
    with the rate η₀ / (1 + η₀·λ·t)^¾; averaging begins after `burn_in` steps. The machines see the features less
    `centre` (D,), what all pictures have in common. `apply` is `map`, or an executor's.
    """

    weights: Floats
    biases: Floats
    mean_weights: Floats
    mean_biases: Floats
    centre: Floats
    penalties: tuple[float, ...]
    rate: float
    burn_in: int
    steps: int = 0
    apply: Map = field(default=map, repr=False)

    @classmethod
    def zeros(
        cls, centre: Floats, classes: int, penalties: Sequence[float], rate: float, burn_in: int, apply: Map = map
    ) -> Machines:
        """Machines that score 0."""
        shape = len(centre), classes * len(penalties)
        weights, biases = np.zeros((2, *shape), np.float32), np.zeros((2, shape[1]), np.float32)
        return cls(weights[0], biases[0], weights[1], biases[1], centre, tuple(penalties), rate, burn_in, apply=apply)

    @cached_property
    def places(self) -> list[slice]:
        """The blocks of features that are computed side by side."""
        return [slice(first, first + BLOCK) for first in range(0, len(self.centre), BLOCK)]

    def step(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        """Follow the gradient on a batch: rows (N, D), labels (N,)."""
        count, machines, parts = len(labels), len(self.biases), range(len(self.places))
        classes = machines // len(self.penalties)
        truth = np.full((count, classes), -1, np.float32)
        truth[np.arange(count), labels] = 1
        truth = np.tile(truth, len(self.penalties))
        blocks = list(self.apply(lambda place: rows.columns(place) - self.centre[place], self.places))
        scores = self.biases + sum(self.apply(lambda i: blocks[i] @ self.weights[self.places[i]], parts))
        pull = truth * np.maximum(0, 1 - truth * scores) / np.float32(count)  # minus the loss's gradient by the scores
        penalty = np.repeat(np.array(self.penalties), classes)
        rate = self.rate / (1 + self.rate * penalty * self.steps) ** POWER
        keep, rate = (1 - rate * penalty).astype(np.float32), rate.astype(np.float32)
        self.steps += 1
        share = np.float32(1 / max(1, self.steps - self.burn_in))

        def follow(i: int) -> None:
            weights, mean = self.weights[self.places[i]], self.mean_weights[self.places[i]]
            weights *= keep
            weights += (blocks[i].T @ pull) * rate
            mean += (weights - mean) * share

        list(self.apply(follow, parts))
        self.biases += pull.sum(axis=0) * rate
        self.mean_biases += (self.biases - self.mean_biases) * share

    def scores(self, rows: Rows) -> Floats:
        """The averaged machines' scores: (N, D) → (N, L, C)."""

        def partial(place: slice) -> Floats:
            return (rows.columns(place) - self.centre[place]) @ self.mean_weights[place]

        flat = self.mean_biases + sum(self.apply(partial, self.places))
        return np.asarray(flat, np.float32).reshape(len(rows), len(self.penalties), -1)

    def keep(self, penalty: int) -> Machines:
        """Only the machines of one penalty, by its place, to go on with."""
        classes = len(self.biases) // len(self.penalties)
        place = slice(penalty * classes, (penalty + 1) * classes)
        weights, mean_weights = (np.ascontiguousarray(w[:, place]) for w in (self.weights, self.mean_weights))
        biases, mean_biases = self.biases[place].copy(), self.mean_biases[place].copy()
        return Machines(
            weights, biases, mean_weights, mean_biases, self.centre, self.penalties[penalty : penalty + 1], self.rate,
            self.burn_in, self.steps, self.apply,
        )  # fmt: skip

    def chosen(self, penalty: int) -> tuple[Floats, Floats]:
        """The averaged weights (D, C) and biases (C,) of one penalty, by its place, for features as they are."""
        classes = len(self.biases) // len(self.penalties)
        place = slice(penalty * classes, (penalty + 1) * classes)
        weights = np.ascontiguousarray(self.mean_weights[:, place])
        return weights, self.mean_biases[place] - self.centre @ weights
