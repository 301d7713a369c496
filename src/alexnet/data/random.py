"""The project's own random numbers: pure functions of a key and a counter, the same on every machine (Philox4x32-10).

Nothing has a state, so what is drawn for an image depends on no other image, batch or process. Integers are exact;
normals use nothing but correctly rounded operations, as NumPy's own logarithm differs between processors.
N counters, W words each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alexnet.engine.philox import WORD, philox


@lru_cache(maxsize=256)
def _folded(key: tuple[int, ...]) -> tuple[int, int]:
    first, second = len(key) & WORD, 0
    for place, number in enumerate(key):
        number &= 0xFFFFFFFFFFFFFFFF
        first, second, _, _ = philox((number & WORD, number >> 32, place, 0xF01D), (first, second))
    return first, second


def fold_in(*key: int) -> int:
    """Return one 63-bit integer that depends on all numbers of a key and on their order (each taken modulo 2**64)."""
    first, second = _folded(tuple(int(number) for number in key))
    return (second << 32 | first) >> 1


def random_words(key: Sequence[int], counters: NDArray[np.int64], n_words: int) -> NDArray[np.uint32]:
    """Return (N, W) random uint32 words, row by row a pure function of the key and the row's counter.

    `counters` are (N,) integers from 0, or (N, 2) whose second column lies below 2**32. More words extend the rows.
    """
    counters = np.asarray(counters)
    pairs = counters if counters.ndim == 2 else np.stack([counters, np.zeros_like(counters)], axis=1)
    assert pairs.shape == (len(counters), 2), f"counters are (N,) or (N, 2), not {counters.shape}"
    first, second = pairs.astype(np.uint64).T[:, :, None]  # (N, 1) each
    blocks = np.arange(-(-n_words // 4), dtype=np.uint64)[None]
    words = philox((first & WORD, first >> 32, second, blocks), _folded(tuple(int(number) for number in key)))
    shape = (len(counters), blocks.shape[1])
    table = np.stack([np.broadcast_to(word, shape) for word in words], axis=2).astype(np.uint32)
    return table.reshape(len(counters), 4 * blocks.shape[1])[:, :n_words]


def integers(words: NDArray[np.uint32], high: int) -> NDArray[np.int64]:
    """Return integers from 0 to `high` − 1, one per word; their chances differ by less than `high`/2**32."""
    return (words.astype(np.uint64) * np.uint64(high) >> np.uint64(32)).astype(np.int64)


def coins(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return fair coins, one per word."""
    return words >> np.uint32(31) == 1


# Coefficients of Wichura's algorithm AS 241 (1988), the highest power first: numerator and denominator.
_MIDDLE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457)
    + (13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867)
    + (5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)
_TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258)
    + (3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459)
    + (0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)


def normals(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return standard normal numbers, one per word: the inverse of the distribution at the middle of 2**32 steps."""
    share = (words.astype(np.float64) + 0.5) / 2.0**32
    middle = share - 0.5
    centre = middle * _ratio(_MIDDLE, 0.180625 - middle * middle)
    root = np.sqrt(-_logarithm(np.minimum(share, 1 - share)))
    tail = np.copysign(_ratio(_TAIL, root - 1.6), middle)
    return np.where(np.abs(middle) <= 0.425, centre, tail).astype(np.float32)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    above, below = (_polynomial(row, x) for row in coefficients)
    return above / below


def _polynomial(coefficients: Sequence[float], x: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _logarithm(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm of positive numbers by a series in (m − 1)/(m + 1), x = m · 2**e, m from 0.7 to 1.4."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    ratio = (mantissa - 1) / (mantissa + 1)
    series = _polynomial([1 / odd for odd in range(23, 0, -2)], ratio * ratio)
    return exponent * 0.6931471805599453 + 2 * ratio * series


def raw_words(n: int, *key: int) -> NDArray[np.uint64]:
    """Return n random words of NumPy's Philox4x64, whose stream NumPy keeps: (n,) uint64."""
    seed = np.random.SeedSequence([int(number) & 0xFFFFFFFFFFFFFFFF for number in key])
    return np.asarray(np.random.Philox(key=seed.generate_state(2, np.uint64)).random_raw(n), dtype=np.uint64)


def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of n images in an epoch, a permutation of 0..n−1: (n,) int64."""
    return np.argsort(raw_words(n, seed, epoch, 0x0DE4), kind="stable").astype(np.int64)
