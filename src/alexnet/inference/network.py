"""A network as a predictor: a run's, a model file's or torchvision's, computed by the engine or by torch.

Shapes: `N` images, `S` side of a square, `C` classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import Network
from alexnet.checkpoint import Arrays, load_weights
from alexnet.config import Config
from alexnet.data.views import centring, views
from alexnet.engine.interpreter import Interpreter
from alexnet.formats.export import Facts
from alexnet.inference.backends import Backend
from alexnet.predictor import Images, Predictor
from alexnet.run import Run

if TYPE_CHECKING:
    from alexnet.model.net import Net


@dataclass(frozen=True)
class Trained:
    """A network with its weights and all that goes with it.

    The preprocessing is that of `config.data`, with `mean_image` (S, S, 3) for "mean-image". `origin` is what a
    predictor's `description` says of the weights: run, checkpoint and step; `words` are what the classes mean, and
    `model` is the torch module where torchvision has built it.
    """

    config: Config
    weights: Arrays
    mean_image: NDArray[np.float32] | None
    classes: tuple[str, ...]
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    run: Run | None = None
    words: tuple[str, ...] | None = None
    model: Net | None = None

    @property
    def network(self) -> Network:
        """What the weights are of."""
        return self.config.network

    def interpreter(self, precision: str = "float32", ranges: Mapping[str, float] | None = None) -> Interpreter:
        """The network as the engine computes it; int8 needs the `ranges` of its taps."""
        mean, scale = self.centring()
        return Interpreter(self.network, self.weights, mean=mean, scale=scale, precision=precision, ranges=ranges)

    def torch_model(self) -> Net:
        """The network as a torch module."""
        from alexnet.model.zoo import build

        model = self.model or build(self.network, seed=None)  # whose size is that of the weights
        if self.model is None:
            load_weights(model, self.weights, str(self.origin.get("run", self.config.preset)))
        return model.eval()

    def centring(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """What is subtracted from squares and what they are multiplied by; see `data.views`."""
        return centring(self.config.data.center, self.config.data.size, self.mean_image)

    def facts(self) -> Facts:
        """What a file of the weights must say beside them, for `formats.export`."""
        data = self.config.data
        mean = self.mean_image if data.center == "mean-image" else None
        return Facts(self.config.preset, self.classes, data.size, data.center, data.exif_rotate, mean, self.words or ())


class NetworkPredictor(Predictor):
    """A network, ready to predict. `load` makes one of a model's name."""

    def __init__(self, trained: Trained, backend: Backend, name: str = "engine", precision: str = "float32") -> None:
        """`backend` computes what is `trained`; `name` and `precision` are what is said of it."""
        self.trained, self.backend = trained, backend
        self.classes, self.words, self.run = trained.classes, trained.words or None, trained.run
        data = trained.config.data
        self.size, self.exif_rotate, self.batch_size = data.size, data.exif_rotate, trained.config.train.batch_size
        self.how = {"backend": name, "precision": precision}

    @cached_property
    def description(self) -> dict[str, Any]:  # type: ignore[override]
        """Which weights predict, and how; see `Predictor`."""
        origin = {"run": self.trained.config.preset, "checkpoint": None, "step": None, **self.trained.origin}
        return {**origin, "sha256": weights_sha256(self.trained.weights), **self.how}

    def probabilities(self, images: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """As `Predictor.probabilities`."""
        images = self.check_squares(images)
        return softmax(self.backend.logits(images, self._views(views))).mean(axis=0)

    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """As `Predictor.taps`: name → (N, kernels, rows, columns) or (N, units)."""
        return self.backend.taps(self.squares(images), self._views(1)[0], names)

    def _views(self, count: int) -> list[tuple[int, int, bool]]:
        return views(count, self.size, self.trained.network.image)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (…, C) → probabilities, float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def weights_sha256(weights: Arrays) -> str:
    """The sha256 of weights, names and values, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
