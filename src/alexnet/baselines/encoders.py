"""Encoders: the descriptors of a picture to one vector, by a vocabulary that was learned from training images.

Shapes: `N` pictures, `T` patches of each, `D` the length of a descriptor, `K` words, `R` regions of the pyramid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.fisher import Mixture, fisher_sums, gradients, improved
from alexnet.baselines.grid import Floats, unit_length
from alexnet.baselines.l1 import l1_codes
from alexnet.baselines.llc import llc
from alexnet.baselines.pyramid import Level, count_regions, regions_of

Arrays = Mapping[str, Floats]


@dataclass(frozen=True)
class Projection:
    """Principal components of descriptors: (x − `mean` (D,)) @ `basis` (D, E)."""

    mean: Floats
    basis: Floats

    def __call__(self, descriptors: Floats) -> Floats:
        """(…, D) → (…, E)."""
        return (descriptors - self.mean) @ self.basis


class Encoder(ABC):
    """Vectors of length 1 from descriptors. `levels` are those of its pyramid."""

    levels: tuple[Level, ...]

    @property
    @abstractmethod
    def length(self) -> int:
        """The length of a vector."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """The vocabulary by name, as it is kept in a file."""

    @abstractmethod
    def encode(self, descriptors: Floats, places: NDArray[np.float64]) -> Floats:
        """(N, T, D) of patches at `places` (T, 2) → (N, length)."""


@dataclass(frozen=True)
class FisherEncoder(Encoder):
    """Fisher vectors of projected descriptors, each region's to the signed power ½ and of length 1."""

    projection: Projection
    mixture: Mixture
    levels: tuple[Level, ...]

    @property
    def length(self) -> int:
        """2 · K · E · R."""
        return 2 * self.mixture.means.size * count_regions(self.levels)

    def arrays(self) -> Arrays:
        """As `Encoder.arrays`."""
        mixture, projection = self.mixture, self.projection
        return {
            "projection.mean": projection.mean,
            "projection.basis": projection.basis,
            "mixture.weights": mixture.weights,
            "mixture.means": mixture.means,
            "mixture.variances": mixture.variances,
        }

    def encode(self, descriptors: Floats, places: NDArray[np.float64]) -> Floats:
        """As `Encoder.encode`."""
        projected = self.projection(descriptors)
        shares = self.mixture.posteriors(projected)
        vectors = []
        for regions, count in regions_of(places, self.levels):
            sums = fisher_sums(shares, projected, regions, count)
            counts = np.bincount(regions, minlength=count).astype(np.float32)
            region = improved(gradients(self.mixture, sums, counts))
            vectors.append(region.reshape(len(descriptors), -1) / np.float32(np.sqrt(count)))
        return unit_length(np.concatenate(vectors, axis=1))


@dataclass(frozen=True)
class LlcEncoder(Encoder):
    """Locality-constrained codes of projected descriptors, the largest of each word in each region."""

    projection: Projection
    words: Floats
    levels: tuple[Level, ...]
    neighbours: int

    @property
    def length(self) -> int:
        """K · R."""
        return len(self.words) * count_regions(self.levels)

    def arrays(self) -> Arrays:
        """As `Encoder.arrays`."""
        return {
            "projection.mean": self.projection.mean,
            "projection.basis": self.projection.basis,
            "words": self.words,
        }

    def encode(self, descriptors: Floats, places: NDArray[np.float64]) -> Floats:
        """As `Encoder.encode`."""
        n, t, _ = descriptors.shape
        flat = self.projection(descriptors).reshape(n * t, -1)
        nearest, weights = llc(flat, self.words, self.neighbours)
        picture = np.repeat(np.arange(n), t)
        pooled = []
        for regions, count in regions_of(places, self.levels):
            most = np.zeros((n, count, len(self.words)), np.float32)
            region = np.tile(regions, n)
            np.maximum.at(most, (picture[:, None], region[:, None], nearest), weights)
            pooled.append(most.reshape(n, -1))
        return unit_length(np.concatenate(pooled, axis=1))


@dataclass(frozen=True)
class L1Encoder(Encoder):
    """Sparse codes of projected descriptors, the largest of each atom and sign in each region."""

    projection: Projection
    atoms: Floats
    levels: tuple[Level, ...]
    penalty: float
    iterations: int

    @property
    def length(self) -> int:
        """2 · K · R."""
        return 2 * len(self.atoms) * count_regions(self.levels)

    def arrays(self) -> Arrays:
        """As `Encoder.arrays`."""
        return {
            "projection.mean": self.projection.mean,
            "projection.basis": self.projection.basis,
            "atoms": self.atoms,
        }

    def encode(self, descriptors: Floats, places: NDArray[np.float64]) -> Floats:
        """As `Encoder.encode`."""
        n, t, _ = descriptors.shape
        flat = unit_length(self.projection(descriptors)).reshape(n * t, -1)
        codes = l1_codes(flat, self.atoms, self.penalty, self.iterations).reshape(n, t, -1)
        pooled = []
        for regions, count in regions_of(places, self.levels):
            for region in range(count):
                some = codes[:, regions == region]
                if some.shape[1] == 0:
                    pooled.append(np.zeros((n, 2 * codes.shape[2]), np.float32))
                    continue
                pooled += [np.maximum(some.max(axis=1), 0), np.maximum(-some.min(axis=1), 0)]
        return unit_length(np.concatenate(pooled, axis=1))
