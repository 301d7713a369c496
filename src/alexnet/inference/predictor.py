"""What everything that predicts has: classes, the one preprocessing, probabilities and taps (paper §4.1).

Shapes: `N` images, `H W` rows and columns of a picture, `S` side of a square, `C` classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data.preprocess import to_square
from alexnet.errors import UsageError
from alexnet.run import Run

Image = str | Path | bytes | np.ndarray
Images = Image | Sequence[Image] | Tensor


@dataclass(frozen=True)
class Prediction:
    """The most probable labels of one image, the most probable first, with their probabilities.

    `words` are what the labels mean, "" where that is not known; empty where the model knows no words.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    words: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """`{"labels": [{"label", "probability"}]}`, and `"words"` of each where the model knows any, JSON-ready."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        entries: list[dict[str, Any]] = [{"label": label, "probability": round(p, 6)} for label, p in pairs]
        for entry, words in zip(entries, self.words, strict=False):
            entry["words"] = words
        return {"labels": entries}


class Predictor(ABC):
    """Class probabilities and activations of pictures. Safe to use from several threads at once.

    A predictor sets `classes`, `size` (the side of the squares it takes) and `description`, and where they differ from
    the defaults `words` (what the classes mean, one text each), `exif_rotate` (whether pictures are turned as their
    EXIF orientation says), `batch_size` (images that it is given at once) and `run` (the run that it comes from, whose
    data it is measured on by default).

    `description` says which weights predict, JSON-ready: `run` (the model's name), `checkpoint`, `step`, `sha256` (of
    the weights), `backend` and `precision`; or `members`, their descriptions, and `weights`.
    """

    classes: tuple[str, ...]
    size: int
    description: dict[str, Any]
    words: tuple[str, ...] | None = None
    exif_rotate: bool = False
    batch_size: int = 64
    run: Run | None = None

    @abstractmethod
    def probabilities(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 (N, S, S, 3) → softmax outputs averaged over the views, float32 (N, C) on the CPU (paper §4.1).

        `views` is 1 (centre), 5 (corners and centre) or 10 (those and their mirror images, the paper's). Raises
        UsageError for images of another shape or another number of views.
        """

    @abstractmethod
    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Named activations of the centre views, as copies, N first; `names` limits what is kept.

        images: what `predict` takes, of any size, through the same preprocessing. Floats that are centred already are
        for the `taps` of a torch model. Raises UnreadableImage, and UsageError for floats or a name that is not known.
        """

    def predict(self, images: Images, top: int = 5, views: int = 1) -> list[Prediction]:
        """The `top` labels of each image.

        images: one or several paths, encoded files as bytes, uint8 RGB arrays (H, W, 3), or a uint8 batch
        (N, H, W, 3). Raises UnreadableImage naming the file, UsageError for another kind of array or number of views.
        """
        check_top(top)
        several = _listed(images)
        predictions: list[Prediction] = []
        for first in range(0, len(several), self.batch_size):
            squares = self.squares(several[first : first + self.batch_size])
            predictions += best_labels(self.probabilities(squares, views), self.classes, top, self.words)
        return predictions

    def square(self, image: Image) -> np.ndarray:
        """A picture as the network was trained on it: (S, S, 3) uint8. Raises UnreadableImage naming the file."""
        return to_square(image, self.size, self.exif_rotate)

    def squares(self, images: Images) -> Tensor:
        """What `predict` takes as one batch: uint8 (N, S, S, 3). Raises what `predict` does."""
        if isinstance(images, Tensor):
            if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] != 3:
                kind = f"{images.dtype} {tuple(images.shape)}"
                raise UsageError(
                    f"a batch of {kind} should be uint8 (N, H, W, 3), RGB; centred floats are for `model.taps`"
                )
            if images.shape[1:3] == (self.size, self.size):
                return images
            images = list(images.cpu().numpy())
        several = _listed(images)
        if not len(several):
            return torch.empty(0, self.size, self.size, 3, dtype=torch.uint8)
        return torch.from_numpy(np.stack([self.square(image) for image in several]))

    def check_squares(self, images: Tensor) -> None:
        """Raise UsageError unless `images` is uint8 (N, S, S, 3)."""
        side = self.size
        if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != (side, side, 3):
            raise UsageError(
                f"images of {images.dtype} {tuple(images.shape)} should be uint8 (N, {side}, {side}, 3): "
                "`square` makes them of any picture"
            )


def _listed(images: Images) -> Sequence[Any] | Tensor:
    """One picture as a list of one; several as they are."""
    if isinstance(images, str | Path | bytes) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    return images  # type: ignore[return-value]  # an array of four axes is a sequence


def best_labels(
    probabilities: Tensor, classes: Sequence[str], top: int, words: Sequence[str] | None = None
) -> list[Prediction]:
    """float (N, C) → the `top` labels of each image, with their words."""
    values, indices = probabilities.topk(min(top, len(classes)), dim=1)
    return [
        Prediction(tuple(classes[i] for i in row), tuple(value), tuple(words[i] for i in row) if words else ())
        for row, value in zip(indices.tolist(), values.tolist(), strict=True)
    ]


def check_top(top: int) -> None:
    """Raise UsageError for a number of labels below 1."""
    if top < 1:
        raise UsageError(f"top {top} should be at least 1")
