"""Fisher vectors against loops over the formula, against numerical gradients and against scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.fisher import Mixture, fisher_sums, gradients, improved


def mixture(gaussians: int = 4, length: int = 3, seed: int = 0) -> Mixture:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 1.5, gaussians)
    arrays = (weights / weights.sum(), rng.normal(0, 1, (gaussians, length)), rng.uniform(0.3, 2, (gaussians, length)))
    return Mixture(*(array.astype(np.float32) for array in arrays))


def densities(mix: Mixture, x: np.ndarray) -> np.ndarray:
    """weight × density of each Gaussian at one descriptor."""
    weights, means, variances = (a.astype(np.float64) for a in (mix.weights, mix.means, mix.variances))
    exponent = -0.5 * ((x - means) ** 2 / variances).sum(axis=1)
    return weights * np.exp(exponent) / np.sqrt(np.prod(2 * np.pi * variances, axis=1))


def by_loop(mix: Mixture, descriptors: np.ndarray) -> np.ndarray:
    """The formula, one descriptor and one Gaussian after the other."""
    count, length = mix.means.shape
    by_mean, by_variance = np.zeros((count, length)), np.zeros((count, length))
    for x in descriptors:
        shares = densities(mix, x)
        shares /= shares.sum()
        for k in range(count):
            z = (x - mix.means[k]) / np.sqrt(mix.variances[k])
            by_mean[k] += shares[k] * z / np.sqrt(mix.weights[k])
            by_variance[k] += shares[k] * (z * z - 1) / np.sqrt(2 * mix.weights[k])
    return np.concatenate([by_mean.ravel(), by_variance.ravel()]) / len(descriptors)


def vectors(mix: Mixture, descriptors: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    sums = fisher_sums(mix.posteriors(descriptors), descriptors, groups, count)
    return gradients(mix, sums, np.bincount(groups, minlength=count))


def test_posteriors_are_the_shares_of_the_densities() -> None:
    mix, x = mixture(), np.random.default_rng(1).normal(0, 2, (5, 3)).astype(np.float32)
    wanted = np.array([densities(mix, row) / densities(mix, row).sum() for row in x])
    np.testing.assert_allclose(mix.posteriors(x), wanted, atol=1e-5)


def test_the_vector_of_each_region_is_that_of_a_loop() -> None:
    mix, rng = mixture(), np.random.default_rng(2)
    descriptors = rng.normal(0, 1.5, (2, 9, 3)).astype(np.float32)
    groups = np.array([0, 2, 0, 2, 2, 0, 0, 2, 2])
    found = vectors(mix, descriptors, groups, 4)
    assert found.shape == (2, 4, 24)
    for picture in range(2):
        for group in (0, 2):
            wanted = by_loop(mix, descriptors[picture, groups == group])
            np.testing.assert_allclose(found[picture, group], wanted, atol=1e-5)
    assert not found[:, [1, 3]].any()  # regions without a patch


def test_it_is_the_gradient_of_the_log_likelihood() -> None:
    """By differences: d/dμ times σ/√w, and d/dσ times σ/√(2w)."""
    mix, x = mixture(), np.random.default_rng(3).normal(0, 1, (6, 3)).astype(np.float32)
    found = vectors(mix, x[None], np.zeros(6, np.int64), 1)[0, 0].reshape(2, 4, 3)

    def mean_log(means: np.ndarray, variances: np.ndarray) -> float:
        moved = Mixture(mix.weights, means, variances)
        return float(np.mean([np.log(densities(moved, row).sum()) for row in x.astype(np.float64)]))

    means, variances, small = mix.means.astype(np.float64), mix.variances.astype(np.float64), 1e-5
    for k in range(4):
        for d in range(3):
            nudge = np.zeros((4, 3))
            nudge[k, d] = small
            deviation = np.sqrt(variances)
            by_mean = (mean_log(means + nudge, variances) - mean_log(means - nudge, variances)) / (2 * small)
            wider, closer = (deviation + nudge) ** 2, (deviation - nudge) ** 2
            by_deviation = (mean_log(means, wider) - mean_log(means, closer)) / (2 * small)
            scale = deviation[k, d] / np.sqrt(mix.weights[k])
            assert found[0, k, d] == pytest.approx(by_mean * scale, abs=1e-4)
            assert found[1, k, d] == pytest.approx(by_deviation * scale / np.sqrt(2), abs=1e-4)


def test_it_is_scikit_images_without_the_weights_and_up_to_sign() -> None:
    feature = pytest.importorskip("skimage.feature")
    from sklearn.mixture import GaussianMixture

    x = np.random.default_rng(4).normal(0, 1, (300, 3))
    learner = GaussianMixture(4, covariance_type="diag", random_state=0).fit(x)
    arrays = (learner.weights_, learner.means_, learner.covariances_)
    mix = Mixture(*(array.astype(np.float32) for array in arrays))
    some = x[:40].astype(np.float32)
    theirs = feature.fisher_vector(some, learner)[4:].reshape(2, -1)  # the first four are of the weights
    mine = vectors(mix, some[None], np.zeros(40, np.int64), 1)[0, 0].reshape(2, -1)
    for own, other in zip(mine, theirs, strict=True):
        ratio = np.linalg.norm(own) / np.linalg.norm(other)
        assert abs(own @ other) == pytest.approx(np.linalg.norm(own) * np.linalg.norm(other), rel=1e-4)
        assert ratio == pytest.approx(np.linalg.norm(mine) / np.linalg.norm(theirs), rel=1e-3)


def test_signed_power_and_length() -> None:
    found = improved(np.array([[4, -9, 0], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(found[0], np.array([2, -3, 0]) / np.sqrt(13), rtol=1e-6)
    assert not found[1].any()
