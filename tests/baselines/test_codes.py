"""LLC and L1 codes against one descriptor at a time, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.grid import unit_length
from alexnet.baselines.l1 import l1_codes
from alexnet.baselines.llc import llc, solve_ones


def draws(count: int, words: int, length: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, (rows, length)).astype(np.float32) for rows in (count, words))  # type: ignore[return-value]


def test_llc_is_the_closed_form_for_each_descriptor() -> None:
    descriptors, words = draws(40, 30)
    nearest, weights = llc(descriptors, words, 5, 1e-4)
    for x, places, found in zip(descriptors, nearest, weights, strict=True):
        distances = ((words - x) ** 2).sum(axis=1)
        assert set(places) == set(np.argsort(distances)[:5])
        shifted = (words[places] - x).astype(np.float64)
        covariance = shifted @ shifted.T
        solution = np.linalg.solve(covariance + 1e-4 * np.trace(covariance) * np.eye(5), np.ones(5))
        np.testing.assert_allclose(found, solution / solution.sum(), atol=2e-3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)


def test_a_descriptor_that_is_a_word_has_that_word_alone() -> None:
    _, words = draws(1, 30)
    nearest, weights = llc(words[[7]], words, 5)
    assert nearest[0][weights[0].argmax()] == 7 and weights.max() == pytest.approx(1, abs=1e-2)
    same = np.repeat(words[[7]], 5, axis=0)  # all neighbours at the descriptor itself
    assert np.isfinite(llc(words[[7]], same, 5)[1]).all()


def test_small_systems_are_solved_as_by_lapack() -> None:
    rng = np.random.default_rng(1)
    factors = rng.normal(0, 1, (20, 6, 6))
    matrices = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(6)
    wanted = np.linalg.solve(matrices, np.ones((20, 6, 1)))[..., 0]
    np.testing.assert_allclose(solve_ones(matrices), wanted, rtol=1e-4, atol=1e-4)


def test_l1_codes_are_those_of_coordinate_descent() -> None:
    from sklearn.decomposition import sparse_encode

    descriptors, atoms = (unit_length(rows) for rows in draws(50, 24))
    theirs = sparse_encode(
        descriptors.astype(np.float64), atoms.astype(np.float64), algorithm="lasso_cd", alpha=0.15, max_iter=5000
    )
    mine = l1_codes(descriptors, atoms, 0.15, 800)
    np.testing.assert_allclose(mine, theirs, atol=2e-3)
    assert 0.3 < (mine == 0).mean() < 0.95  # sparse, and not empty


def test_every_step_of_l1_brings_the_objective_down_to_its_minimum() -> None:
    descriptors, atoms = (unit_length(rows) for rows in draws(50, 24))

    def objective(codes: np.ndarray) -> float:
        return float((0.5 * ((descriptors - codes @ atoms) ** 2).sum(axis=1) + 0.15 * np.abs(codes).sum(axis=1)).mean())

    few, some, many = (objective(l1_codes(descriptors, atoms, 0.15, count)) for count in (2, 20, 800))
    assert objective(np.zeros((50, 24))) > few > some >= many
    assert some - many < 0.01 * many


def test_codes_are_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors, words = draws(40, 30)
    whole = (*llc(descriptors, words), l1_codes(descriptors, unit_length(words), 0.15, 10))
    monkeypatch.setattr("alexnet.baselines.llc.TOGETHER", 7)
    monkeypatch.setattr("alexnet.baselines.l1.TOGETHER", 7)
    blocks = (*llc(descriptors, words), l1_codes(descriptors, unit_length(words), 0.15, 10))
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
