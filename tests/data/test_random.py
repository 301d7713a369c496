"""The project's own random numbers: published answers, golden values, and what a distribution should look like."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from alexnet.data.random import _logarithm, coins, fold_in, integers, normals, permutation, random_words

GOLDEN_WORDS = [
    [2174877232, 1922663643, 2148633514, 3436471332, 4136888324, 3498864879],
    [1403537614, 1159519759, 1012587822, 1228782627, 1892671517, 2026199663],
    [3634442188, 2386439102, 1767362245, 3069794725, 1353146629, 4143913844],
]
GOLDEN_FOLD = 8546738993178461062
GOLDEN_INTEGERS = [16, 14, 16, 26, 31, 26]
GOLDEN_COINS = [True, False, True, True, True, True]
GOLDEN_NORMALS = [1015216517, 3188113166, 976219072, 1062703004, 1071972013, 1063593900]
ALL = 0xFFFFFFFF


def test_words_are_the_same_on_every_machine() -> None:
    words = random_words((2012, 1), np.array([0, 1, 2**40]), 6)
    assert words.dtype == np.uint32 and words.tolist() == GOLDEN_WORDS
    assert fold_in(2012, 9, 30) == GOLDEN_FOLD
    assert integers(words[0], 33).tolist() == GOLDEN_INTEGERS
    assert coins(words[0]).tolist() == GOLDEN_COINS
    assert normals(words[0]).view(np.uint32).tolist() == GOLDEN_NORMALS


@given(
    st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=4),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=20),
    st.integers(1, 13),
)
@settings(max_examples=40, deadline=None)
def test_words_depend_on_nothing_but_key_and_counter(key: list[int], counters: list[int], n_words: int) -> None:
    words = random_words(key, np.array(counters), n_words)
    assert words.shape == (len(counters), n_words)
    for row, counter in zip(words, counters, strict=True):
        np.testing.assert_array_equal(row, random_words(key, np.array([counter]), 13)[0, :n_words])
        np.testing.assert_array_equal(row, random_words(key, np.array([[counter, 0]]), n_words)[0])


def test_keys_and_counters_are_told_apart() -> None:
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**32,), (2**63,), (0, 0, 0)]
    assert len({random_words(key, np.array([0]), 4).tobytes() for key in keys}) == len(keys)
    assert len({fold_in(*key) for key in keys}) == len(keys)
    pairs = np.array([[0, 0], [0, 1], [1, 0], [2**32, 0], [1, 1]])
    assert len({row.tobytes() for row in random_words((5,), pairs, 4)}) == len(pairs)


def test_a_folded_key_has_63_bits() -> None:
    keys = [fold_in(seed, 3) for seed in range(2000)]
    assert min(keys) >= 0 and max(keys) < 2**63
    ones = sum(np.array([key >> bit & 1 for bit in range(63)]) for key in keys)
    assert abs(ones - 1000).max() < 6 * math.sqrt(2000) / 2


def test_words_are_uniform_and_uncorrelated() -> None:
    words = random_words((7,), np.arange(50_000), 4) / 2**32
    np.testing.assert_allclose(words.mean(0), 0.5, atol=6 / math.sqrt(12 * 50_000))
    assert abs(np.corrcoef(words.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(words[:-1, 0], words[1:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("high", [1, 2, 33, 1000, 2**31])
def test_integers_cover_their_range(high: int) -> None:
    edges = integers(np.array([0, ALL], np.uint32), high)
    assert edges.dtype == np.int64 and edges.tolist() == [0, high - 1]
    values = integers(random_words((3,), np.arange(20_000), 1)[:, 0], high)
    assert abs(values.mean() / high - 0.5 * (1 - 1 / high)) < 0.02


def test_normals_are_the_inverse_of_the_normal_distribution() -> None:
    edges = [0, 1, 2, 2**31 - 1, 2**31, ALL - 1, ALL, int(0.075 * 2**32), int(0.925 * 2**32), int(0.0750001 * 2**32)]
    words = np.concatenate([np.array(edges, np.uint32), random_words((1,), np.arange(20_000), 1)[:, 0]])
    shares = (words.astype(np.float64) + 0.5) / 2**32
    np.testing.assert_allclose(normals(words), ndtri(shares), rtol=1e-6, atol=1e-9)
    plain = [NormalDist().inv_cdf(share) for share in shares[:200]]
    np.testing.assert_allclose(normals(words[:200]), plain, rtol=1e-6, atol=1e-9)


def test_the_logarithm_is_one() -> None:
    x = np.concatenate([np.geomspace(2.0**-33, 1, 5000), [0.5, 0.7071067811865476, 2.0**-33]])
    np.testing.assert_allclose(_logarithm(x), np.log(x), rtol=1e-14, atol=1e-15)


def test_an_order_is_the_same_on_every_machine() -> None:
    assert permutation(10, 2012, 3).tolist() == [0, 8, 2, 1, 4, 3, 6, 5, 9, 7]
