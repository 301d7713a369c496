"""One member of a baseline: what it makes of pictures, and how it is fitted, a stage after the other.

Each stage leaves a file, by which a fit that was killed goes on. Shapes: `N` images, `S` their side, `C` classes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.baselines import directory
from alexnet.baselines.choice import errors_of
from alexnet.baselines.directory import BaselineRun, Classifier, Member, Trial
from alexnet.baselines.encoders import Encoder, FisherEncoder, L1Encoder, LlcEncoder
from alexnet.baselines.features import SHARD, Features
from alexnet.baselines.grid import Floats, Pixels, unit_length
from alexnet.baselines.settings import Settings, SiftFv, SparseCoding
from alexnet.baselines.svm import Machines
from alexnet.baselines.vocabulary import learn_atoms, learn_mixture, learn_projection, learn_words
from alexnet.checkpoint import read_header, read_tensors
from alexnet.data.loader import BatchLoader
from alexnet.data.run_data import RunData
from alexnet.errors import CheckpointError, DataError
from alexnet.progress import Progress
from alexnet.records import parse_json, read_record

RACE = 3  # epochs after which only the best penalty goes on
SAMPLED = 4000  # pictures that descriptors are drawn from, at most


@dataclass(frozen=True)
class State:
    """How far the classifier of a member is: penalties still tried, epochs done, trials, the best's place, seconds."""

    penalties: tuple[float, ...]
    epoch: int = 0
    trials: tuple[Trial, ...] = ()
    best: int = 0
    seconds: float = 0.0


