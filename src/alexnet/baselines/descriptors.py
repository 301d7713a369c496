"""The descriptors there are, by name, and those of all patches of a picture.

Shapes: `N` pictures of side `S`, `T` patches of a picture, of all sizes, `D` the length of a descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines.colour import colour
from alexnet.baselines.grid import Floats, Pixels, centres
from alexnet.baselines.hog import hog
from alexnet.baselines.lbp import lbp
from alexnet.baselines.sift import sift
from alexnet.engine.resize import resize

Describe = Callable[[Pixels, int, int], Floats]  # pictures (N, S, S, 3), patch and step → (N, P, P, D)
DESCRIBE: Mapping[str, Describe] = {"sift": sift, "hog": hog, "lbp": lbp, "colour": colour}


@dataclass(frozen=True)
class Grid:
    """Where the patches of a picture lie: squares of at least `detail` pixels, patches of these sizes every `step`."""

    detail: int
    patches: tuple[int, ...]
    step: int

    def side(self, size: int) -> int:
        """The side in which squares of `size` pixels are described: smaller ones are enlarged."""
        return max(size, self.detail)

    def places(self, size: int) -> NDArray[np.float64]:
        """The centre of each patch, row and column from 0 to 1: (T, 2)."""
        found = []
        for patch in self.patches:
            line = centres(self.side(size), patch, self.step)
            found.append(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2))
        return np.concatenate(found)

    def describe(self, name: str, images: Pixels) -> Floats:
        """The descriptors of all patches: (N, S, S, 3) → (N, T, D)."""
        side = self.side(images.shape[1])
        if side != images.shape[1]:
            images = np.stack([resize(image, side) for image in images])
        parts: Sequence[Floats] = [DESCRIBE[name](images, patch, self.step) for patch in self.patches]
        return np.concatenate([part.reshape(len(images), -1, part.shape[-1]) for part in parts], axis=1)
