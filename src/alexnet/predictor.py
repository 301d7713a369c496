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
from numpy.typing import NDArray

from alexnet.data.preprocess import to_square
from alexnet.errors import UsageError
from alexnet.run import Run

Image = str | Path | bytes | np.ndarray
Images = Image | Sequence[Image]  # an array of several, a tensor too, is a sequence


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
    def probabilities(self, images: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """uint8 (N, S, S, 3) → softmax outputs averaged over the views, float32 (N, C) (paper §4.1).

        `views` is 1 (centre), 5 (corners and centre) or 10 (those and their mirror images, the paper's). Raises
        UsageError for images of another shape or another number of views.
        """

    @abstractmethod
    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """Named activations of the centre views, as copies, float32, N first; `names` limits what is kept.

        images: what `predict` takes, of any size, through the same preprocessing. Floats that are centred already are
        for the `taps` of a torch model. Raises UnreadableImage, and UsageError for floats or a name that is not known.
        """

    def predict(self, images: Images, top: int = 5, views: int = 1) -> list[Prediction]:
        """The `top` labels of each image.

        images: one or several paths, encoded files as bytes, uint8 RGB arrays (H, W, 3), or a uint8 batch
        (N, H, W, 3). Raises UnreadableImage naming the file, UsageError for another kind of array or number of views.
        """
        check_top(top)
        several = listed(images)
        predictions: list[Prediction] = []
        for first in range(0, len(several), self.batch_size):
            squares = self.squares(several[first : first + self.batch_size])
            predictions += best_labels(self.probabilities(squares, views), self.classes, top, self.words)
        return predictions

    def square(self, image: Image) -> np.ndarray:
        """A picture as the network was trained on it: (S, S, 3) uint8. Raises UnreadableImage naming the file."""
        return to_square(image, self.size, self.exif_rotate)

    def squares(self, images: Images) -> NDArray[np.uint8]:
        """What `predict` takes as one batch: uint8 (N, S, S, 3). Raises what `predict` does."""
        several = listed(images)
        if isinstance(several, np.ndarray) and several.shape[1:] == (self.size, self.size, 3):
            return several
        squares = [self.square(image) for image in several]
        return np.stack(squares) if squares else np.empty((0, self.size, self.size, 3), np.uint8)

    def check_squares(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The images as an array. Raises UsageError unless they are uint8 (N, S, S, 3)."""
        side, pixels = self.size, np.asarray(images)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise UsageError(
                f"images of {pixels.dtype} {pixels.shape} should be uint8 (N, {side}, {side}, 3): "
                "`square` makes them of any picture"
            )
        return pixels


def listed(images: Images) -> Sequence[Any] | NDArray[np.uint8]:
    """Several pictures: one as a list of one, arrays and tensors as uint8 (N, H, W, 3). Raises UsageError."""
    if isinstance(images, str | Path | bytes):
        return [images]
    if not hasattr(images, "__array__"):
        return images
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
        raise UsageError(
            f"images of {pixels.dtype} {pixels.shape} should be uint8 (N, H, W, 3) or (H, W, 3), RGB; centred floats "
            "are for the `taps` of a torch model"
        )
    return pixels if pixels.ndim == 4 else pixels[None]


def best_labels(
    probabilities: NDArray[np.float32], classes: Sequence[str], top: int, words: Sequence[str] | None = None
) -> list[Prediction]:
    """float (N, C) → the `top` labels of each image, with their words."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(probabilities, order, axis=1)
    return [
        Prediction(tuple(classes[i] for i in row), tuple(value), tuple(words[i] for i in row) if words else ())
        for row, value in zip(order.tolist(), values.tolist(), strict=True)
    ]


def check_top(top: int) -> None:
    """Raise UsageError for a number of labels below 1."""
    if top < 1:
        raise UsageError(f"top {top} should be at least 1")