@dataclass
class Fitting:
    """The fit of one member: its run, data, name, code and descriptor, and where it computes."""

    run: BaselineRun
    data: RunData
    name: str
    code: str
    descriptor: str
    threads: Executor
    progress: Progress
    unreadable: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """Those of the baseline."""
        return self.run.settings

    @property
    def folder(self) -> Path:
        """What is needed only for this member while it is fitted."""
        return self.run.work / self.name

    @property
    def scores_file(self) -> Path:
        """Its scores of the validation images, for the average."""
        return self.run.work / f"{self.name}-scores.safetensors"

    def fit(self) -> Member:
        """All stages; the features are removed in the end. Raises DataError, CheckpointError and OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        encoder = self.learn()
        train, validation = self.encode(encoder)
        member, classifier = self.classify(train, validation, encoder.length)
        directory.save_arrays(self.run.member_file(self.name), {**encoder.arrays(), **classifier.arrays()})
        return member

    def clean(self) -> None:
        """Remove what only the fit needed, once the member is recorded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def learn(self) -> Encoder:
        """The vocabulary, learned from descriptors of training images."""
        path = self.folder / "vocabulary.safetensors"
        if path.exists():
            arrays = directory.read_arrays(path)
            self.seconds["vocabulary"] = float(arrays.pop("seconds", np.zeros(1, np.float32))[0])
            return directory.encoder_of(self.settings, self.code, self.descriptor, arrays, str(path))
        begun = time.perf_counter()
        self.progress.note(f"{self.name}: learning the vocabulary")
        encoder = learn_encoder(self.settings, self.code, self.sample())
        self.seconds["vocabulary"] = round(time.perf_counter() - begun, 3)
        taken = np.array([self.seconds["vocabulary"]], np.float32)
        directory.save_arrays(path, {**encoder.arrays(), "seconds": taken})
        return encoder

    def sample(self) -> Floats:
        """Descriptors of patches with contrast, drawn evenly from training images: (T, D)."""
        settings, images = self.settings, min(SAMPLED, len(self.data.train))
        each = -(-settings.samples // images)
        rng = np.random.default_rng((settings.seed, 0x5A))
        found: list[Floats] = []
        count = 0
        loader = self.loader(self.data.train, 32, shuffle=True)
        for batch in loader.epoch(1):
            if count >= images:
                break
            described = settings.grid.describe(self.descriptor, batch.images.numpy())
            for picture in described:
                some = picture[rng.permutation(len(picture))[:each]]
                found.append(some[np.abs(some).max(axis=1) > 0])
            count += len(described)
            self.progress.decoding(min(count, images), images)
        self.unreadable |= loader.unreadable
        descriptors = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
        if len(descriptors) < 2:
            raise DataError(f"{self.data.source.spec}: no patch of its training images has contrast for {self.name}")
        return descriptors

    def encode(self, encoder: Encoder) -> tuple[Features, Features]:
        """The features of the training and of the validation images, on disk."""
        both = []
        places = self.settings.grid.places(self.settings.size)

        def encode(images: Pixels) -> Floats:
            return encoder.encode(self.settings.grid.describe(self.descriptor, images), places)

        for split, shuffle in ((self.data.train, True), (self.data.validation, False)):
            features = Features(self.folder, "train" if shuffle else "validation", 2 if self.settings.mirror else 1)
            loader = self.loader(split, SHARD, shuffle)
            if features.finished < loader.steps:
                self.progress.note(f"{self.name}: encoding {len(split):,} images, {encoder.length:,} features each")
                with self.progress.counting(f"encoding {self.name}"):
                    features.write(loader, encode, encoder.length, self.threads, self.progress)
            self.unreadable |= loader.unreadable
            both.append(features)
        self.seconds["encoding"] = round(sum(features.seconds for features in both), 3)
        return both[0], both[1]

    def loader(self, split: Any, count: int, shuffle: bool) -> BatchLoader:
        """Batches of a split's squares."""
        settings = self.settings
        return BatchLoader(
            split,
            settings.size,
            count,
            settings.seed,
            shuffle=shuffle,
            workers=settings.threads or None,
            memory=settings.memory << 20,
        )

    def classify(self, train: Features, validation: Features, length: int) -> tuple[Member, Classifier]:
        """The classifier: the best penalty and epoch on validation of those that are tried."""
        settings, classes = self.settings, len(self.data.source.classes)
        begun = time.perf_counter()
        machines, state, best = self._begin(train, classes, length)
        before = state.seconds
        if state.epoch < settings.epochs:
            self.progress.note(f"{self.name}: fitting {classes} classes for {len(settings.penalties)} penalties")
        with self.progress.counting(f"fitting {self.name}"):
            for epoch in range(state.epoch + 1, settings.epochs + 1):
                for rows, labels in train.batches(settings.batch_size, settings.seed, epoch):
                    machines.step(rows, labels)
                scores, labels = validation_scores(machines, validation)
                state, better = self._judge(state, epoch, scores, labels)
                if better is not None:
                    weights, biases = machines.chosen(better)
                    best = {"weights": weights, "biases": biases, "scores": scores[:, better], "labels": labels}
                if epoch == RACE and len(machines.penalties) > 1:
                    errors = [trial.top1_error for trial in state.trials[-len(state.penalties) :]]
                    machines = machines.keep(int(np.argmin(errors)))
                taken = before + time.perf_counter() - begun
                state = dataclasses.replace(state, penalties=machines.penalties, epoch=epoch, seconds=taken)
                self._save(machines, state, best)
                self.progress.decoding(epoch, settings.epochs)
        directory.save_arrays(self.scores_file, {"scores": best["scores"], "labels": best["labels"]})
        chosen = state.trials[state.best]
        validated = errors_of(best["scores"], best["labels"])
        seconds = {**self.seconds, "svm": round(state.seconds, 3)}
        member = Member(self.name, length, chosen.penalty, chosen.epoch, state.trials, validated, seconds)
        self.progress.note(
            f"{self.name}: validation error {validated.top1_error:.2f} % with λ {chosen.penalty:g} after epoch "
            f"{chosen.epoch}"
        )
        return member, Classifier(best["weights"], best["biases"])

    def _judge(self, state: State, epoch: int, scores: Floats, labels: NDArray[np.int64]) -> tuple[State, int | None]:
        """The state with an epoch's trials, and the place of the penalty that is better than all before."""
        better = None
        for place, penalty in enumerate(state.penalties):
            trial = Trial(penalty, epoch, errors_of(scores[:, place], labels).top1_error)
            trials = (*state.trials, trial)
            if not state.trials or trial.top1_error < state.trials[state.best].top1_error:
                state, better = dataclasses.replace(state, best=len(state.trials)), place
            state = dataclasses.replace(state, trials=trials)
        return state, better

    @property
    def _machines_file(self) -> Path:
        return self.folder / "machines.safetensors"

    def _begin(self, train: Features, classes: int, length: int) -> tuple[Machines, State, dict[str, Any]]:
        """Machines as they were left, or new ones, with the best classifier so far."""
        settings, path = self.settings, self._machines_file
        if not path.exists():
            rows = 0
            total = np.zeros(length, np.float64)
            for shard in train.shards():
                total += shard.rows.total()
                rows += len(shard.labels)
            if not rows:
                raise DataError(f"{self.data.source.spec}: none of its training images can be read")
            centre = (total / rows).astype(np.float32)
            burn_in = rows // settings.batch_size
            machines = Machines.zeros(centre, classes, settings.penalties, settings.rate, burn_in, self.threads.map)
            return machines, State(settings.penalties), {}
        arrays = {name: value.copy() for name, value in read_tensors(path).items()}
        try:
            state = read_record(State, parse_json(read_header(path).texts["state"]), f"{path}: state", CheckpointError)
            numbers = arrays.pop("numbers")
            best = {name.removeprefix("best."): arrays.pop(name) for name in list(arrays) if name.startswith("best.")}
            machines = Machines(
                **arrays,
                penalties=state.penalties,
                rate=settings.rate,
                burn_in=int(numbers[0]),
                steps=int(numbers[1]),
                apply=self.threads.map,
            )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): remove it, and the classifier begins anew") from None
        return machines, state, best

    def _save(self, machines: Machines, state: State, best: dict[str, Any]) -> None:
        names = ("weights", "biases", "mean_weights", "mean_biases", "centre")
        arrays = {name: getattr(machines, name) for name in names}
        arrays["numbers"] = np.array([machines.burn_in, machines.steps], np.int64)
        arrays |= {f"best.{name}": value for name, value in best.items()}
        directory.save_arrays(self._machines_file, arrays, json.dumps(dataclasses.asdict(state)))


