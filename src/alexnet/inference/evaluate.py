"""Measure predictors as the paper did: top-1 and top-5 error, one view or ten, one net or the average of several.

Sections 2 and 6 of the paper. Shapes: `M` members of an ensemble, `N` images, `C` classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet import presets
from alexnet.data.dataset import Source, Split
from alexnet.data.loader import BatchLoader
from alexnet.data.readers.open import open_source
from alexnet.data.readers.words import wnid
from alexnet.data.run_data import missing_split, open_known_source, open_run_data, place_of
from alexnet.errors import DataError, UsageError, quoted, suggestion
from alexnet.evaluation.measure import check_readable, measure_split
from alexnet.evaluation.metrics import Measurement
from alexnet.inference.ensemble import Ensemble, search_weights
from alexnet.inference.load import Model, load
from alexnet.predictor import Predictor
from alexnet.progress import Progress, quiet

SEARCHED = "val"  # the split on which an ensemble's weights are searched


@dataclass(frozen=True, kw_only=True)
class Evaluation(Measurement):
    """A measurement, and what was measured on what.

    `models` are the descriptions of the predictors averaged (run, checkpoint, step, sha256 of the weights, backend,
    precision), `weights` their weights where they are not equal. `path` is the absolute path of the images where they
    have one, `data_changed` says in words what of them is not as it was when the run began.
    """

    views: int
    data: str
    split: str
    models: tuple[dict[str, Any], ...]
    weights: tuple[float, ...] | None = None
    path: str | None = None
    data_changed: str | None = None

    @property
    def runs(self) -> list[str]:
        """The models' names."""
        return [str(model.get("run")) for model in self.models]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: the measurement's fields, views, data, split, runs and models, and weights that differ."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"runs": self.runs, "models": [dict(model) for model in self.models]}
        weights = values.pop("weights")
        values = {name: value for name, value in values.items() if value or name not in ("path", "data_changed")}
        return values if weights is None else {**values, "weights": [round(weight, 6) for weight in weights]}


