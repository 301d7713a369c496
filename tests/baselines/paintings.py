"""Pictures by formula."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def paintings(count: int, side: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Waves, a disc and some noise, of other colours and directions each: (count, side, side, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    pictures = []
    for _ in range(count):
        angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 6)
        wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))
        disc = (x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2 < 0.06
        colours = rng.uniform(40, 200, (2, 3))
        picture = colours[0] + 40 * wave[..., None] + disc[..., None] * (colours[1] - colours[0])
        pictures.append(picture + rng.normal(0, 4, picture.shape))
    return np.clip(pictures, 0, 255).astype(np.uint8)
