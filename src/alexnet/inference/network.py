"""A network as a predictor: a run's, a model file's or torchvision's, computed by torch or another backend.

Shapes: `N` images, `S` side of a square, `C` classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.config import Config
from alexnet.data.augment import Augmentation
from alexnet.data.statistics import Statistics
from alexnet.formats.export import Facts
from alexnet.inference.backends import Backend
from alexnet.inference.predictor import Images, Predictor
from alexnet.run import Run

VIEWS_AT_ONCE = 64  # beyond this a larger batch is no faster, only larger


class NetworkPredictor(Predictor):
    """A network, ready to predict. `load` makes one of a model's name."""

    def __init__(
        self,
        config: Config,
        statistics: Statistics,
        classes: Sequence[str],
        backend: Backend,
        origin: Mapping[str, Any] | None = None,
        run: Run | None = None,
        words: Sequence[str] | None = None,
    ) -> None:
        """Take the preprocessing from `config.data` and `statistics`, those of the training images at that size.

        `origin` is what `description` says of the weights: run, checkpoint and step. `words` are what the classes mean.
        `model` is the backend's torch module, in evaluation mode.
        """
        self.config, self.statistics, self.classes, self.backend = config, statistics, tuple(classes), backend
        self.size, self.exif_rotate = config.data.size, config.data.exif_rotate
        self.batch_size, self.run = config.train.batch_size, run
        self.words = tuple(words) if words else None
        self.model = backend.model
        self.augmentation = Augmentation(config, statistics, backend.device)
        self.origin = {"run": config.preset, "checkpoint": None, "step": None, **(origin or {})}

    @cached_property
    def description(self) -> dict[str, Any]:  # type: ignore[override]
        """Which weights predict, and how; see `Predictor`."""
        how = {"backend": self.backend.name, "precision": self.backend.precision}
        return {**self.origin, "sha256": weights_sha256(self.model), **how}

    def facts(self) -> Facts:
        """What a file of the weights must say beside them, for `formats.export`."""
        data = self.config.data
        mean = self.statistics.mean_image if data.center == "mean-image" else None
        return Facts(self.config.preset, self.classes, data.size, data.center, data.exif_rotate, mean, self.words or ())

    @torch.no_grad()
    def probabilities(self, images: Tensor, views: int = 1) -> Tensor:
        """As `Predictor.probabilities`; several views of few images go through the network together."""
        self.check_squares(images)
        places = self.augmentation.views(views)
        n = len(images)
        total = torch.zeros(n, len(self.classes))
        together = max(1, VIEWS_AT_ONCE // max(1, n))
        for first in range(0, len(places) if n else 0, together):
            some = [self.augmentation.test(images, *place) for place in places[first : first + together]]
            softmax = self.backend.logits(torch.cat(some) if len(some) > 1 else some[0]).softmax(1)
            total += softmax.unflatten(0, (len(some), n)).sum(0)
        return total / len(places)

    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """As `Predictor.taps`: name → (N, kernels, rows, columns) or (N, units); see the model's own `taps`."""
        return self.backend.taps(self.augmentation.test(self.squares(images)), names)


def weights_sha256(model: nn.Module, salt: str = "") -> str:
    """The sha256 of a model's weights, names and values, in hexadecimal; `salt` goes before them."""
    digest = hashlib.sha256(salt.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
