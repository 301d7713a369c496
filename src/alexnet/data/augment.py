"""From uint8 batches to what the network sees: crop, mirror image, centring and PCA colour noise (paper §2, §4.1).

Every draw is a pure function of (seed, epoch, image). N images of a batch, S the side of a stored image, C of a crop.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.config import Config
from alexnet.data.batch import Batch, Draw
from alexnet.data.random import coins, integers, normals, random_words
from alexnet.data.statistics import Statistics
from alexnet.data.views import centring
from alexnet.device import to_device

_PLACEMENT, _SHARED, _COLOUR = range(3)  # what words are drawn for


class Augmentation:
    """The draws of a training run and the arithmetic that applies them to whole batches on the device."""

    def __init__(self, config: Config, statistics: Statistics, device: torch.device) -> None:
        """`statistics` are those of the training set at side `config.data.size`."""
        self.settings, self.seed = config.augment, config.train.seed
        self.size, self.crop = config.data.size, config.network.image
        self.center = (self.size - self.crop) // 2
        self.device = device
        mean, scale = centring(config.data.center, self.size, statistics.mean_image)
        self.scale = None if scale is None else torch.from_numpy(scale).to(device)
        whole = torch.zeros(self.size, self.size, 3) if mean is None else torch.from_numpy(np.ascontiguousarray(mean))
        # (S−C+1, S−C+1, C, C, 3): every crop of the mean image, without copies
        self.means = whole.to(device).unfold(0, self.crop, 1).unfold(1, self.crop, 1).permute(0, 1, 3, 4, 2)
        deviations = np.sqrt(np.maximum(statistics.eigenvalues, 0))
        weights = deviations if self.settings.colour_scale == "sqrt" else statistics.eigenvalues
        # row j: the colour added per unit of factor j
        self.components = (statistics.eigenvectors * weights).T.astype(np.float32)

    def draws(self, epoch: int, positions: NDArray[np.int64], places: NDArray[np.int64]) -> Draw:
        """Return what is drawn in an epoch for images at `positions` (N,) of the split.

        `places` (N,) are theirs in the epoch's order: with `shared` > 1 that many consecutive ones share crop and coin.
        Each kind has words of its own, so that turning one off leaves the others as they were.
        """
        settings, n = self.settings, len(positions)
        if settings.shared > 1:
            words = random_words((self.seed, epoch, _SHARED), places // settings.shared, 3)
        else:
            words = random_words((self.seed, epoch, _PLACEMENT), positions, 3)
        room = self.size - self.crop
        offsets = integers(words[:, :2], room + 1) if settings.crop else np.full((n, 2), self.center)
        mirrored = coins(words[:, 2]) if settings.mirror else np.zeros(n, bool)
        factors = np.zeros((n, 3), np.float32)
        if settings.colour and not 0 < settings.colour_until < epoch:
            factors = normals(random_words((self.seed, epoch, _COLOUR), positions, 3)) * np.float32(settings.colour)
        return Draw(offsets, mirrored, factors)

    def training(self, batch: Batch) -> Tensor:
        """A batch cut where its draw says → float (N, 3, C, C) on the device, centred, mirrored, coloured.

        Releases the batch: its images are not to be read after the next one is asked for.
        """
        draw = batch.draw
        assert draw is not None, "a batch for training comes from a loader with draws"
        images = self._centre(batch.images, draw.offsets)
        batch.release(self.device)
        if draw.mirrored.any():
            mirrored = to_device(torch.from_numpy(draw.mirrored), self.device)[:, None, None, None]
            images = torch.where(mirrored, images.flip(2), images)
        if draw.factors.any():
            # Not a matrix product: its rounding may depend on how many rows there are.
            noises = sum(draw.factors[:, j, None] * self.components[j] for j in range(3))
            noise = to_device(torch.from_numpy(noises), self.device)
            images = images + noise[:, None, None]
            images = images / self.settings.colour_divisor
        return self._scaled(images)

    def test(self, images: Tensor, row: int | None = None, column: int | None = None, mirror: bool = False) -> Tensor:
        """uint8 images (N, S, S, 3) → one view of each, float (N, 3, C, C); the centre unless a corner is given."""
        row = self.center if row is None else row
        column = self.center if column is None else column
        crops = images[:, row : row + self.crop, column : column + self.crop]
        offsets = np.full((len(images), 2), (row, column))
        view = self._centre(crops, offsets)
        return self._scaled(view.flip(2) if mirror else view)

    def _centre(self, crops: Tensor, offsets: np.ndarray) -> Tensor:
        images = to_device(crops, self.device).float()
        if len(offsets) and (offsets == offsets[0]).all():
            return images - self.means[int(offsets[0, 0]), int(offsets[0, 1])]
        where = to_device(torch.from_numpy(offsets), self.device)
        return images - self.means[where[:, 0], where[:, 1]]

    def _scaled(self, images: Tensor) -> Tensor:
        if self.scale is not None:
            images = images * self.scale
        return images.permute(0, 3, 1, 2)  # the layout in memory stays channels-last
