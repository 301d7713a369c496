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
from alexnet.baselines.l1 import l1_codes

MOST_FOR_ATOMS, ATOMS_BATCH, ATOMS_PASSES = 50_000, 256, 2  # descriptors that a dictionary is learned from, and how
ATOMS_STEPS = 20  # of a code, meanwhile
UNUSED = 1e-7  # mean square of the codes of an atom that is replaced


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
    """A dictionary of atoms of length 1 for sparse codes of (T, E): (K, E).

    Online dictionary learning (Mairal, Bach, Ponce and Sapiro 2009): codes of a batch, by FISTA, then each atom moved
    to where the means over all batches so far are best served.
    """
    rng = np.random.default_rng((seed, 0xA7))
    some = descriptors[rng.permutation(len(descriptors))[:MOST_FOR_ATOMS]]
    atoms = unit_length(some[rng.permutation(len(some))[:count]])
    codes_by_codes: Floats = np.zeros((count, count), np.float32)
    codes_by_descriptors: Floats = np.zeros((count, some.shape[1]), np.float32)
    for number in range(-(-len(some) // ATOMS_BATCH) * ATOMS_PASSES):
        first = number * ATOMS_BATCH % len(some)
        batch = some[first : first + ATOMS_BATCH]
        codes = l1_codes(batch, atoms, penalty, ATOMS_STEPS)
        fade = np.float32(1 - 1 / (number + 1))
        codes_by_codes = fade * codes_by_codes + codes.T @ codes / np.float32(len(batch))
        codes_by_descriptors = fade * codes_by_descriptors + codes.T @ batch / np.float32(len(batch))
        for i in range(count):
            if codes_by_codes[i, i] < UNUSED:
                atoms[i] = batch[rng.integers(len(batch))]
            else:
                atoms[i] += (codes_by_descriptors[i] - codes_by_codes[i] @ atoms) / codes_by_codes[i, i]
            atoms[i] /= max(float(np.linalg.norm(atoms[i])), 1e-6)
    return atoms.astype(np.float32)


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
