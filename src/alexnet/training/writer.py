"""All that a training writes: metrics, checkpoints and trackers, from the one process that may."""

from __future__ import annotations

import json
import os
from typing import Any

from alexnet.checkpoint import Checkpoint, save_checkpoint
from alexnet.run import Run
from alexnet.training.parallel import World
from alexnet.training.trackers import Trackers


class RunWriter:
    """Writes into a run's directory; in every process but rank 0 it does nothing."""

    def __init__(self, run: Run, trackers: Trackers, world: World) -> None:
        self.run, self.trackers, self.active = run, trackers, world.writes

    def open(self, metrics_bytes: int, steps: int) -> None:
        """Cut off the lines of metrics that came after the checkpoint, and open the trackers at its step."""
        if not self.active:
            return
        if self.run.metrics_file.exists():
            with open(self.run.metrics_file, "ab") as file:
                file.truncate(metrics_bytes)
        self.trackers.open(self.run.path, self.run.config.to_dict(), steps)

    def log(self, kind: str, epoch: int, steps: int, values: dict[str, Any]) -> int:
        """Add a line to metrics.jsonl and return the file's length in bytes."""
        if not self.active:
            return 0
        line = json.dumps({"kind": kind, "epoch": epoch, "step": steps, **values}) + "\n"
        with open(self.run.metrics_file, "ab") as file:
            file.write(line.encode())
            length = file.tell()
        self.trackers.log(kind, values, steps)
        return length

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint `name`. Raises OSError with the old one kept."""
        if self.active:
            if self.run.metrics_file.exists():  # so that a checkpoint never counts on lines that a power cut takes
                with open(self.run.metrics_file, "ab") as file:
                    os.fsync(file.fileno())
            save_checkpoint(self.run.checkpoints / f"{name}.safetensors", checkpoint)

    def close(self) -> None:
        """End the trackers."""
        if self.active:
            self.trackers.close()
