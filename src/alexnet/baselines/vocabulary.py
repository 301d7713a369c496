"""Vocabularies: projections, words, atoms and mixtures learned from descriptors of training images.

Shapes: `T` descriptors, `D` their length, `E` that of projected ones, `K` words. What is learned depends on the seed
and not on the number of threads.
"""

from __future__ import annotations

import warnings

import numpy as np

from alexnet.baselines.encoders import Projection
from alexnet.baselines.fisher import LEAST_VARIANCE, Mixture
from alexnet.baselines.grid import Floats, unit_length

MOST_FOR_ATOMS = 50_000  # descriptors that a dictionary is learned from


def learn_projection(descriptors: Floats, components: int, whiten: float = 0.0) -> Projection:
    """The first principal components of (T, D), each divided by its deviation to the power `whiten`."""
    mean = descriptors.mean(axis=0, dtype=np.float64)
    centred = descriptors - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(descriptors)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:components]
    scale = np.sqrt(np.maximum(values[order], 1e-9)) ** whiten
    return Projection(mean.astype(np.float32), (vectors[:, order] / scale).astype(np.float32))


def learn_words(descriptors: Floats, count: int, seed: int) -> Floats:
    """Centres of k-means over (T, E): (K, E)."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, batch_size=4096, max_iter=10, n_init=1, random_state=seed, max_no_improvement=None)
    return means.fit(descriptors).cluster_centers_.astype(np.float32)


def learn_atoms(descriptors: Floats, count: int, penalty: float, seed: int) -> Floats:
    """A dictionary of unit-length atoms for sparse codes of (T, E): (K, E)."""
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.exceptions import ConvergenceWarning

    learner = MiniBatchDictionaryLearning(
        count, alpha=penalty, batch_size=512, max_iter=1, fit_algorithm="cd", random_state=seed, shuffle=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # codes that are nearly right move the atoms as well
        learner.fit(descriptors[:MOST_FOR_ATOMS].astype(np.float64))
    return unit_length(learner.components_.astype(np.float32))


def learn_mixture(descriptors: Floats, count: int, seed: int, iterations: int = 30) -> Mixture:
    """A mixture of Gaussians fitted to (T, E) by expectation maximization, from k-means on."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    learner = GaussianMixture(
        count, covariance_type="diag", max_iter=iterations, reg_covar=LEAST_VARIANCE, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that nearly fits serves as well
        learner.fit(descriptors)
    arrays = (learner.weights_, learner.means_, learner.covariances_)
    weights, means, variances = (np.asarray(array, np.float32) for array in arrays)
    return Mixture(np.maximum(weights, np.float32(1e-6)), means, variances)
