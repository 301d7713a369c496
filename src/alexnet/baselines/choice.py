"""What is chosen on validation images: errors of scores, and the temperature that makes them probabilities.

Shapes: `N` images, `C` classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.directory import Errors
from alexnet.baselines.grid import Floats

COLDEST, HOTTEST = 1e-3, 1e2  # temperatures


def probabilities(scores: Floats, temperature: float) -> Floats:
    """The softmax of scores / temperature: (N, C)."""
    logits = scores.astype(np.float64) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def negative_log_likelihood(scores: Floats, labels: NDArray[np.int64], temperature: float) -> float:
    """The mean over images of −log p(label), in nats."""
    logits = scores.astype(np.float64) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - true))


def fit_temperature(scores: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature of the lowest negative log-likelihood, by golden section over its logarithm (Guo et al. 2017)."""
    low, high = np.log(COLDEST), np.log(HOTTEST)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(scores, labels, float(np.exp(logarithm)))

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(40):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))


def errors_of(scores: Floats, labels: NDArray[np.int64], loss: float | None = None) -> Errors:
    """Top-1 and, above 5 classes, top-5 errors in percent; a tie counts against the prediction."""
    ahead = (scores >= scores[np.arange(len(labels)), labels][:, None]).sum(axis=1) - 1
    top1, top5 = (round(100 * float(np.mean(ahead >= most)), 4) for most in (1, 5))
    return Errors(top1, top5 if scores.shape[1] > 5 else None, len(labels), None if loss is None else round(loss, 6))
