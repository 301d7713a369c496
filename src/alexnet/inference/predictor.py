"""A trained network as a classifier: centre view or the paper's ten, on images or files (paper §4.1).

Shapes: `N` images, `S` their side, `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet.checkpoint import has_checkpoint, load_checkpoint, load_weights
from alexnet.data.augment import Augmentation
from alexnet.data.preprocess import to_square
from alexnet.data.statistics import Statistics
from alexnet.device import autocast, choose_device
from alexnet.errors import RunError
from alexnet.model.zoo import Net, build
from alexnet.run import Run

Image = str | Path | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The most probable labels of one image, the most probable first, with their probabilities."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


class Classifier:
    """A run's network, ready to predict. `load` makes one."""

    def __init__(self, run: Run, model: Net, augmentation: Augmentation, device: torch.device) -> None:
        self.run, self.config, self.classes = run, run.config, run.classes
        self.model, self.augmentation, self.device = model, augmentation, device

    def predict(self, images: Image | Sequence[Image] | Tensor, top: int = 5, views: int = 1) -> list[Prediction]:
        """The `top` labels of each image.

        images: one or several paths, uint8 RGB arrays (H, W, 3), or a uint8 batch (N, H, W, 3). `views` is 1 (centre),
        5 (corners and centre) or 10 (those and their mirror images, the paper's). Raises UnreadableImage naming the
        file, ValueError for another kind of array or number of views.
        """
        if top < 1:
            raise ValueError(f"top {top} should be at least 1")
        if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
            images = [images]
        found: list[Prediction] = []
        batch = self.config.train.batch_size
        for first in range(0, len(images), batch):
            squares = np.stack([self._square(image) for image in images[first : first + batch]])
            probabilities = self.probabilities(torch.from_numpy(squares), views)
            values, indices = probabilities.topk(min(top, len(self.classes)), dim=1)
            found += [
                Prediction(tuple(self.classes[i] for i in row), tuple(value))
                for row, value in zip(indices.tolist(), values.tolist(), strict=True)
            ]
        return found

    @torch.no_grad()
    def probabilities(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 (N, S, S, 3) → softmax outputs averaged over the views, float32 (N, C) on the CPU (paper §4.1)."""
        total: Tensor | float = 0.0
        places = self.augmentation.views(views)
        for row, column, mirror in places:
            view = self.augmentation.test(images, row, column, mirror)
            with autocast(self.config.train.precision, self.device):
                logits = self.model(view)
            total = total + logits.float().softmax(1)
        return (total / len(places)).cpu()  # type: ignore[union-attr]

    def taps(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Named activations of the centre views of uint8 images (N, S, S, 3); see `AlexNet.taps`."""
        return self.model.taps(self.augmentation.test(images), names)

    def _square(self, image: Image | Tensor) -> np.ndarray:
        given = image if isinstance(image, str | Path) else np.asarray(image)
        return to_square(given, self.config.data.size, self.config.data.exif_rotate)


def load(path: str | Path, checkpoint: str | None = None, device: str = "auto") -> Classifier:
    """The classifier of a run directory, in evaluation mode.

    `checkpoint` is "best" (by validation error) or "last"; by default best where there is one. Raises RunError or
    CheckpointError in one line for a directory without a finished save or with weights of another network.
    """
    run = Run.open(path)
    if checkpoint is None:
        checkpoint = "best" if has_checkpoint(run.checkpoints, "best") else "last"
    if checkpoint not in ("best", "last"):
        raise RunError(f"checkpoint {checkpoint!r} should be best or last")
    target = choose_device(device)
    model = build(run.config.network, seed=None)
    weights = load_checkpoint(run.checkpoints, checkpoint).weights
    load_weights(model, weights, str(run.checkpoints / f"{checkpoint}.safetensors"))
    model.to(target).eval()
    augmentation = Augmentation(run.config, Statistics.load(run.statistics_file), target)
    return Classifier(run, model, augmentation, target)
