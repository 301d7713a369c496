"""Errors, and the temperature of probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.choice import errors_of, fit_temperature, negative_log_likelihood, probabilities


def test_errors_count_ties_against_the_prediction() -> None:
    scores = np.array([[3, 1, 2, 0, 0, -1], [1, 1, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5], [0, 9, 8, 7, 6, 5]], np.float32)
    found = errors_of(scores, np.array([0, 0, 0, 1]), 0.5)
    assert (found.top1_error, found.top5_error, found.count, found.loss) == (50.0, 25.0, 4, 0.5)
    assert errors_of(scores[:, :5], np.array([0, 0, 1, 1])).top5_error is None


def test_the_temperature_is_the_best_of_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    scores = rng.normal(0, 1, (400, 5)).astype(np.float32)
    scores[np.arange(400), labels] += 1.0
    scores *= np.float32(0.3)
    found = fit_temperature(scores, labels)
    grid = np.geomspace(0.05, 5, 2000)
    losses = [negative_log_likelihood(scores, labels, temperature) for temperature in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)


def test_probabilities_are_a_softmax_that_cannot_overflow() -> None:
    found = probabilities(np.array([[1, 2], [1e6, -1e6]], np.float32), 0.5)
    np.testing.assert_allclose(found, [[1 / (1 + np.e**2), 1 / (1 + np.e**-2)], [1, 0]], rtol=1e-5)
    loss = negative_log_likelihood(np.array([[1, 2]], np.float32), np.array([1]), 0.5)
    assert loss == pytest.approx(-np.log(found[0, 1]), rel=1e-5)
