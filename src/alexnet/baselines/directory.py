"""The directory of a baseline: what is in it, under which names, and how it is read and written.

```
baseline.json        kind, settings, what was chosen on validation, errors in percent, seconds of every stage
source.json          classes, sizes of the splits, what could not be read
environment.json     versions, hardware, commit, command
members/             vocabulary and classifier of each member, one safetensors file each
evaluations.jsonl    what `alexnet evaluate` measured
work/                while it is fitted: vocabularies, features, unfinished classifiers
.lock                held while a process fits
```
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet import presets
from alexnet.baselines.encoders import Encoder, FisherEncoder, L1Encoder, LlcEncoder, Projection
from alexnet.baselines.fisher import Mixture
from alexnet.baselines.grid import Floats
from alexnet.baselines.settings import DESCRIPTORS, Settings, SiftFv, SparseCoding, settings_of
from alexnet.checkpoint import check_values, read_tensors
from alexnet.config import Config, Data
from alexnet.errors import CheckpointError, RunBusy, RunError, UsageError
from alexnet.files import atomic_write, lock, write_json
from alexnet.records import read_json, read_record
from alexnet.run import BASELINE, SOURCE, Run

FORMAT = 1
MAX_BYTES = 16 << 20  # of baseline.json
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Errors:
    """Errors in percent on `count` validation images; `loss` in nats, where there are probabilities."""

    top1_error: float
    top5_error: float | None
    count: int
    loss: float | None = None


@dataclass(frozen=True)
class Trial:
    """The validation error of one penalty after an epoch."""

    penalty: float
    epoch: int
    top1_error: float


@dataclass(frozen=True)
class Member:
    """One of the models that are averaged: what was tried on validation, what stays, and the seconds it took."""

    name: str
    features: int
    penalty: float
    epoch: int
    trials: tuple[Trial, ...]
    validation: Errors
    seconds: dict[str, float]


@dataclass(frozen=True)
class Record:
    """The content of baseline.json; `temperature` and `validation` are those of the average, once it is `finished`."""

    kind: str
    settings: dict[str, Any]
    format: int = FORMAT
    finished: bool = False
    members: tuple[Member, ...] = ()
    temperature: float = 1.0
    validation: Errors | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class BaselineRun(Run):
    """The directory as a run: what `alexnet evaluate` asks of one is its images and where results are kept."""

    record: Record = field(default_factory=lambda: Record("sparse-coding", {}))
    settings: Settings = field(default_factory=SparseCoding)

    @classmethod
    def open(cls, path: str | Path) -> BaselineRun:
        """An existing directory, finished or not. Raises RunError where a file of it is none of its own or damaged."""
        path = Path(path)
        _check_kinds(path)
        file = path / BASELINE
        try:
            value = read_json(file, MAX_BYTES)
        except FileNotFoundError:
            raise RunError(f"{path} is not a baseline: it has no {BASELINE}") from None
        if value.get("format", FORMAT) != FORMAT:
            raise RunError(f"{file}: its format is not {FORMAT}: it was written by another version of alexnet")
        record = read_record(Record, value, f"{file}: baseline")
        try:
            settings = settings_of(record.kind, record.settings)
        except UsageError as error:
            raise RunError(f"{file}: {error}") from None
        if record.finished and (record.temperature <= 0 or not record.members or record.validation is None):
            raise RunError(f"{file}: it is finished, but has no members, no errors or no temperature above 0")
        return cls(path, record, settings)

    @cached_property
    def config(self) -> Config:
        """Settings of the images alone; those of a network mean nothing here."""
        source = self._json("source.json", SOURCE)
        return images_config(self.settings, source["source"], len(source["classes"]))

    def held(self) -> AbstractContextManager[None]:
        """Hold the directory while it is fitted. Raises RunError where another process has it."""
        refusal = RunBusy(f"{self.path} is being fitted by another process; wait for it or stop it")
        return lock(self.path / ".lock", refusal)

    def write(self, **changes: Any) -> BaselineRun:
        """Write baseline.json with other values."""
        record = dataclasses.replace(self.record, **changes)
        write_json(self.path / BASELINE, record.to_json())
        return dataclasses.replace(self, record=record)

    @property
    def work(self) -> Path:
        """What is needed only while it is fitted."""
        return self.path / "work"

    def member_file(self, name: str) -> Path:
        """Vocabulary and classifier of a member."""
        return self.path / "members" / f"{name}.safetensors"


def is_baseline(path: str | Path) -> bool:
    """Whether there is a baseline, finished or not."""
    return (Path(path) / BASELINE).is_file()


def images_config(settings: Settings, source: str, classes: int) -> Config:
    """How the images are read, as the config of a run."""
    data = Data(
        source=source,
        size=settings.size,
        exif_rotate=settings.exif_rotate,
        validation=settings.validation,
        workers=settings.threads,
        memory=settings.memory,
    )
    return dataclasses.replace(presets.preset("digits", classes), preset="baseline", data=data)


def save_arrays(path: Path, arrays: Arrays, state: str = "{}") -> None:
    """Replace a safetensors file; `state` is a JSON text in its header. Raises OSError with the old one untouched."""
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, metadata={"state": state})
    with atomic_write(path) as file:
        file.write(content)


@dataclass(frozen=True)
class Classifier:
    """Linear scores of features: `weights` (D, C), `biases` (C,)."""

    weights: Floats
    biases: Floats

    def __call__(self, features: Floats) -> Floats:
        """(N, D) → (N, C)."""
        return features @ self.weights + self.biases

    def arrays(self) -> Arrays:
        """As they are kept in a file."""
        return {"classifier.weights": self.weights, "classifier.biases": self.biases}


def read_arrays(path: Path) -> dict[str, Floats]:
    """The arrays of a vocabulary or member, all float32 and finite. Raises CheckpointError naming what is wrong."""
    arrays = read_tensors(path)
    for name, value in arrays.items():
        if value.dtype != np.float32:
            raise CheckpointError(f"{path}: {name} is {value.dtype}, here float32")
    check_values(arrays, str(path))
    return arrays


def encoder_of(settings: Settings, code: str, descriptor: str, arrays: Arrays, origin: str) -> Encoder:
    """An encoder from its arrays. Raises CheckpointError naming the first that is missing or of another shape."""
    length = DESCRIPTORS[descriptor].length
    basis = _array(arrays, "projection.basis", (length, None), origin)
    projection = Projection(_array(arrays, "projection.mean", (length,), origin), basis)
    kept, levels = basis.shape[1], settings.levels
    if code == "fisher":
        assert isinstance(settings, SiftFv)
        means = _array(arrays, "mixture.means", (None, kept), origin)
        weights = _array(arrays, "mixture.weights", means.shape[:1], origin)
        variances = _array(arrays, "mixture.variances", means.shape, origin)
        if not (weights.min(initial=1) > 0 and variances.min(initial=1) > 0):
            raise CheckpointError(f"{origin}: weights and variances of a mixture should be above 0")
        return FisherEncoder(projection, Mixture(weights, means, variances), levels)
    assert isinstance(settings, SparseCoding)
    if code == "llc":
        words = _array(arrays, "words", (None, kept), origin)
        if len(words) < settings.neighbours:
            raise CheckpointError(f"{origin}: {len(words)} words are fewer than {settings.neighbours} neighbours")
        return LlcEncoder(projection, words, levels, settings.neighbours)
    atoms = _array(arrays, "atoms", (None, kept), origin)
    return L1Encoder(projection, atoms, levels, settings.l1, settings.iterations)


def classifier_of(arrays: Arrays, features: int, classes: int, origin: str) -> Classifier:
    """A classifier from its arrays. Raises CheckpointError as `encoder_of` does."""
    return Classifier(
        _array(arrays, "classifier.weights", (features, classes), origin),
        _array(arrays, "classifier.biases", (classes,), origin),
    )


def _array(arrays: Arrays, name: str, shape: tuple[int | None, ...], origin: str) -> Floats:
    """One array, whose shape must be as given where it is not None. Raises CheckpointError."""
    if name not in arrays:
        raise CheckpointError(f"{origin} is damaged: it has no {name}")
    found = arrays[name].shape
    fits = len(found) == len(shape) and all(b in (None, a) and a > 0 for a, b in zip(found, shape, strict=True))
    if not fits:
        wanted = " × ".join("any" if side is None else str(side) for side in shape)
        raise CheckpointError(f"{origin}: {name} is {found}, here {wanted}")
    return arrays[name]


def _check_kinds(path: Path) -> None:
    """Raise RunError for a file that is a link, a pipe or a folder, or a folder that is none."""
    files = (BASELINE, "source.json", "environment.json", "evaluations.jsonl", ".lock")
    for names, wanted, what in ((files, stat.S_ISREG, "file"), (("members", "work"), stat.S_ISDIR, "folder")):
        for name in names:
            try:
                mode = (path / name).lstat().st_mode
            except OSError:
                continue
            if not wanted(mode):
                raise RunError(f"{path / name} should be a plain {what}, of the baseline itself")
