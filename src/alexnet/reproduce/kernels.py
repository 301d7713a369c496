"""How much colour each kernel of the first layer sees, and how far two columns differ in it (claim 15, §6.1, fig. 3).

Shapes: `K` kernels of the layer, `S` rows and columns of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alexnet.architecture import Network
from alexnet.checkpoint import Arrays
from alexnet.errors import UsageError
from alexnet.report.kernels import energies, first_weights

PERMUTATIONS = 10_000
_PART = 1 << 22  # numbers at a time


@dataclass(frozen=True)
class Separation:
    """How separate two columns are by the colour of their kernels.

    `means` are the columns' mean colour indices and `statistic` the size of their difference. Where kernels are dealt
    out to the columns at random it is `chance` on average and at most `chance_95` in 95 of 100 cases; `p` is the share
    of random deals that separate the columns at least as far, the true one counted with them.
    """

    statistic: float
    means: tuple[float, float]
    chance: float
    chance_95: float
    p: float
    kernels: int
    permutations: int


def colour_index(kernels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of each kernel's energy that is colour, 0 to 1: (K, 3, S, S) → (K,).

    Energy is the sum of squared weights; what is left of it when the weights' mean over red, green and blue is taken
    away is colour. A grey kernel has 0, one of a pure opponent colour 1, independent weights 2/3, none at all 0.
    """
    kernels = np.asarray(kernels)
    if kernels.ndim != 4 or kernels.shape[1] != 3:
        raise UsageError(f"kernels {kernels.shape} should be (K, 3, S, S), of RGB")
    energy, grey = energies(kernels)
    return np.clip(1 - grey / np.where(energy > 0, energy, 1), 0, 1) * (energy > 0)


def separation(index: ArrayLike, columns: ArrayLike, permutations: int = PERMUTATIONS, seed: int = 0) -> Separation:
    """How far two columns differ in an index of their kernels, against kernels dealt out at random.

    index: (K,); columns: (K,), the column of each kernel, two in all. The statistic is the difference of the columns'
    means, without sign, as which column sees colour is chance. It keeps the unit of the index, so that it also says how
    much; an AUC says only how often one column's kernels rank above the other's, and is 1 for tiny differences too.
    Raises UsageError.
    """
    values, where = np.asarray(index, np.float64), np.asarray(columns)
    names, own = np.unique(where, return_inverse=True)
    if values.ndim != 1 or where.shape != values.shape or len(names) != 2 or not np.isfinite(values).all():
        raise UsageError(
            f"an index {values.shape} and columns {where.shape} should be one finite number and one of two columns "
            f"for each kernel; there are {len(names)} columns"
        )
    if permutations < 1:
        raise UsageError(f"{permutations} permutations should be at least 1")
    first = own == 0
    parts = [values[first], values[~first]]
    statistic = abs(float(parts[0].mean() - parts[1].mean()))
    rng, size, drawn = np.random.default_rng(seed), len(parts[0]), np.empty(permutations)
    rows = max(1, _PART // len(values))
    for begin in range(0, permutations, rows):
        count = min(rows, permutations - begin)
        sums = rng.permuted(np.tile(values, (count, 1)), axis=1)[:, :size].sum(1)
        drawn[begin : begin + count] = np.abs(sums / size - (values.sum() - sums) / (len(values) - size))
    reached = int((drawn >= statistic - 1e-12).sum())  # sums in another order round otherwise
    return Separation(
        statistic,
        (float(parts[0].mean()), float(parts[1].mean())),
        float(drawn.mean()),
        float(np.quantile(drawn, 0.95)),
        (reached + 1) / (permutations + 1),
        len(values),
        permutations,
    )


def column_separation(network: Network, weights: Arrays, seed: int = 0) -> Separation:
    """`separation` of a network's two columns by the colour index of its first kernels.

    `weights` are the network's, by name. Raises UsageError for a network without two columns of RGB kernels.
    """
    found = first_weights(network, weights)
    if network.columns != 2 or found is None:
        raise UsageError(f"{network.name} has no two columns of kernels of RGB, so that nothing can be said of them")
    index = colour_index(found[1])
    return separation(index, np.arange(len(index)) * 2 // len(index), seed=seed)
