"""Fisher vectors: gradients of a Gaussian mixture's log-likelihood (Perronnin, Sánchez and Mensink 2010).

Shapes: `N` pictures, `T` descriptors of a picture, `D` their length, `K` Gaussians with diagonal covariances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.grid import Floats

LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians: `weights` (K,) that sum to 1, `means` and `variances` (K, D), float32."""

    weights: Floats
    means: Floats
    variances: Floats

    def posteriors(self, descriptors: Floats) -> Floats:
        """The share of each Gaussian in each descriptor: (…, D) → (…, K)."""
        precision = 1 / self.variances
        constant = np.log(self.weights) - 0.5 * (
            np.log(self.variances).sum(axis=1) + (self.means * self.means * precision).sum(axis=1)
        )
        logs = descriptors @ (self.means * precision).T
        logs -= (descriptors * descriptors) @ (np.float32(0.5) * precision).T
        logs += constant.astype(np.float32)
        logs -= logs.max(axis=-1, keepdims=True)
        np.exp(logs, out=logs)
        logs /= logs.sum(axis=-1, keepdims=True)
        return logs


def fisher_sums(shares: Floats, descriptors: Floats, groups: NDArray[np.int64], count: int) -> Floats:
    """Sums over the descriptors of each group: posteriors (N, T, K), (N, T, D), groups (T,) → (N, count, K, 1 + 2·D).

    The sums of the posteriors, of posteriors × descriptors and of posteriors × their squares.
    """
    n, _, length = descriptors.shape
    out = np.zeros((n, count, shares.shape[2], 1 + 2 * length), np.float32)
    with_squares = np.concatenate([np.ones_like(descriptors[..., :1]), descriptors, descriptors**2], axis=2)
    for group in range(count):
        members = np.flatnonzero(groups == group)
        if len(members):
            np.matmul(shares[:, members].transpose(0, 2, 1), with_squares[:, members], out=out[:, group])
    return out


def gradients(mixture: Mixture, sums: Floats, counts: NDArray[np.float32] | float) -> Floats:
    """Sums (…, K, 1 + 2·D) over `counts` (…) descriptors → gradients (…, 2·K·D), those of the means first.

    Σ γ (x − μ)/σ / (T √w) and Σ γ ((x − μ)²/σ² − 1) / (T √(2w)), γ the posteriors; zeros where there is no descriptor.
    """
    length = mixture.means.shape[1]
    zeroth, first, second = sums[..., :1], sums[..., 1 : 1 + length], sums[..., 1 + length :]
    means, variances, root = mixture.means, mixture.variances, np.sqrt(mixture.weights)[:, None]
    by_mean = (first - means * zeroth) / np.sqrt(variances) / root
    spread = second - 2 * means * first + (means * means - variances) * zeroth
    by_variance = spread / variances / (np.float32(np.sqrt(2)) * root)
    divisors = np.maximum(np.asarray(counts, np.float32), 1)[..., None, None, None]
    both = np.stack([by_mean, by_variance], axis=-3) / divisors
    return both.reshape(*both.shape[:-3], -1)


def improved(vectors: Floats, power: float = 0.5) -> Floats:
    """Vectors (…, L) with the signed power of their entries, then of length 1; zeros stay zeros."""
    powered = np.sign(vectors) * np.abs(vectors) ** np.float32(power)
    lengths = np.sqrt(np.einsum("...i,...i->...", powered, powered))[..., None]
    return powered / np.where(lengths > 0, lengths, np.float32(1))
