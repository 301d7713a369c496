"""Intervals hold what they promise on synthetic data, and verdicts follow from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alexnet.errors import UsageError
from alexnet.reproduce.intervals import Interval, over_images, paired, student_quantile, verdict, welch


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4, 7.3, 30, 1000, 49_999, 1e6])
@pytest.mark.parametrize("probability", [0.5, 0.6, 0.9, 0.975, 0.9999])
def test_the_quantile_is_students(probability: float, freedom: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_a_paired_interval_is_that_of_the_paired_t_test(n: int) -> None:
    rng = np.random.default_rng(n)
    first, second = rng.normal(3, 1, n), rng.normal(2, 2, n)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    interval = paired(first - second)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-8)
    assert interval.mean == pytest.approx((first - second).mean()) and interval.n == n and interval.paired
    assert interval.error == pytest.approx(stats.sem(first - second))
    assert over_images(first - second) == interval


@pytest.mark.parametrize("sizes", [(2, 2), (3, 7), (5, 5), (30, 4)])
def test_an_unpaired_interval_is_that_of_welchs_t_test(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sizes[0])
    first, second = rng.normal(3, 1, sizes[0]), rng.normal(2, 5, sizes[1])
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    interval = welch(first, second)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-8)
    assert interval.n == min(sizes) and not interval.paired


def coverage(interval_of, truth: float, rounds: int = 1500) -> float:
    """How often an interval holds the truth."""
    rng = np.random.default_rng(0)
    intervals = [interval_of(rng) for _ in range(rounds)]
    return sum(interval.low <= truth <= interval.high for interval in intervals) / rounds


@pytest.mark.parametrize("n", [3, 5])
def test_95_of_100_intervals_hold_the_true_difference(n: int) -> None:
    within = 3 * math.sqrt(0.95 * 0.05 / 1500)
    assert abs(coverage(lambda rng: paired(rng.normal(0.4, 1, n)), 0.4) - 0.95) < within
    pair = (lambda rng: welch(rng.normal(1.4, 1, n + 2), rng.normal(1, 1.5, n + 2)), 0.4)
    assert abs(coverage(*pair) - 0.95) < within + 0.01  # Welch's is an approximation


def test_pairing_shows_what_noise_that_seeds_share_hides() -> None:
    rng = np.random.default_rng(0)
    shown = {"paired": 0, "unpaired": 0}
    for _ in range(200):
        shared = rng.normal(0, 2, 5)  # what a seed does to both arms
        first, second = 1 + shared + rng.normal(0, 0.3, 5), shared + rng.normal(0, 0.3, 5)
        shown["paired"] += verdict(paired(first - second)) == "confirmed"
        shown["unpaired"] += verdict(welch(first, second)) == "confirmed"
    assert shown["paired"] > 190 and shown["unpaired"] < 40


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, 1.1, 0.9], "confirmed"),
        ([-1.0, -1.1, -0.9], "refuted"),
        ([1.0, 2.0, -0.2], "same direction"),
        ([0.1, 1.0, -0.9], "no difference at this scale"),
        ([-0.1, -1.0, 0.3], "no difference at this scale"),
        ([0.5, 0.5, 0.5], "confirmed"),
        ([-0.5, -0.5], "refuted"),
        ([0.0, 0.0, 0.0], "no difference at this scale"),
    ],
)
def test_a_verdict_follows_from_the_differences(differences: list[float], expected: str) -> None:
    assert verdict(paired(differences)) == expected


@pytest.mark.parametrize(
    ("mean", "half", "error", "expected"),
    [
        (1.0, 0.999, 0.4, "confirmed"),
        (1.0, 1.0, 0.4, "same direction"),
        (0.41, 1.0, 0.4, "same direction"),
        (0.4, 1.0, 0.4, "no difference at this scale"),
        (-0.9, 1.0, 0.4, "no difference at this scale"),
        (-1.0, 0.999, 0.4, "refuted"),
    ],
)
def test_the_edges_of_a_verdict(mean: float, half: float, error: float, expected: str) -> None:
    assert verdict(Interval(mean, mean - half, mean + half, 5, True, error)) == expected


def test_equal_differences_have_an_interval_of_no_width() -> None:
    interval = paired([0.1, 0.1, 0.1])
    assert interval.low == interval.high == interval.mean == pytest.approx(0.1)
    same = welch([2.0, 2.0], [2.0, 2.0, 2.0])
    assert (same.low, same.high) == (0, 0) and verdict(same) == "no difference at this scale"


def test_one_seed_allows_no_interval() -> None:
    with pytest.raises(UsageError, match="1 paired differences allow no interval, which needs at least 2 seeds"):
        paired([0.3])
    with pytest.raises(UsageError, match="0 values of the second arm"):
        welch([1, 2], [])
    with pytest.raises(UsageError, match="at least 2 images"):
        over_images([1])
    with pytest.raises(UsageError, match="1 of 2 paired differences are not finite"):
        paired([0.3, math.nan])


def test_equal_differences_of_coarse_values_are_not_taken_for_certain() -> None:
    """Errors counted on 355 images, twice 0.28 points apart by chance: two seeds confirm nothing, five may."""
    grain = 100 / 355
    assert verdict(paired([grain, grain])) == "confirmed"  # as exact values
    assert verdict(paired([grain, grain], grain)) == "same direction"
    assert verdict(paired([grain] * 5, grain)) == "confirmed"
    noisy = [1.0, 3.0, 2.0]
    assert paired(noisy, grain) == paired(noisy)
    assert verdict(paired([0.0, 0.0], grain)) == "no difference at this scale"
