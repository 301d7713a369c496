"""Predictions for pictures named on the command line: files, folders, patterns and standard input."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.decode import MAX_BYTES
from alexnet.data.preprocess import read_image_file
from alexnet.data.readers.folder import image_files
from alexnet.device import cpu_count
from alexnet.errors import UnreadableImage, UsageError, quoted
from alexnet.files import atomic_write
from alexnet.predictor import Prediction, Predictor, best_labels, check_top

STDIN = "-"
TABLES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Answer:
    """What became of one picture: a prediction, or the reason why it could not be read."""

    image: str
    prediction: Prediction | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """`{"image", "labels": [{"label", "probability"}]}`, or `{"image", "reason"}`."""
        if self.prediction is None:
            return {"image": self.image, "reason": self.reason}
        return {"image": self.image, **self.prediction.to_json()}


def find_pictures(names: Sequence[str]) -> list[str]:
    """Files from names of files, folders (all pictures below them) and patterns with `*`, `?` or `[…]`, in that order.

    `-`, standard input, stays as it is, and so does a file that is not there. Raises UsageError for a folder or a
    pattern in which there is no picture.
    """
    pictures: list[str] = []
    for name in names:
        matches = [name] if name == STDIN or os.path.lexists(name) else sorted(glob.glob(name, recursive=True))
        if not matches and glob.has_magic(name):
            raise UsageError(f"no file matches {name}")
        for match in matches or [name]:
            pictures += _below(match) if os.path.isdir(match) else [match]
    return pictures


def predict_pictures(predictor: Predictor, pictures: Sequence[str], top: int = 5, views: int = 1) -> Iterator[Answer]:
    """The answers for files and `-`, in order; decoded in threads, a batch at a time. Raises UsageError."""
    check_top(top)
    with ThreadPoolExecutor(cpu_count()) as pool:
        for first in range(0, len(pictures), predictor.batch_size):
            names = pictures[first : first + predictor.batch_size]
            squares = list(pool.map(lambda name: _square(predictor, name), names))
            good = [square for square in squares if isinstance(square, np.ndarray)]
            probabilities = predictor.probabilities(np.stack(good), views) if good else np.empty((0, 1), np.float32)
            predictions = iter(best_labels(probabilities, predictor.classes, top, predictor.words))
            for name, square in zip(names, squares, strict=True):
                yield Answer(name, reason=square) if isinstance(square, str) else Answer(name, next(predictions))


def write_predictions(path: str, answers: Sequence[Answer]) -> None:
    """Write answers as .csv (one row per label) or .jsonl (one object per image), unreadable pictures with the reason.

    The columns are image, rank, label, probability, words and reason. Missing folders are made. Raises OSError.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w", newline="", errors="surrogateescape") as file:
        if path.endswith(".jsonl"):
            file.writelines(json.dumps(answer.to_json()) + "\n" for answer in answers)
            return
        table = csv.DictWriter(file, ("image", "rank", "label", "probability", "words", "reason"))
        table.writeheader()
        for answer in answers:
            labels = answer.to_json().get("labels", [])
            table.writerows(
                {"image": answer.image, "rank": rank, **label} for rank, label in enumerate(labels, start=1)
            )
            if answer.prediction is None:
                table.writerow(answer.to_json())


def check_table(path: str) -> None:
    """Raise UsageError for a file that is neither .csv nor .jsonl."""
    if not path.endswith(TABLES):
        raise UsageError(f"--out {quoted(path)} should end in {' or '.join(TABLES)}")


def _below(folder: str) -> list[str]:
    pictures = [os.fspath(path) for path in image_files(folder)]
    if not pictures:
        raise UsageError(f"there is no picture in the folder {folder}")
    return pictures


def _square(predictor: Predictor, name: str) -> np.ndarray | str:
    """The square of a picture, or the reason why there is none."""
    try:
        if name != STDIN:
            return predictor.square(read_image_file(name))
        content = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""  # None where it is closed
        if len(content) > MAX_BYTES:
            return f"it has more bytes than the limit of {MAX_BYTES}"
        return predictor.square(content)
    except UnreadableImage as error:
        return str(error)
