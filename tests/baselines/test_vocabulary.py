"""What vocabularies are learned: projections by the covariance, words, atoms and mixtures of data made for them."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.l1 import l1_codes
from alexnet.baselines.vocabulary import learn_atoms, learn_mixture, learn_projection, learn_words


def clusters(count: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around four centres far apart: (count, 3), (4, 3)."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0], [-9, -9, -9]], np.float32)
    return (centres[rng.integers(0, 4, count)] + rng.normal(0, 0.5, (count, 3))).astype(np.float32), centres


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_components_are_uncorrelated_and_have_the_variance_that_whitening_leaves(whiten: float) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(0, 1, (4000, 5)) @ rng.normal(0, 1, (5, 5)) + 3).astype(np.float32)
    projected = learn_projection(x, 3, whiten)(x)
    covariance = np.cov(projected.T.astype(np.float64), bias=True)
    largest = np.sort(np.linalg.eigvalsh(np.cov(x.T.astype(np.float64), bias=True)))[::-1][:3]
    np.testing.assert_allclose(np.diag(covariance), largest ** (1 - whiten), rtol=1e-3)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-3)


def test_words_are_the_centres_of_clusters() -> None:
    points, centres = clusters()
    words = learn_words(points, 4, seed=0)
    nearest = np.linalg.norm(words[:, None] - centres, axis=2)
    assert sorted(nearest.argmin(axis=1)) == [0, 1, 2, 3] and nearest.min(axis=1).max() < 0.3


def test_a_mixture_finds_weights_means_and_variances() -> None:
    points, centres = clusters()
    mixture = learn_mixture(points, 4, seed=0)
    order = np.linalg.norm(mixture.means[:, None] - centres, axis=2).argmin(axis=1)
    assert sorted(order) == [0, 1, 2, 3]
    np.testing.assert_allclose(mixture.means, centres[order], atol=0.15)
    np.testing.assert_allclose(mixture.variances, 0.25, atol=0.06)
    np.testing.assert_allclose(mixture.weights, 0.25, atol=0.05)
    assert mixture.weights.dtype == np.float32


@pytest.mark.filterwarnings("ignore:Objective did not converge")
def test_atoms_have_the_length_1_and_code_better_than_random_ones() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(0, 1, (12, 8))
    codes = rng.normal(0, 1, (3000, 12)) * (rng.random((3000, 12)) < 0.15)
    x = codes @ true
    x = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3)).astype(np.float32)
    atoms = learn_atoms(x, 12, 0.1, seed=0)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, atol=1e-5)
    drawn = rng.normal(0, 1, (12, 8)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)

    def objective(dictionary: np.ndarray) -> float:
        z = l1_codes(x, dictionary, 0.1, 100)
        return float((0.5 * ((x - z @ dictionary) ** 2).sum(axis=1) + 0.1 * np.abs(z).sum(axis=1)).mean())

    from sklearn.decomposition import MiniBatchDictionaryLearning

    learner = MiniBatchDictionaryLearning(12, alpha=0.1, max_iter=2, batch_size=256, fit_algorithm="cd", random_state=0)
    theirs = learner.fit(x.astype(np.float64)).components_.astype(np.float32)
    assert objective(atoms) < 1.02 * objective(theirs)
    assert objective(atoms) < 0.9 * objective(drawn)


@pytest.mark.parametrize("learn", [learn_words, learn_mixture])
def test_the_seed_decides(learn) -> None:
    points = np.random.default_rng(3).normal(0, 1, (500, 3)).astype(np.float32)
    same = [learn(points, 6, seed) for seed in (0, 0, 1)]
    arrays = [one if isinstance(one, np.ndarray) else one.means for one in same]
    assert (arrays[0] == arrays[1]).all() and (arrays[0] != arrays[2]).any()
