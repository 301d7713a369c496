"""What a finished run of an arm shows: errors, gaps, the way there, and what its first and last layers know.

Every value is of the last weights: the paper reports the network that training ended with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.dataset import Subset
from alexnet.data.run_data import RunData
from alexnet.evaluation.measure import check_readable
from alexnet.inference.network import NetworkPredictor
from alexnet.predictor import Predictor
from alexnet.progress import Progress
from alexnet.reproduce.kernels import column_separation
from alexnet.reproduce.neighbours import measure_neighbours
from alexnet.reproduce.predictions import Predictions
from alexnet.reproduce.records import Epoch, Key, predictions_path
from alexnet.run import Run

TRAIN_IMAGES = 10_000  # of the training set, whose error without crops and dropout is measured
TARGET = 25.0  # percent of training error (§3.1)
STARTED = 0.9  # of the loss of guessing: below it, a network has begun to learn
KEPT_EPOCHS = 50  # of a curve in a record
NEAR = 0.5  # points: within so much of its least validation error, a network has converged
Values = dict[str, float]


def curve_of(run: Run) -> tuple[Epoch, ...]:
    """A run's epochs: their errors, and the seconds of training until their ends."""
    validation = {line["epoch"]: line["top1_error"] for line in run.metrics("validation")}
    epochs, seconds = [], 0.0
    for line in run.metrics("epoch"):
        seconds += line["seconds"]
        number = line["epoch"]
        error = round(line["top1_error"], 2)
        epochs.append(Epoch(number, round(seconds, 2), error, round(line["loss"], 4), validation.get(number)))
    return tuple(epochs)


def thinned(curve: Sequence[Epoch]) -> tuple[Epoch, ...]:
    """At most `KEPT_EPOCHS` of a curve's epochs, spread evenly, the last among them."""
    step = -(-len(curve) // KEPT_EPOCHS)
    return tuple(epoch for place, epoch in enumerate(reversed(curve)) if place % step == 0)[::-1]


def values_of_curve(run: Run, curve: Sequence[Epoch], chance: float | None) -> Values:
    """How soon a run learned. `chance` is the loss of guessing.

    `epochs_to_25`, `seconds_to_25`: until the training error was 25 %, between the epochs' ends by a straight line;
    missing where it never was. `epochs_to_converge`: until the validation error was within half a point of its least.
    `steps_to_start`: until the loss of a log interval was below nine tenths of that of guessing; all steps where it
    never was.
    """
    values: Values = {}
    before = Epoch(0, 0.0, 100.0, 0.0, None)
    for previous, epoch in pairwise((before, *curve)):
        if epoch.train_error <= TARGET:
            share = (previous.train_error - TARGET) / (previous.train_error - epoch.train_error)
            values["epochs_to_25"] = round(previous.epoch + share * (epoch.epoch - previous.epoch), 3)
            values["seconds_to_25"] = round(previous.seconds + share * (epoch.seconds - previous.seconds), 2)
            break
    validated = [(epoch.epoch, epoch.val_error) for epoch in curve if epoch.val_error is not None]
    if validated:
        least = min(error for _, error in validated)
        values["val_error"] = validated[-1][1]
        values["epochs_to_converge"] = next(number for number, error in validated if error <= least + NEAR)
    if chance is not None:
        lines = run.metrics("train")
        values["steps_to_start"] = next(
            (line["step"] for line in lines if line["loss"] < STARTED * chance), lines[-1]["step"]
        )
    return values


def predict_split(
    predictor: Predictor, data: RunData, split: str, views: int, progress: Progress, most: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The probabilities (N, C) and labels (N,) of a split, or of `most` images spread evenly over it, in its order.

    Images that cannot be read are left out. Raises DataError where none can be.
    """
    chosen = data.split(split)
    if most is not None and len(chosen) > most:
        chosen = Subset(chosen, np.linspace(0, len(chosen) - 1, most).round().astype(np.int64), chosen.name)
    loader = data.loader(chosen, progress, shuffle=False)
    parts, positions = [], []
    with progress.counting(f"measuring {split}"):
        for batch in loader.epoch(0):
            if len(batch.positions):
                parts.append(predictor.probabilities(batch.images.numpy(), views))
                positions.append(batch.positions.copy())
    check_readable(loader, len(positions))
    order = np.concatenate(positions)
    by_position = np.argsort(order)
    return np.concatenate(parts)[by_position], chosen.labels[order[by_position]]


def values_of_model(
    predictor: Predictor, data: RunData, folder: Path, key: Key, views: int, full: bool, progress: Progress
) -> Values:
    """The errors of a model on test (`top1_error`, `top5_error`, percent), on training images, and their difference.

    With `views` above 1 also those of that many averaged (`top1_error_views`, …). The predictions are kept in `folder`:
    the ranks of the true classes, and where views are averaged the probabilities, those of validation images too; with
    `full` also those of the centre view.
    """
    split = "test" if "test" in data.source.splits else "val"
    kept = [("centre", "error", split, 1, full)]
    if views > 1:
        kept += [("views", "error_views", split, views, True), ("val", "error_val", "val", views, True)]
    elif full:
        kept += [("val", "error_val", "val", 1, True)]
    values: Values = {}
    for kind, name, images, count, probable in kept:
        predicted, labels = predict_split(predictor, data, images, count, progress)
        predictions = Predictions.of(predicted, labels, full=probable)
        predictions.save(predictions_path(folder, key, kind))
        values[f"top1_{name}"] = predictions.error(1)
        if predictions.classes > 5:
            values[f"top5_{name}"] = predictions.error(5)
        if kind == "centre":
            values["loss"] = _loss(predicted, labels)
            values["chance_error"] = 100 * (1 - 1 / predictions.classes)
            values["images"] = len(labels)
    predicted, labels = predict_split(predictor, data, "train", 1, progress, TRAIN_IMAGES)
    values["train_error"] = Predictions.of(predicted, labels, full=False).error(1)
    values["train_loss"] = _loss(predicted, labels)
    values["generalization_gap"] = values["top1_error"] - values["train_error"]
    return {name: round(value, 4) for name, value in values.items()}


def values_of_kernels(predictor: NetworkPredictor) -> Values:
    """How the first layer's kernels differ in colour between the columns (claim 15), in points of energy."""
    found = column_separation(predictor.trained.network, predictor.trained.weights)
    return {
        "colour_separation": round(100 * found.statistic, 4),
        "colour_separation_permuted": round(100 * found.chance, 4),
        "colour_separation_p": round(found.p, 6),
        "colour_index_1": round(100 * found.means[0], 4),
        "colour_index_2": round(100 * found.means[1], 4),
    }


def values_of_neighbours(predictor: Predictor, run: Run, progress: Progress) -> Values:
    """What the nearest training images by the last hidden layer and by pixels show (claim 16), in percent."""
    found = measure_neighbours(predictor, run, progress)
    names = {
        "neighbours_by_features": found.same_class_by_features,
        "neighbours_by_pixels": found.same_class_by_pixels,
        "neighbours_by_chance": found.same_class_by_chance,
        "pixel_distance_by_features": found.pixel_distance_by_features,
        "pixel_distance_by_pixels": found.pixel_distance_by_pixels,
    }
    return {name: round(value, 4) for name, value in names.items()}


def _loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(truth, math.ldexp(1, -126))).mean())
