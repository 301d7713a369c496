"""A fitted baseline as a predictor: NumPy alone, and OpenCV where a member describes patches by SIFT.

Shapes: `N` images, `S` side of a square, `C` classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines import directory, sift
from alexnet.baselines.choice import probabilities
from alexnet.baselines.directory import BaselineRun, Classifier
from alexnet.baselines.encoders import Encoder
from alexnet.baselines.grid import Floats
from alexnet.baselines.settings import members
from alexnet.data.readers.words import checked_words
from alexnet.device import cpu_count
from alexnet.errors import RunError, UsageError, quoted, suggestion
from alexnet.predictor import Images, Predictor
from alexnet.run import BASELINE

TOGETHER = 32  # images that a thread takes at once
SCORES = "scores"  # the tap of the average


@dataclass(frozen=True)
class Part:
    """A member ready to predict."""

    name: str
    descriptor: str
    encoder: Encoder
    classifier: Classifier


class BaselinePredictor(Predictor):
    """Probabilities of a baseline: the softmax of its members' mean scores over the temperature.

    A mirrored picture counts as much as the picture where the baseline learned from mirror images. The taps are each
    member's features under its name, and `scores`.
    """

    batch_size = 256

    def __init__(self, run: BaselineRun, parts: tuple[Part, ...]) -> None:
        """`load_baseline` makes one of a directory's name."""
        self.run: BaselineRun = run
        self.parts, self.settings = parts, run.settings
        source = run.source
        self.classes = tuple(source["classes"])
        self.words = checked_words(source.get("words"), len(self.classes))
        self.size, self.exif_rotate = run.settings.size, run.settings.exif_rotate
        self.places = run.settings.grid.places(self.size)

    @cached_property
    def description(self) -> dict[str, Any]:  # type: ignore[override]
        """Which weights predict; see `Predictor`. The sha256 is that of the members' arrays."""
        digest = hashlib.sha256()
        for part in self.parts:
            for name, value in sorted({**part.encoder.arrays(), **part.classifier.arrays()}.items()):
                digest.update(f"{part.name} {name}".encode())
                digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        which = {"run": str(self.run.path), "checkpoint": None, "step": None, "sha256": digest.hexdigest()}
        return {**which, "backend": "numpy", "precision": "float32", "baseline": self.run.record.kind}

    def probabilities(self, images: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
        """As `Predictor.probabilities`; a baseline sees the whole square, so there is one view."""
        if views != 1:
            raise UsageError(f"--views {views}: a baseline sees the whole square; give --views 1")
        images = self.check_squares(images)
        parts = [images[first : first + TOGETHER] for first in range(0, len(images), TOGETHER)]
        with ThreadPoolExecutor(min(cpu_count(), max(1, len(parts)))) as pool:
            scores = list(pool.map(self._scores, parts))
        empty = [np.zeros((0, len(self.classes)), np.float32)]
        return probabilities(np.concatenate(scores or empty), self.run.record.temperature)

    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """As `Predictor.taps`: each member's name → its features (N, D), and `scores` → (N, C)."""
        known = [*(part.name for part in self.parts), SCORES]
        wanted = known if names is None else list(names)
        for name in wanted:
            if name not in known:
                hint = suggestion(name, known)
                raise UsageError(f"there is no tap {quoted(name)}, only {', '.join(known)}{hint}")
        squares = self.check_squares(self.squares(images))
        found = {part.name: self._features(part, squares) for part in self.parts if part.name in wanted}
        if SCORES in wanted:
            found[SCORES] = self._scores(squares)
        return found

    def _features(self, part: Part, images: NDArray[np.uint8]) -> Floats:
        if not len(images):
            return np.zeros((0, part.encoder.length), np.float32)
        return part.encoder.encode(self.settings.grid.describe(part.descriptor, images), self.places)

    def _scores(self, images: NDArray[np.uint8]) -> Floats:
        """The mean of the members' scores, and of mirror images where they count: (N, C)."""
        seen = [images, np.ascontiguousarray(images[:, :, ::-1])][: 2 if self.settings.mirror else 1]
        total = np.zeros((len(images), len(self.classes)), np.float32)
        for part in self.parts:
            for view in seen:
                total += part.classifier(self._features(part, view))
        return total / np.float32(len(self.parts) * len(seen))


def load_baseline(path: str | Path) -> BaselinePredictor:
    """The predictor of a directory that `alexnet baseline` wrote.

    Raises RunError and CheckpointError naming the file that is missing, damaged or of another baseline, MissingLibrary
    where SIFT needs OpenCV.
    """
    run = BaselineRun.open(path)
    if not run.record.finished:
        raise RunError(f"{path} is not finished: go on with `alexnet baseline {run.record.kind} --resume {path}`")
    named = members(run.settings)
    if [member.name for member in run.record.members] != [name for name, _, _ in named]:
        raise RunError(f"{run.path / BASELINE}: its members are not those of its settings")
    if any(descriptor == "sift" for _, _, descriptor in named):
        sift.check_library()
    parts = []
    for name, code, descriptor in named:
        file = run.member_file(name)
        arrays = directory.read_arrays(file)
        encoder = directory.encoder_of(run.settings, code, descriptor, arrays, str(file))
        classifier = directory.classifier_of(arrays, encoder.length, len(run.classes), str(file))
        parts.append(Part(name, descriptor, encoder, classifier))
    return BaselinePredictor(run, tuple(parts))
