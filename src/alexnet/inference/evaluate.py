"""Measure runs as the paper did: top-1 and top-5 error, one view or ten, one net or the average of several (§2, §6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.config import Config
from alexnet.data.dataset import Source, Split
from alexnet.data.loader import BatchLoader
from alexnet.data.readers.ilsvrc import wnid
from alexnet.data.readers.open import open_source
from alexnet.data.run_data import missing_split, open_run_data
from alexnet.errors import DataError, RunError, nearest
from alexnet.evaluation.metrics import ErrorCounter
from alexnet.inference.predictor import Classifier, load
from alexnet.progress import Progress, quiet


def evaluate(
    runs: str | Path | Sequence[str | Path],
    data: str | None = None,
    split: str | None = None,
    views: int = 1,
    checkpoint: str | None = None,
    device: str = "auto",
    progress: Progress = quiet,
    engine: str = "torch",
    precision: str | None = None,
) -> dict[str, Any]:
    """Errors (percent) of a run, or of the averaged softmax outputs of several.

    `data` is a source with the runs' classes (default: the first run's own), `split` one of its splits (default: test
    where there is one, else val). Returns `{"top1_error", "top5_error", "loss", "count", "views", "data", "split",
    "runs", "unreadable"}`; top5_error is None up to 5 classes. `engine` and `precision` are those of `engines.load`.
    Raises RunError, DataError, CheckpointError or EngineError.
    """
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        raise RunError("no run is given; name at least one run directory")
    nets = [_opened(path, checkpoint, device, engine, precision) for path in paths]
    first = nets[0]
    for net in nets[1:]:
        if net.classes != first.classes:
            raise RunError(
                f"{net.run.path} has other classes than {first.run.path}; only runs on the same classes can be averaged"
            )
    config = first.config
    if data is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=data))
    source, chosen, name = _choose(config, split)
    labels = _labels(chosen.labels, source.classes, first.classes, source.spec)
    total = torch.zeros(len(chosen), len(first.classes))
    readable = torch.ones(len(chosen), dtype=torch.bool)
    for net in nets:
        seen = torch.zeros(len(chosen), dtype=torch.bool)
        feed = BatchLoader(
            chosen,
            net.config.data.size,
            net.config.train.batch_size,
            seed=0,
            shuffle=False,
            workers=config.data.workers or None,
            memory=config.data.memory << 20,
            progress=progress.decoding,
            exif_rotate=net.config.data.exif_rotate,
        )
        with progress.counting("decoding"):
            for batch in feed.epoch(0):
                if not len(batch.labels):
                    continue
                where = torch.from_numpy(batch.positions)
                total[where] += net.probabilities(batch.images, views)
                seen[where] = True
        readable &= seen
    if not readable.any():
        raise DataError(f"{source.spec}: none of the {len(chosen)} images of its {name} split can be read")
    counter = ErrorCounter(len(first.classes))
    # A probability that underflowed to 0 is a large loss, not an infinite one.
    smallest = torch.finfo(torch.float32).tiny
    counter.add((total[readable] / len(nets)).clamp_min(smallest).log(), torch.from_numpy(labels)[readable])
    return {
        **counter.result(unreadable=int((~readable).sum())).to_json(),
        "views": views,
        "data": source.spec,
        "split": name,
        "runs": [str(path) for path in paths],
    }


def _choose(config: Config, name: str | None) -> tuple[Source, Split, str]:
    """The source, and its split `name` (default: test where there is one, else val). Raises DataError without it."""
    source = open_source(config.data.source)
    name = name or ("test" if "test" in source.splits else "val")
    if "train" in source.splits:  # a val split may have to be held out of it
        return source, open_run_data(config, source).split(name), name
    if name not in source.splits:
        raise missing_split(source, name)
    return source, source.splits[name], name


def _opened(path: str | Path, checkpoint: str | None, device: str, engine: str, precision: str | None) -> Classifier:
    if engine == "torch" and precision is None:
        return load(path, checkpoint, device)
    from alexnet.inference import backends as engines

    if precision == "int8" and engine == "torch":
        engine = "auto"
    return engines.load(path, checkpoint, device, engine, precision)


def _labels(labels: np.ndarray, theirs: Sequence[str], ours: Sequence[str], spec: str) -> np.ndarray:
    """A source's labels as positions among a run's classes, by name. Raises DataError for a class the run lacks."""
    if list(theirs) == list(ours):
        return labels
    # ImageNet's classes go by their wnid, whether words follow it or not.
    place = {wnid(name) or name: i for i, name in enumerate(ours)}
    for name in theirs:
        if (wnid(name) or name) not in place:
            raise DataError(f"{spec} has a class {name!r} that the run was not trained on{nearest(name, ours)}")
    return np.array([place[wnid(name) or name] for name in theirs], dtype=np.int64)[labels]
