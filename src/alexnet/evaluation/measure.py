"""The one loop that measures a split: training calls it for validation, `alexnet evaluate` for everything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.loader import BatchLoader
from alexnet.errors import DataError
from alexnet.evaluation.metrics import ErrorCounter, Measurement

Scores = Callable[[Tensor], Tensor]  # uint8 images (N, S, S, 3) → scores (N, classes), higher is more probable
Loss = Callable[[Tensor, Tensor], Tensor]  # scores (N, classes), labels (N,) → loss of each image (N,)
Prepare = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # images and labels → inputs of `scores` and true classes


@torch.no_grad()
def measure_split(
    loader: BatchLoader,
    scores: Scores,
    loss: Loss,
    classes: int,
    labels: NDArray[np.int64] | None = None,
    prepare: Prepare | None = None,
    majority: int | None = None,
) -> Measurement:
    """The errors and the mean loss of a split, each readable image counted once; read from the device at the end.

    `labels` (N,) int64, by position in the split, replace the split's own where a model numbers its classes otherwise.
    `prepare` makes what `scores` takes, and its true classes, of images and labels; perhaps several of each image.
    `majority` is the label of the most frequent class of train, for comparison. Raises DataError where no image can be
    read.
    """
    counter, images = ErrorCounter(classes, majority), 0
    for batch in loader.epoch(0):
        if not len(batch.positions):
            continue
        inputs, truth = batch.images, batch.labels
        if labels is not None:
            truth = torch.from_numpy(labels[batch.positions])
        if prepare is not None:
            inputs, truth = prepare(inputs, truth)
        predicted = scores(inputs)
        truth = truth.to(predicted.device)
        images += len(batch.positions)
        counter.add(predicted, truth, loss(predicted, truth))
        batch.release(predicted.device)
    check_readable(loader, images)
    return counter.result(unreadable=len(loader.split) - images)


def check_readable(loader: BatchLoader, count: int) -> None:
    """Raise DataError, naming the first unreadable image, where `count`, the images that were read, is 0."""
    if count == 0:
        first, why = next(iter(loader.unreadable.items()))
        raise DataError(
            f"none of the {len(loader.split)} images of the {loader.split.name} split can be read (first: "
            f"{first}: {why})"
        )
