"""What a run takes from its data: batches as the network takes them, and the images that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alexnet.data.augment import Augmentation
from alexnet.data.batch import Batch
from alexnet.data.run_data import RunData, SourceManifest
from alexnet.errors import TrainingError
from alexnet.progress import Progress, quiet
from alexnet.run import Run
from alexnet.training.parallel import World

UNREADABLE_LIMIT = 0.01  # share of the training images


class Batches:
    """The training and validation batches of a run."""

    def __init__(self, run: Run, data: RunData, device: torch.device, progress: Progress, world: World) -> None:
        """Brings the run's source.json and statistics up to date."""
        self.data, self.progress, self.world = data, progress, world
        self.manifest = SourceManifest(run, data) if world.writes else None
        self.augmentation = Augmentation(data.config, data.statistics(run.statistics_file, progress), device)
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
        self.noted = False

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
        if start == 0 and self.manifest:  # every image was tried, so what an earlier process could not read is known
            self.manifest.before = {}

    def inputs(self, batch: Batch) -> Tensor:
        """A batch's images cut, mirrored and coloured: float (N, 3, C, C) on the device. Releases the batch."""
        return self.augmentation.training(batch)

    def note_unreadable(self) -> None:
        """Bring source.json's list of unreadable images up to date, and mention them once."""
        if self.manifest:
            self.manifest.write(self.world.union(self.loader.unreadable | self.validation.unreadable))
        if self.loader.unreadable and not self.noted:
            self.noted = True
            self.progress.note(f"{self._describe()}; they are left out and listed in source.json")

    def _check(self) -> None:
        if len(self.world.union(self.loader.unreadable)) > UNREADABLE_LIMIT * len(self.data.train):
            if self.manifest:
                self.manifest.write(self.loader.unreadable)
            raise TrainingError(
                f"{self._describe()}; more than {UNREADABLE_LIMIT:.0%}, so training stops: mend or remove them"
            )

    def _describe(self) -> str:
        unreadable = self.world.union(self.loader.unreadable)
        first, why = min(unreadable.copy().items())
        return f"{len(unreadable)} of {len(self.data.train)} training images cannot be read (first: {first}: {why})"
