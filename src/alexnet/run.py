"""A run directory: what is in it, under which names, and how it is read and written.

```
config.json          every setting, and the network layer by layer
environment.json     versions, hardware, commit, command
source.json          classes, sizes of the splits, what could not be read
init.json            which weights came from another model, where some did
statistics.npz       mean image and PCA of the training set
metrics.jsonl        a line per log interval, epoch and validation, errors in percent
evaluations.jsonl    what `alexnet evaluate` measured, by data, split, views and weights, errors in percent
checkpoints/         last, previous and best, one safetensors file each
trackers.json  tensorboard/  report.html  figures/
.lock                held while a process trains
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alexnet.config import Config
from alexnet.environment import environment
from alexnet.errors import RunError
from alexnet.files import lock, write_json, write_json_lines


@dataclass(frozen=True)
class Run:
    """The files of one run."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: Config, command: list[str] | None = None) -> Run:
        """Make the directory with its config and environment. Raises RunError where something is there already."""
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; choose another --out")
        if (path / "config.json").exists():
            raise RunError(f"{path} exists; go on with `--resume {path}` or choose another --out")
        begun = {"checkpoints", "environment.json", "environment.json.part", "config.json.part"}  # by a run killed here
        if path.exists() and {entry.name for entry in path.iterdir()} - begun:
            raise RunError(f"{path} exists and is not a run; choose another --out")
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        write_json(run.path / "environment.json", environment(command))
        write_json(run.path / "config.json", config.to_dict())
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run. Raises RunError where there is none."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is not a run directory: it is not a folder")
        if not path.is_dir():
            raise RunError(f"{path}: there is no such run directory; `alexnet train --out {path}` makes one")
        if not (path / "config.json").is_file():
            raise RunError(f"{path} is not a run directory: it has no config.json")
        return cls(path)

    def held(self) -> AbstractContextManager[None]:
        """Hold the run for this process while it trains. Raises RunError where another process has it."""
        refusal = RunError(f"{self.path} is being trained by another process; wait for it or stop it")
        return lock(self.path / ".lock", refusal)

    @cached_property
    def config(self) -> Config:
        """The settings of the run. Raises RunError naming the field that cannot be read."""
        try:
            return Config.from_dict(json.loads((self.path / "config.json").read_text()))
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path / 'config.json'} cannot be read: {error}") from None

    @cached_property
    def source(self) -> dict[str, Any]:
        """`classes` and `splits` (name → count) as they were when the run began."""
        return self._json("source.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, commit and command of the run."""
        return self._json("environment.json")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text())
            if not isinstance(value, dict):
                raise RunError(f"{self.path / name} should hold an object in braces")
            return value
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {name}; the run did not get as far, go on with --resume") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{self.path / name} is not JSON: {error}") from None

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        return self.source["classes"]

    def metrics(self, kind: str | None = None, length: int | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one kind when given: `train`, `epoch` or `validation`; of its first bytes."""
        lines = _read_lines(self.metrics_file, ("kind", "epoch", "step"), length)
        return [line for line in lines if kind in (None, line["kind"])]

    def evaluations(self) -> list[dict[str, Any]]:
        """What `alexnet evaluate` measured of this run, the newest last."""
        return _read_lines(self.path / "evaluations.jsonl", ("data", "split", "views"))

    def record_evaluation(self, entry: Mapping[str, Any]) -> None:
        """Keep a measurement of this run alone, in place of an earlier one of the same weights on the same images.

        `entry` is `Evaluation.to_json()`: those that differ in data, split, views, or in checkpoint, backend,
        precision or weights stay beside each other.
        """
        kept = [other for other in self.evaluations() if _measured(other) != _measured(entry)]
        write_json_lines(self.path / "evaluations.jsonl", [*kept, dict(entry)])

    @property
    def metrics_file(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def init_file(self) -> Path:
        """Which weights came from another model; only where some did."""
        return self.path / "init.json"

    @property
    def statistics_file(self) -> Path:
        """Mean image and PCA of the training set."""
        return self.path / "statistics.npz"

    @property
    def checkpoints(self) -> Path:
        """The folder of `last`, `previous` and `best`."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of the report's PNG files."""
        return self.path / "figures"

    @property
    def report_file(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"


def _measured(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an evaluation is kept under: which images, and which weights computed how."""
    model = entry["models"][0]
    which = (model.get(name) for name in ("checkpoint", "backend", "precision", "sha256"))
    return entry["data"], entry["split"], entry["views"], *which


def _read_lines(path: Path, needs: Sequence[str], length: int | None = None) -> list[dict[str, Any]]:
    """The JSON objects of a file, none where it is missing; a last line still being written is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes()[:length].rpartition(b"\n")[0]
    try:
        lines = [json.loads(line) for line in whole.splitlines() if line.strip()]
    except ValueError as error:
        raise RunError(f"{path} is not one JSON object per line: {error}") from None
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not line.keys() >= set(needs):
            raise RunError(f"{path}: line {number} is not an object with {', '.join(needs)}")
    return lines
