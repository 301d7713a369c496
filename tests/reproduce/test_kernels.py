"""The colour of kernels whose colour is known, and columns that are separate or not by construction."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from alexnet import presets
from alexnet.errors import UsageError
from alexnet.model.zoo import create_model
from alexnet.report.kernels import first_kernels
from alexnet.reproduce.kernels import colour_index, column_separation, separation

RNG = np.random.default_rng(0)
GREY = np.repeat(RNG.normal(size=(8, 1, 5, 5)), 3, 1).astype(np.float32)  # the same in red, green and blue
OPPONENT = np.concatenate([GREY[:, :1], -GREY[:, :1], 0 * GREY[:, :1]], 1)  # red against green


def test_a_grey_kernel_has_no_colour_and_an_opponent_one_nothing_else() -> None:
    np.testing.assert_allclose(colour_index(GREY), 0, atol=1e-6)
    np.testing.assert_allclose(colour_index(OPPONENT), 1, atol=1e-6)
    np.testing.assert_allclose(colour_index(3 * GREY + 3 * OPPONENT), 2 / 5, atol=1e-6)  # energies 3 and 2
    assert colour_index(np.zeros((2, 3, 4, 4))).tolist() == [0, 0]


def test_independent_weights_are_two_thirds_colour_as_two_of_three_directions_are() -> None:
    assert colour_index(RNG.normal(size=(500, 3, 5, 5))).mean() == pytest.approx(2 / 3, abs=0.01)


def test_a_kernels_index_is_what_is_left_without_the_mean_over_rgb() -> None:
    kernels = RNG.normal(size=(6, 3, 4, 4)).astype(np.float32)
    for kernel, index in zip(kernels, colour_index(kernels), strict=True):
        left = kernel - kernel.mean(0)
        assert index == pytest.approx((left**2).sum() / (kernel**2).sum(), rel=1e-5)


def plain(index: np.ndarray, size: int) -> list[float]:
    """The statistic of every way to deal kernels out."""
    ways = []
    for chosen in combinations(range(len(index)), size):
        others = [i for i in range(len(index)) if i not in chosen]
        ways.append(abs(index[list(chosen)].mean() - index[others].mean()))
    return ways


@pytest.mark.parametrize("size", [3, 4, 5])
def test_chance_is_that_of_every_way_to_deal_kernels_out(size: int) -> None:
    index = np.random.default_rng(size).random(9)
    columns = np.arange(9) >= size
    measured = separation(index, columns, 20_000)
    ways = plain(index, size)
    assert measured.statistic == pytest.approx(abs(index[:size].mean() - index[size:].mean()))
    assert measured.means == pytest.approx((index[:size].mean(), index[size:].mean()))
    assert measured.chance == pytest.approx(np.mean(ways), rel=0.02)
    assert measured.chance_95 == pytest.approx(np.quantile(ways, 0.95), rel=0.07)
    assert measured.p == pytest.approx(np.mean(np.array(ways) >= measured.statistic - 1e-12), abs=0.02)


def test_separate_columns_are_seen_in_either_order() -> None:
    index = np.r_[RNG.uniform(0, 0.3, 48), RNG.uniform(0.4, 1, 48)]
    columns = np.repeat([0, 1], 48)
    for where in (columns, 1 - columns):
        measured = separation(index, where, 2000)
        assert measured.p == 1 / 2001 and measured.statistic > 4 * measured.chance_95
        assert (measured.kernels, measured.permutations) == (96, 2000)
    assert separation(index, columns).means[1] > 0.6


def test_p_is_evenly_spread_where_columns_do_not_differ() -> None:
    rng = np.random.default_rng(1)
    values = [separation(rng.random(32), np.repeat([0, 1], 16), 200, seed).p for seed in range(300)]
    for share in (0.05, 0.25, 0.5):
        assert abs(np.mean(np.array(values) <= share) - share) < 3 * np.sqrt(share * (1 - share) / 300)


def test_equal_kernels_are_not_separate() -> None:
    measured = separation(np.full(10, 0.3), np.repeat([0, 1], 5), 100)
    assert measured.statistic == pytest.approx(0) and measured.p == 1


def test_the_same_seed_gives_the_same_and_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    index, columns = RNG.random(20), np.repeat([0, 1], 10)
    whole = separation(index, columns, 500)
    assert separation(index, columns, 500) == whole != separation(index, columns, 500, seed=1)
    monkeypatch.setattr("alexnet.reproduce.kernels._PART", 20 * 7)
    assert separation(index, columns, 500) == whole


def test_a_networks_columns_are_the_halves_of_its_kernels() -> None:
    network = presets.preset("digits").network
    weights = {name: value.numpy() for name, value in create_model("digits").state_dict().items()}
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(16, 1, 5, 5)), 3, 1)
    weights["conv1.weight"] = np.concatenate([grey, rng.normal(size=(16, 3, 5, 5))]).astype(np.float32)
    measured = column_separation(network, weights)
    assert measured.means[0] == pytest.approx(0, abs=1e-6) and measured.means[1] == pytest.approx(2 / 3, abs=0.1)
    assert measured.p < 1e-3
    shown = first_kernels(network, weights, grey=False)
    assert shown is not None and shown.colour == pytest.approx((0, 66.7), abs=5)


def test_what_has_no_two_columns_is_refused() -> None:
    cifar = presets.preset("cifar-26").network
    weights = {name: value.numpy() for name, value in create_model("cifar-26").state_dict().items()}
    with pytest.raises(UsageError, match="no two columns"):
        column_separation(cifar, weights)
    with pytest.raises(UsageError, match="there are 3 columns"):
        separation([0.1, 0.2, 0.3], [0, 1, 2])
    with pytest.raises(UsageError, match="one finite number"):
        separation([0.1, np.nan], [0, 1])
    with pytest.raises(UsageError, match=r"\(K, 3, S, S\)"):
        colour_index(np.zeros((2, 1, 5, 5)))
    with pytest.raises(UsageError, match="at least 1"):
        separation([0.1, 0.2], [0, 1], 0)
