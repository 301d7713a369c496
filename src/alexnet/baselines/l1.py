"""Sparse codes by the L1 penalty: min ½‖x − z·B‖² + λ‖z‖₁ (Yang et al., CVPR 2009), by FISTA (Beck and Teboulle 2009).

Shapes: `T` descriptors, `D` their length, `K` atoms.
"""

from __future__ import annotations

import numpy as np

from alexnet.baselines.grid import Floats


def l1_codes(descriptors: Floats, atoms: Floats, penalty: float, iterations: int = 30) -> Floats:
    """The codes after a fixed number of steps: (T, D), (K, D) → (T, K)."""
    lipschitz = np.float32(np.linalg.norm(atoms.astype(np.float64), 2) ** 2)
    threshold = np.float32(penalty) / lipschitz
    codes = ahead = np.zeros((len(descriptors), len(atoms)), np.float32)
    momentum = 1.0
    for _ in range(iterations):
        step = ahead + (descriptors - ahead @ atoms) @ (atoms.T / lipschitz)
        new = step - np.clip(step, -threshold, threshold)  # the soft threshold
        following = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = new + np.float32((momentum - 1) / following) * (new - codes)
        codes, momentum = new, following
    return codes
