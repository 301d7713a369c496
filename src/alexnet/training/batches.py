"""What a run takes from its data: batches as the network takes them, and the images that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from alexnet.data.augment import Augmentation
from alexnet.data.batch import Batch
from alexnet.data.dataset import Split, too_many_unreadable
from alexnet.data.run_data import RunData, SourceManifest
from alexnet.device import to_device
from alexnet.errors import TrainingError, quoted
from alexnet.progress import Progress, quiet
from alexnet.run import Run
from alexnet.training.feed import Feed
from alexnet.training.parallel import World
from alexnet.training.task import Task


class Batches:
    """The training and validation batches of a run."""

    def __init__(self, run: Run, data: RunData, device: torch.device, progress: Progress, world: World) -> None:
        """Brings the run's source.json and statistics up to date."""
        self.data, self.progress, self.world = data, progress, world
        self.manifest = SourceManifest(run, data) if world.writes else None
        self.augmentation = Augmentation(data.config, data.statistics(run.statistics_file, progress), device)
        self.feed = Feed(device)
        share = {"rank": world.rank, "world_size": world.size}
        self.loader = data.loader(
            data.train,
            progress,
            crop=self.augmentation.crop,
            draws=self.augmentation.draws,
            pin=device.type == "cuda",
            **share,
        )
        self.validation = data.loader(data.validation, quiet, shuffle=False, **share)
        self.told = 0  # how many unreadable images the screen was told of
        self.whole = False  # whether every training image was tried
        for note in data.source.notes if world.writes else ():
            progress.warn(note)

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.loader.steps

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from step `start` on. Raises TrainingError where too many cannot be read."""
        for batch in self.loader.epoch(epoch, start):
            self._check()
            yield batch
        self._check()
        self.whole = True
        if start == 0 and self.manifest:  # every image was tried, so what an earlier process could not read is known
            self.manifest.before = {}

    def prepared(self, batch: Batch, task: Task) -> tuple[Tensor, ...]:
        """What `Step` takes: inputs and targets as `task` makes them of the batch, and positions, all on the device.

        Images are cut, mirrored and coloured. Releases the batch.
        """

        def make() -> tuple[Tensor, ...]:
            device = self.augmentation.device
            images = self.augmentation.training(batch)
            inputs, targets = task.prepare(images, to_device(batch.labels, device))
            positions = np.tile(batch.positions, len(inputs) // len(images))
            return inputs, targets, to_device(torch.from_numpy(positions), device)

        return self.feed.bring(make)

    def note_unreadable(self) -> None:
        """Bring source.json's list of unreadable images up to date; say their count first and last."""
        training, validation = (self.world.union(loader.unreadable) for loader in (self.loader, self.validation))
        if self.manifest:
            self.manifest.write(training | validation)
        count = len(training) + len(validation)
        if count > self.told and (self.whole or not self.told):
            self.told = count
            parts = (("training", self.data.train, training), ("validation", self.data.validation, validation))
            said = "; ".join(_describe(*part) for part in parts if part[2])
            self.progress.note(f"{said}; left out and listed in source.json")

    def _check(self) -> None:
        unreadable, total = self.world.union(self.loader.unreadable), len(self.data.train)
        if too_many_unreadable(len(unreadable), total):
            if self.manifest:
                self.manifest.write(unreadable)
            raise TrainingError(
                f"{_describe('training', self.data.train, unreadable)}; more than 1 % and more than 20, or all, so "
                "training stops: mend or remove them"
            )


def _describe(kind: str, split: Split, unreadable: dict[str, str]) -> str:
    first, why = min(unreadable.copy().items())
    return f"{len(unreadable)} of {len(split)} {kind} images cannot be read (first: {quoted(first)}: {why})"
