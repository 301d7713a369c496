"""95 % intervals of differences between two arms, and the verdict that they allow (paper §3 to §6).

Student's t for the mean of paired differences, Welch's for two arms that share nothing. Where arms share seeds, they
share initial weights, order and crops, so the noise that these bring cancels in the differences and pairing shows
smaller effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alexnet.errors import UsageError

LEVEL = 0.95
Verdict = Literal["confirmed", "same direction", "no difference at this scale", "refuted"]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, in the unit of what was given.

    `n` is the number of differences where they are paired, else of the smaller arm. `error` is the standard error of
    the mean.
    """

    mean: float
    low: float
    high: float
    n: int
    paired: bool
    error: float


def paired(differences: ArrayLike, grain: float = 0.0) -> Interval:
    """The mean of differences, one per seed, ± t(0.975, n−1)·s/√n.

    `grain` is the step in which each side is measured: an error counted on N images comes in steps of 100/N points, so
    that equal differences of two seeds do not mean that there is no noise. s is taken to be at least grain/√6, the
    deviation of the difference of two values rounded to it. Raises UsageError for fewer than two, and for values that
    are not finite.
    """
    return _paired(_finite(differences, "paired differences"), grain)


def over_images(differences: ArrayLike) -> Interval:
    """As `paired`, of one difference per image: how far the mean over other images of that kind would lie.

    It says nothing about other trainings. Raises UsageError as `paired` does.
    """
    return _paired(_finite(differences, "differences over images", "2 images"))


def welch(better: ArrayLike, worse: ArrayLike) -> Interval:
    """mean(better) − mean(worse) of two arms without seeds in common, with unequal variances (Welch–Satterthwaite).

    Raises UsageError for fewer than two values in an arm, and for values that are not finite.
    """
    first, second = _finite(better, "values of the first arm"), _finite(worse, "values of the second arm")
    parts = [_deviation(arm) ** 2 / len(arm) for arm in (first, second)]
    error, n = math.sqrt(sum(parts)), min(len(first), len(second))
    freedom = float(n - 1)
    if error > 0:
        shares = [part / sum(parts) for part in parts]
        freedom = 1 / sum(share**2 / (len(arm) - 1) for share, arm in zip(shares, (first, second), strict=True))
    return _interval(float(first.mean() - second.mean()), error, freedom, n, False)


def verdict(interval: Interval) -> Verdict:
    """What an interval of differences allows to say, where differences above 0 are on the claimed side.

    Confirmed: all of it lies there; refuted: all on the other side; same direction: it includes 0, but the mean lies
    more than a standard error on the claimed side. Differences that are all 0 show no difference.
    """
    if interval.low > 0:
        return "confirmed"
    if interval.high < 0:
        return "refuted"
    return "same direction" if interval.mean > interval.error else "no difference at this scale"


def student_quantile(probability: float, freedom: float) -> float:
    """The value below which Student's t of `freedom` degrees (any number above 0) lies with a probability from 0.5 on.

    By bisection of its distribution, within 1e-8 of the value.
    """
    if probability == 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > 1 - probability:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if _student_tail(middle, freedom) > 1 - probability else (low, middle)
    return (low + high) / 2


def _student_tail(t: float, freedom: float) -> float:
    """The probability that Student's t lies above t ≥ 0."""
    return 0.5 * _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast
        return 1 - _incomplete_beta(1 - x, b, a)
    factor = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    fraction, numerator, denominator = 1.0, 1.0, 0.0  # by Lentz's method
    for i in range(1000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        denominator = 1 / (1 + term * denominator or 1e-300)
        numerator = 1 + term / numerator or 1e-300
        fraction *= numerator * denominator
        if abs(1 - numerator * denominator) < 1e-15:
            break
    return factor * (fraction - 1)


def _paired(values: NDArray[np.float64], grain: float = 0.0) -> Interval:
    n = len(values)
    deviation = max(_deviation(values), grain / math.sqrt(6))
    return _interval(float(values.mean()), deviation / math.sqrt(n), n - 1, n, True)


def _interval(mean: float, error: float, freedom: float, n: int, is_paired: bool) -> Interval:
    half = student_quantile((1 + LEVEL) / 2, freedom) * error
    return Interval(mean, mean - half, mean + half, n, is_paired, error)


def _deviation(values: NDArray[np.float64]) -> float:
    """The standard deviation with n − 1; exactly 0 where all are equal, whatever rounding makes of their mean."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1))


def _finite(
    values: ArrayLike, what: str, needed: str = "2 seeds (--seeds; 5 or more tell more)"
) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64).reshape(-1)
    if len(array) < 2:
        raise UsageError(f"{len(array)} {what} allow no interval, which needs at least {needed}")
    if not np.isfinite(array).all():
        raise UsageError(f"{int((~np.isfinite(array)).sum())} of {len(array)} {what} are not finite numbers")
    return array
