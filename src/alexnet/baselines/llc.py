"""Locality-constrained linear codes: a descriptor as a sum of its nearest words (Wang et al., CVPR 2010).

Shapes: `T` descriptors, `D` their length, `K` words, `k` neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.grid import Floats

TOGETHER = 1024  # descriptors at once: what is computed of them stays in a core's cache


def llc(
    descriptors: Floats, words: Floats, neighbours: int = 5, regularizer: float = 1e-4
) -> tuple[NDArray[np.int64], Floats]:
    """The nearest words of each descriptor and their weights, which sum to 1: (T, D), (K, D) → (T, k), (T, k).

    The closed form of the paper's approximation: the local covariance plus `regularizer` × its trace × identity, solved
    against ones, divided by the sum.
    """
    parts = [
        _llc(descriptors[first : first + TOGETHER], words, neighbours, regularizer)
        for first in range(0, len(descriptors), TOGETHER)
    ]
    nearest, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return nearest, weights


def _llc(descriptors: Floats, words: Floats, neighbours: int, regularizer: float) -> tuple[NDArray[np.int64], Floats]:
    distances = np.float32(0.5) * np.einsum("kd,kd->k", words, words) - descriptors @ words.T
    nearest, each = np.empty((len(descriptors), neighbours), np.int64), np.arange(len(descriptors))
    for column in nearest.T:  # for a few of many this is several times faster than a partition
        column[:] = distances.argmin(axis=1)
        distances[each, column] = np.inf
    shifted = words[nearest] - descriptors[:, None, :]  # (T, k, D)
    covariance = shifted @ shifted.transpose(0, 2, 1)  # (T, k, k)
    diagonal = np.arange(neighbours)
    trace = covariance[:, diagonal, diagonal].sum(axis=1)
    covariance[:, diagonal, diagonal] += np.float32(regularizer) * np.maximum(trace, np.float32(1e-12))[:, None]
    weights = solve_ones(covariance)
    return nearest, weights / weights.sum(axis=1, keepdims=True)


def solve_ones(matrices: Floats) -> Floats:
    """x of A x = 1 for many small symmetric positive matrices: (T, k, k) → (T, k), by elimination over all at once."""
    size = matrices.shape[1]
    a = matrices.astype(np.float64)
    x = np.ones((len(a), size))
    for i in range(size):
        factor = a[:, i + 1 :, i] / a[:, i, i, None]
        a[:, i + 1 :] -= factor[:, :, None] * a[:, i, None]
        x[:, i + 1 :] -= factor * x[:, i, None]
    for i in reversed(range(size)):
        x[:, i] = (x[:, i] - np.einsum("tj,tj->t", a[:, i, i + 1 :], x[:, i + 1 :])) / a[:, i, i]
    return x.astype(np.float32)