def learn_encoder(settings: Settings, code: str, descriptors: Floats) -> Encoder:
    """The encoder of a code, its vocabulary learned from (T, D); smaller where there are few descriptors."""
    projection = learn_projection(descriptors, min(settings.components, descriptors.shape[1]), settings.whiten)
    projected = projection(descriptors)
    most, levels = len(projected) // 2, settings.levels
    if isinstance(settings, SiftFv):
        mixture = learn_mixture(projected, max(1, min(settings.gaussians, most)), settings.seed)
        return FisherEncoder(projection, mixture, levels)
    assert isinstance(settings, SparseCoding)
    if code == "llc":
        words = learn_words(projected, max(settings.neighbours, min(settings.words, most)), settings.seed)
        return LlcEncoder(projection, words, levels, settings.neighbours)
    atoms = learn_atoms(unit_length(projected), min(settings.atoms, most), settings.l1, settings.seed)
    return L1Encoder(projection, atoms, levels, settings.l1, settings.iterations)


def validation_scores(machines: Machines, validation: Features) -> tuple[Floats, NDArray[np.int64]]:
    """Scores (N, L, C) of the validation images, averaged with those of their mirror images, and labels (N,)."""
    scores, labels = [], []
    for shard in validation.shards():
        views = machines.scores(shard.rows)
        count = len(views) // validation.views
        scores.append(views.reshape(validation.views, count, *views.shape[1:]).mean(axis=0))
        labels.append(shard.labels[:count])
    if not scores:
        raise DataError("none of the validation images can be read")
    return np.concatenate(scores), np.concatenate(labels)
