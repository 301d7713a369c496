"""What a network said of each image of a split, small enough to keep beside a record.

Errors, differences per image and ensembles (paper §6) are computed again from it without a network. Shapes: `N` images,
`C` classes, `k` of them kept, the most probable first.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alexnet.errors import DataError, UsageError, describe_os_error
from alexnet.files import read_npz, write_npz

KEPT = 10  # classes whose probabilities are kept
NAT = 16  # steps per nat of −log probability: its rounding changes a probability by at most 3.2 %
LIMIT = 64 << 20  # bytes of a file, packed and unpacked: over two million images
MOST_CLASSES = 1 << 16
ROWS = 4096  # images at a time
_APART = np.float32(1e-5)  # how much less, in parts, a class gets that rounding made equal to the one before it
_NAMES = {"classes", "labels", "ranks", "top", "nats"}


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for the images of a split, in its order.

    `labels` uint16 (N,) are the true classes, `ranks` (N,) how many classes were at least as probable as the true one:
    0 is right, below 5 right by the top-5 error; ties count against the prediction. Where probabilities are kept,
    `top` (N, k) are the most probable classes and `nats` uint8 (N, k) their −log probabilities in sixteenths, 255 for
    all above; else both are None.
    """

    classes: int
    labels: NDArray[np.uint16]
    ranks: NDArray[np.unsignedinteger[Any]]
    top: NDArray[np.unsignedinteger[Any]] | None = None
    nats: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, probabilities: ArrayLike, labels: ArrayLike, full: bool = True) -> Predictions:
        """From probabilities (N, C) and true classes (N,); `full` keeps probabilities for ensembles.

        Errors are those that `evaluate` counts, which compares logarithms in float32. Raises UsageError for what are
        no probabilities or labels.
        """
        given = np.asarray(probabilities)
        truths = np.asarray(labels)
        if given.ndim != 2 or given.shape[1] < 2 or truths.shape != given.shape[:1]:
            raise UsageError(f"probabilities {given.shape} and labels {truths.shape} should be (N, C) and (N,)")
        classes = given.shape[1]
        if classes > MOST_CLASSES or truths.dtype.kind not in "iu":
            raise UsageError(f"labels of {truths.dtype} among {classes} classes should be whole numbers below 65,536")
        if truths.size and not 0 <= int(truths.min()) <= int(truths.max()) < classes:
            raise UsageError(f"labels from {truths.min()} to {truths.max()} should be from 0 to {classes - 1}")
        numbers = _smallest(classes)
        ranks, top, nats = [], [], []
        for first in range(0, len(given), ROWS):
            part = given[first : first + ROWS].astype(np.float32)
            if not (part.min() >= 0 and part.max() <= 1.001):  # NaN is neither
                raise UsageError("probabilities should be numbers from 0 to 1")
            scores = np.log(np.maximum(part, np.finfo(np.float32).tiny))
            truth = np.take_along_axis(scores, truths[first : first + ROWS, None].astype(np.int64), 1)
            ranks.append(((scores >= truth).sum(1) - 1).astype(numbers))
            if full:
                order = np.argsort(-scores, axis=1, kind="stable")[:, :KEPT]
                top.append(order.astype(numbers))
                steps = np.rint(-NAT * np.take_along_axis(scores, order, 1))
                nats.append(np.clip(steps, 0, 255).astype(np.uint8))
        k = min(KEPT, classes)
        return cls(
            classes,
            truths.astype(np.uint16),
            np.concatenate(ranks) if ranks else np.empty(0, numbers),
            (np.concatenate(top) if top else np.empty((0, k), numbers)) if full else None,
            (np.concatenate(nats) if nats else np.empty((0, k), np.uint8)) if full else None,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def wrong(self, top: int = 1) -> NDArray[np.bool_]:
        """Whether each image's true class is missing among the `top` most probable, (N,)."""
        return self.ranks >= top

    def error(self, top: int = 1) -> float:
        """The top-`top` error in percent. Raises DataError where there is no image."""
        if not len(self):
            raise DataError("predictions of no image have no error")
        return 100 * int(self.wrong(top).sum()) / len(self)

    def probabilities(self, classes: int | None = None) -> NDArray[np.float32]:
        """Probabilities (N, C) as far as they were kept; what remains is spread evenly over the other classes.

        Kept classes keep their order, and no other class is made as probable as one of them. Raises DataError where
        none were kept, UsageError where they are of another number of `classes`.
        """
        if classes is not None and classes != self.classes:
            raise UsageError(f"the predictions are of {self.classes} classes, not {classes}")
        if self.top is None or self.nats is None:
            raise DataError("these predictions keep ranks only; an ensemble needs probabilities (full)")
        kept = np.exp(-self.nats.astype(np.float32) / NAT) * (
            1 - _APART * np.arange(self.nats.shape[1], dtype=np.float32)
        )
        others = self.classes - kept.shape[1]
        rest = np.maximum(1 - kept.sum(1, keepdims=True), 0) / max(others, 1)
        spread = np.broadcast_to(np.minimum(rest, (1 - _APART) * kept[:, -1:]), (len(self), self.classes)).copy()
        np.put_along_axis(spread, self.top.astype(np.int64), kept, 1)
        return (spread / spread.sum(1, keepdims=True)).astype(np.float32)

    @cached_property
    def images(self) -> str:
        """Which images these are: the sha256 of the true classes in order, the same for every network."""
        return hashlib.sha256(f"{self.classes} ".encode() + self.labels.astype("<u2").tobytes()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as a compressed .npz; equal predictions give equal bytes. Raises OSError."""
        arrays: dict[str, NDArray[Any]] = {"classes": np.array([self.classes], np.uint32)}
        arrays |= {"labels": self.labels, "ranks": self.ranks}
        if self.top is not None and self.nats is not None:
            arrays |= {"top": self.top, "nats": self.nats}
        write_npz(path, arrays, compressed=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read what `save` wrote. Raises DataError, in one line, for a file that is missing, damaged or another."""
        try:
            return _checked(read_npz(path, LIMIT, compressed=True))
        except OSError as error:
            raise DataError(f"predictions cannot be read: {describe_os_error(error)}") from None
        except ValueError as error:
            raise DataError(f"{os.fspath(path)} holds no predictions: {error}; measure the run again") from None


def check_same_images(several: list[Predictions]) -> None:
    """Raise DataError unless all predictions are of the same images in the same order."""
    for place, one in enumerate(several):
        if one.images != several[0].images:
            raise DataError(
                f"predictions {place + 1} of {len(several)} are of other images than the first: {len(one)} of "
                f"{one.classes} classes, {len(several[0])} of {several[0].classes}; measure both on one split"
            )


def _smallest(classes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if classes <= 1 << 8 else np.uint16


def _checked(arrays: dict[str, NDArray[Any]]) -> Predictions:
    """Predictions from arrays that anybody may have made. Raises ValueError."""
    names = set(arrays)
    if names not in (_NAMES, _NAMES - {"top", "nats"}):
        raise ValueError(f"its arrays are {', '.join(sorted(map(repr, names)))[:200]}")
    number = arrays["classes"]
    if number.shape != (1,) or number.dtype != np.uint32 or not 2 <= number[0] <= MOST_CLASSES:
        raise ValueError("its number of classes should be one from 2 to 65,536")
    classes = int(number[0])
    numbers, n, k = _smallest(classes), arrays["labels"].size, min(KEPT, classes)
    wanted: dict[str, tuple[type, tuple[int, ...]]] = {"labels": (np.uint16, (n,)), "ranks": (numbers, (n,))}
    wanted |= {"top": (numbers, (n, k)), "nats": (np.uint8, (n, k))}
    for name, (kind, shape) in wanted.items():
        if name not in names:
            continue
        array = arrays[name]
        if array.dtype != kind or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {str(array.shape)[:60]}, not {np.dtype(kind)} {shape}")
        if name != "nats" and n and array.max() >= classes:
            raise ValueError(f"{name} has {array.max()}, but there are {classes} classes")
    if "top" in names:
        ordered = np.sort(arrays["top"], axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError("top names a class twice")
    return Predictions(classes, arrays["labels"], arrays["ranks"], arrays.get("top"), arrays.get("nats"))
