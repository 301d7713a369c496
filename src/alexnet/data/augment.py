"""From uint8 batches to what the network sees: crop, mirror image, centring and PCA colour noise (paper §2, §4.1).

Every draw is a pure function of (seed, epoch, step). Shapes: `N` batch, `S` side of a stored image, `C` side of a crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet.config import Config
from alexnet.data.statistics import Statistics

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255 units
IMAGENET_STD = (58.395, 57.12, 57.375)


def draw_seed(seed: int, epoch: int, step: int, purpose: int) -> int:
    """A 63-bit seed that depends on all four numbers, so that no two draws of a run are tied."""
    return int(np.random.SeedSequence((seed, epoch, step, purpose)).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Draw:
    """What is drawn for one batch: crop offsets (N, 2), mirror coins (N,), colour factors (N, 3)."""

    offsets: np.ndarray
    mirrored: np.ndarray
    factors: np.ndarray


class Augmentation:
    """The draws of a training run and the arithmetic that applies them to whole batches on the device."""

    def __init__(self, config: Config, statistics: Statistics, device: torch.device) -> None:
        """`statistics` are those of the training set at side `config.data.size`."""
        self.settings, self.seed = config.augment, config.train.seed
        self.size, self.crop = config.data.size, config.network.image
        self.center = (self.size - self.crop) // 2
        self.device = device
        if config.data.center == "imagenet":
            mean = torch.tensor(IMAGENET_MEAN).expand(self.size, self.size, 3)
            self.scale: Tensor | None = 1 / torch.tensor(IMAGENET_STD, device=device)
        else:
            mean = torch.from_numpy(np.ascontiguousarray(statistics.mean_image))
            self.scale = None
        if config.data.center == "none":
            mean = torch.zeros(self.size, self.size, 3)
        # (S−C+1, S−C+1, C, C, 3): a view of every crop of the mean image
        self.means = mean.to(device).unfold(0, self.crop, 1).unfold(1, self.crop, 1).permute(0, 1, 3, 4, 2)
        deviations = np.sqrt(np.maximum(statistics.eigenvalues, 0))
        weights = deviations if self.settings.colour_scale == "sqrt" else statistics.eigenvalues
        # row j: the colour added per unit of factor j
        self.components = (statistics.eigenvectors * weights).T.astype(np.float32)

    def draw(self, epoch: int, step: int, n: int) -> Draw:
        """The draws for the `n` images of a step; `shared` consecutive images share crop and coin."""
        # One generator a purpose: the first draws are the same however many follow.
        seeds = (draw_seed(self.seed, epoch, step, purpose) for purpose in range(3))
        offset, coin, factor = map(np.random.default_rng, seeds)
        groups = -(-n // self.settings.shared)
        offsets = offset.integers(0, self.size - self.crop + 1, (groups, 2))
        coins = coin.integers(0, 2, groups).astype(bool)
        factors = factor.normal(0, 1, (n, 3)).astype(np.float32) * np.float32(self.settings.colour)
        if not self.settings.crop:
            offsets = np.full_like(offsets, self.center)
        if not self.settings.mirror:
            coins = np.zeros_like(coins)
        if self.settings.colour_until and epoch > self.settings.colour_until:
            factors = np.zeros_like(factors)
        repeat = self.settings.shared
        return Draw(offsets.repeat(repeat, 0)[:n], coins.repeat(repeat)[:n], factors)

    def offsets(self, epoch: int, step: int, n: int) -> np.ndarray:
        """Crop offsets (n, 2) of a step, for a loader that cuts the crops itself."""
        return self.draw(epoch, step, n).offsets

    def training(self, crops: Tensor, epoch: int, step: int, kept: np.ndarray | None = None) -> Tensor:
        """uint8 crops (N, C, C, 3) cut at this step's offsets → float (N, 3, C, C), centred, mirrored, coloured.

        `kept` are the places in the batch of the images that could be read, when some could not.
        """
        n = len(crops) if kept is None else int(kept.max()) + 1
        draw = self.draw(epoch, step, n)
        if kept is not None:
            draw = Draw(draw.offsets[kept], draw.mirrored[kept], draw.factors[kept])
        images = self._centre(crops, draw.offsets)
        if draw.mirrored.any():
            coins = torch.from_numpy(draw.mirrored).to(self.device)[:, None, None, None]
            images = torch.where(coins, images.flip(2), images)
        if draw.factors.any():
            noise = torch.from_numpy(draw.factors @ self.components).to(self.device)
            images = images + noise[:, None, None]
            images = images / self.settings.colour_divisor
        return self._scaled(images)

    def test(self, images: Tensor, row: int | None = None, column: int | None = None, mirror: bool = False) -> Tensor:
        """uint8 images (N, S, S, 3) → one view of each, float (N, 3, C, C); the centre unless a corner is given."""
        row = self.center if row is None else row
        column = self.center if column is None else column
        crops = images[:, row : row + self.crop, column : column + self.crop]
        offsets = np.tile(np.array([[row, column]]), (len(images), 1))
        view = self._centre(crops, offsets)
        return self._scaled(view.flip(2) if mirror else view)

    def views(self, count: int) -> list[tuple[int, int, bool]]:
        """Row, column and mirroring of the test views: 1 the centre, 5 corners and centre, 10 those mirrored too."""
        edge = self.size - self.crop
        places = [(0, 0), (0, edge), (edge, 0), (edge, edge), (self.center, self.center)]
        if count == 1:
            return [(self.center, self.center, False)]
        if count == 5:
            return [(row, column, False) for row, column in places]
        if count == 10:
            return [(row, column, mirror) for mirror in (False, True) for row, column in places]
        raise ValueError(f"--views {count} should be 1, 5 or 10")

    def _centre(self, crops: Tensor, offsets: np.ndarray) -> Tensor:
        images = crops.to(self.device, non_blocking=True).float()
        if (offsets == offsets[0]).all():
            return images - self.means[int(offsets[0, 0]), int(offsets[0, 1])]
        where = torch.from_numpy(offsets).to(self.device)
        return images - self.means[where[:, 0], where[:, 1]]

    def _scaled(self, images: Tensor) -> Tensor:
        if self.scale is not None:
            images = images * self.scale
        return images.permute(0, 3, 1, 2)  # the layout in memory stays channels-last