def evaluate(
    models: Model | Sequence[Model],
    data: str | None = None,
    split: str | None = None,
    views: int = 1,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    weights: str | Sequence[float] | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """Errors (percent) and loss of a model, or of the averaged softmax outputs of several.

    `models` are predictors or what `load` takes; `checkpoint`, `device`, `backend` and `precision` are those of `load`.
    `data` is a source with the models' classes (default: the first run's own), `split` one of its splits (default:
    test where there is one, else val). `weights` are the models' in the average: equal by default, or "search" for
    those with the lowest error on the source's val split. The loss is the cross-entropy of the averaged outputs.
    Raises UsageError and its kinds.
    """
    named = [models] if isinstance(models, str | Path | Predictor) else list(models)
    if not named:
        raise UsageError("no model is given; name at least one")
    if isinstance(weights, str) and weights != "search":
        raise UsageError(f"weights {weights!r} should be numbers, one per model, or search")
    numbers = None if isinstance(weights, str) else weights
    options = {"checkpoint": checkpoint, "device": device, "backend": backend, "precision": precision}
    predictor = load(*named, **options, weights=numbers)  # type: ignore[arg-type]
    target = _Target(predictor, data, split, progress)
    if weights == "search" and isinstance(predictor, Ensemble):
        predictor = _searched(predictor, data, views, progress, target.name)
    with progress.counting("decoding"):
        result = measure_split(
            target.loader,
            lambda images: torch.from_numpy(log_probabilities(predictor, images.numpy(), views)),
            lambda scores, labels: -scores.gather(1, labels[:, None])[:, 0],
            len(predictor.classes),
            target.labels,
            majority=_majority(predictor),
        )
    described = predictor.description
    return Evaluation(
        **dataclasses.asdict(result),
        views=views,
        data=target.source.spec,
        split=target.name,
        models=tuple(described.get("members", [described])),
        weights=predictor.weights if isinstance(predictor, Ensemble) and weights is not None else None,
        path=target.path,
        data_changed=target.changed or None,
    )


def log_probabilities(predictor: Predictor, images: NDArray[np.uint8], views: int = 1) -> NDArray[np.float32]:
    """The logarithms of a predictor's probabilities, (N, C).

    A probability that underflowed to 0 is a large loss, not an infinite one.
    """
    return np.log(np.maximum(predictor.probabilities(images, views), np.finfo(np.float32).tiny))


def _majority(predictor: Predictor) -> int | None:
    """The most frequent class of the images that a predictor's run was trained on, where it is known."""
    name = predictor.run.source.get("majority") if predictor.run else None
    return predictor.classes.index(name) if name in predictor.classes else None


def _searched(ensemble: Ensemble, data: str | None, views: int, progress: Progress, measured: str) -> Ensemble:
    """The ensemble with the weights that are best on validation images, each decoded once."""
    if measured == SEARCHED:
        progress.warn(f"the weights are searched on the {SEARCHED} split, the one they are measured on")
    validation = _Target(ensemble, data, SEARCHED, progress)
    outputs: list[list[NDArray[np.float32]]] = [[] for _ in ensemble.members]
    positions = []
    with progress.counting("decoding"):
        for batch in validation.loader.epoch(0):
            if len(batch.positions):
                positions.append(batch.positions.copy())
                for member, kept in zip(ensemble.members, outputs, strict=True):
                    kept.append(member.probabilities(batch.images.numpy(), views))
    check_readable(validation.loader, len(positions))
    labels = validation.labels[np.concatenate(positions)]
    weights = search_weights([np.concatenate(parts) for parts in outputs], labels)
    progress.note(f"weights searched on {len(labels):,} images: {', '.join(f'{weight:.3f}' for weight in weights)}")
    return Ensemble(ensemble.members, weights)


class _Target:
    """The split that a predictor is measured on: its images as the predictor takes them, its labels among its classes.

    Attributes: `source`, `path` (the images' absolute path or None), `changed` (what of them is not as it was when the
    run began), `name` (of the split), `loader`, `labels` (int64 (N,), by position in the split).
    """

    def __init__(self, predictor: Predictor, data: str | None, split: str | None, progress: Progress) -> None:
        # Another source is opened as the run's would be; without a run, any preset's settings will do.
        config = predictor.run.config if predictor.run else presets.preset("digits")
        self.changed = ""
        if data is not None:
            self.source, self.path = open_source(str(data)), place_of(str(data))
        elif predictor.run is None:
            raise UsageError("the model is not a run that knows its images; name them with --data")
        else:
            self.source, self.path, self.changed = open_known_source(predictor.run)
        self.name = split or ("test" if "test" in self.source.splits else "val")
        chosen: Split
        if "train" in self.source.splits:  # a val split may have to be held out of it
            chosen = open_run_data(config, self.source).split(self.name)
        elif self.name in self.source.splits:
            chosen = self.source.splits[self.name]
        else:
            raise missing_split(self.source, self.name)
        self.labels = match_labels(chosen.labels, self.source, predictor.classes)
        if self.changed:
            progress.warn(f"{self.source.spec} is not as it was when the run began: {self.changed}")
        self.loader = BatchLoader(
            chosen,
            predictor.size,
            predictor.batch_size,
            seed=0,
            shuffle=False,
            workers=config.data.workers or None,
            memory=config.data.memory << 20,
            progress=progress.decoding,
            exif_rotate=predictor.exif_rotate,
        )


def match_labels(labels: np.ndarray, source: Source, classes: Sequence[str]) -> np.ndarray:
    """A source's labels, int64 (N,), as positions among a predictor's classes, by name.

    ImageNet's classes go by their wnid, whether words follow it or not; where a predictor has the thousand classes by
    words alone, as torchvision's do, they are in the order of the wnids. Raises DataError for a class that the
    predictor lacks.
    """
    names = [wnid(name) or name for name in source.classes]
    known = [wnid(name) or name for name in classes]
    if names == known:
        return labels
    if len(names) == len(known) == 1000 and all(map(wnid, names)) and not any(map(wnid, known)):
        return np.argsort(np.argsort(np.array(names)))[labels].astype(np.int64)
    place = {name: i for i, name in enumerate(known)}
    for name, title in zip(names, source.classes, strict=True):
        if name not in place:
            raise DataError(
                f"{source.spec} has a class {quoted(title)} that the model was not trained on"
                f"{suggestion(title, classes)}; name images of its classes with --data"
            )
    return np.array([place[name] for name in names], dtype=np.int64)[labels]
