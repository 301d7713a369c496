"""Sparse codes by the L1 penalty: min ½‖x − z·B‖² + λ‖z‖₁ (Yang et al., CVPR 2009), by FISTA (Beck and Teboulle 2009).

Shapes: `T` descriptors, `D` their length, `K` atoms.
"""

from __future__ import annotations

import numpy as np

from alexnet.baselines.grid import Floats

TOGETHER = 1024  # descriptors at once: what is computed of them stays in a core's cache


def l1_codes(descriptors: Floats, atoms: Floats, penalty: float, iterations: int = 30) -> Floats:
    """The codes after a fixed number of steps: (T, D), (K, D) → (T, K)."""
    parts = [
        _l1_codes(descriptors[first : first + TOGETHER], atoms, penalty, iterations)
        for first in range(0, len(descriptors), TOGETHER)
    ]
    return np.concatenate(parts)


def _l1_codes(descriptors: Floats, atoms: Floats, penalty: float, iterations: int) -> Floats:
    lipschitz = np.float32(np.linalg.norm(atoms.astype(np.float64), 2) ** 2)
    threshold = np.float32(penalty) / lipschitz
    codes = ahead = np.zeros((len(descriptors), len(atoms)), np.float32)
    momentum, scaled = 1.0, atoms.T / lipschitz
    for _ in range(iterations):
        step = (descriptors - ahead @ atoms) @ scaled
        step += ahead
        new = step - np.clip(step, -threshold, threshold)  # the soft threshold
        following = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = (new - codes) * np.float32((momentum - 1) / following)
        ahead += new
        codes, momentum = new, following
    return codes
