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
int8.json            how large activations are, for int8
trackers.json  tensorboard/  report.html  figures/
.lock                held while a process trains
```
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alexnet.config import Config
from alexnet.environment import environment
from alexnet.errors import RunBusy, RunError, UsageError, quoted
from alexnet.files import TEMPORARY, lock, write_json, write_json_lines
from alexnet.records import check_fields, checked, read_json, read_json_lines

BASELINE = "baseline.json"  # marks the directory of a baseline, which is no network's run
MAX_BYTES = 16 << 20  # of a JSON file
MAX_METRICS = 1 << 30  # bytes of metrics.jsonl, which is read line by line
MAX_FIELDS = 32  # of a line of it
MAX_EPOCHS = 500_000  # lines of it that are of an epoch or a validation
# What a training has written before its first checkpoint, and nothing of value.
BEGUN = ("config.json", "environment.json", "source.json", "init.json", "statistics.npz", "metrics.jsonl")
FILES = (*BEGUN, ".lock", "evaluations.jsonl", "int8.json", "trackers.json", "report.html")
FOLDERS = ("checkpoints", "figures", "tensorboard")
# The fields of the files, by name and type; `?`: may be missing.
SOURCE = {
    "source": str,
    "path?": str | None,
    "classes": list[str],
    "splits": dict[str, int],
    "fingerprint?": dict[str, str],
    "validation": str,
    "majority?": str,
    "words?": Any,  # no reason to refuse a run
    "unreadable?": dict[str, str],
}
ENVIRONMENT = {
    "versions": dict[str, str | None],
    "hardware": dict[str, Any],
    "platform": str,
    "commit": str | None,
    "command": list[str],
    "changes?": list[dict[str, Any]],
}
HARDWARE = {"cpu": str, "threads": int, "gpus": list[str]}
CHANGE = {"epoch": int, "step": int, "exact": bool, "settings": dict[str, list[str]]}
ERRORS = {"top1_error": float, "top5_error?": float | None, "loss": float, "count": int}
LINES: dict[str, dict[str, Any]] = {
    "train": {"lr": float, "images_per_second": float},
    "epoch": {"lr": float, "seconds": float},
    "validation": ERRORS,
}
EVALUATION = {
    "data": str,
    "split": str,
    "views": int,
    "models": list[dict[str, Any]],
    **ERRORS,
    "unreadable?": int,
    "path?": str | None,
    "data_changed?": str,
}
MODEL = {"checkpoint": str | None, "backend": str, "precision": str, "step?": int | None, "sha256?": str}


@dataclass(frozen=True)
class Run:
    """The files of one run."""

    path: Path

    @classmethod
    def create(
        cls, path: Path, config: Config, command: list[str] | None = None, source: Mapping[str, Any] | None = None
    ) -> Run:
        """Make the directory with its config, environment and source. Raises RunError where something is there already.

        A run that ended before its first checkpoint is begun anew.
        """
        with cls(path).begun(config, command, source) as run:
            return run

    @contextmanager
    def begun(
        self, config: Config, command: list[str] | None = None, source: Mapping[str, Any] | None = None
    ) -> Iterator[Run]:
        """As `create`, and hold the run as `held` does."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; choose another --out")
        self._check_free()
        path.mkdir(parents=True, exist_ok=True)
        with self.held():
            self._check_free()
            for name in BEGUN:
                (path / name).unlink(missing_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
            write_json(path / "environment.json", environment(command))
            if source is not None:
                write_json(path / "source.json", source)
            write_json(path / "config.json", config.to_dict())
            yield self

    def _check_free(self) -> None:
        """Raise RunError where the folder holds more than what a training writes before its first checkpoint."""
        if not self.path.exists():
            return
        begun = {*BEGUN, ".lock", "trackers.json", "tensorboard", "checkpoints"}
        there = [*self.path.iterdir(), *(self.checkpoints.iterdir() if self.checkpoints.is_dir() else ())]
        names = {entry.name for entry in there if not entry.name.endswith(TEMPORARY)}
        ours = not names & set(BEGUN) or "environment.json" in names  # which is written first
        if names <= begun and ours:
            _check_kinds(self.path)
        elif ours and (self.path / "config.json").exists():
            raise RunError(f"{self.path} exists; go on with `--resume {self.path}` or choose another --out")
        else:
            raise RunError(f"{self.path} exists and is not a run; choose another --out")

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run. Raises RunError where there is none, or where a file of it is none of its own."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is not a run directory: it is not a folder")
        if not path.is_dir():
            raise RunError(f"{path}: there is no such run directory; `alexnet train --out {path}` makes one")
        _check_kinds(path)
        if (path / BASELINE).is_file():
            raise RunError(f"{path} is a baseline, not the run of a network, which is needed here")
        if not (path / "config.json").is_file():
            raise RunError(f"{path} is not a run directory: it has no config.json")
        return cls(path)

    def held(self) -> AbstractContextManager[None]:
        """Hold the run for this process while it trains. Raises RunError where another process has it."""
        _check_kinds(self.path)
        refusal = RunBusy(f"{self.path} is being trained by another process; wait for it or stop it")
        return lock(self.path / ".lock", refusal)

    @cached_property
    def config(self) -> Config:
        """The settings of the run. Raises RunError naming the field that cannot be read."""
        path = self.path / "config.json"
        try:
            return Config.from_dict(read_json(path, MAX_BYTES))
        except RunError:
            raise
        except (UsageError, RecursionError) as error:
            raise RunError(f"{path} cannot be read: {error}") from None

    @cached_property
    def source(self) -> dict[str, Any]:
        """The images as they were when the run began.

        `source` as it was typed, its absolute `path` where it is one, `classes`, `splits` (name → count) and a
        `fingerprint` of each split. Raises RunError naming the field that is wrong.
        """
        value = self._json("source.json", SOURCE)
        where = str(self.path / "source.json")
        for name in ("train", "val"):
            if name not in value["splits"]:
                raise RunError(f"{where}: splits.{name} is missing")
        if len(value["classes"]) != self.config.network.classes:
            raise RunError(
                f"{where} names {len(value['classes'])} classes, but the network of config.json has "
                f"{self.config.network.classes}"
            )
        return value

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, commit and command of the run, and `changes` of settings or machine since it began."""
        value = self._json("environment.json", ENVIRONMENT)
        where = str(self.path / "environment.json")
        check_fields(value["hardware"], HARDWARE, f"{where}: hardware")
        for change in value.get("changes", []):
            check_fields(change, CHANGE, f"{where}: changes")
            if any(len(values) != 2 for values in change["settings"].values()):
                raise RunError(f"{where}: changes.settings should have the value before and the value after of each")
            if not change["settings"]:
                raise RunError(f"{where}: changes.settings should name what was changed, and is empty")
        return value

    def change(self, config: Config, entry: Mapping[str, Any]) -> None:
        """Let a run go on with other settings. `entry` is kept among the environment's `changes`."""
        changes = [*self.environment.get("changes", []), dict(entry)]
        write_json(self.path / "environment.json", {**self.environment, "changes": changes})
        write_json(self.path / "config.json", config.to_dict())  # the last: a kill before it leaves the settings
        for name in ("environment", "config"):  # what was read before
            self.__dict__.pop(name, None)

    def _json(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        try:
            value = read_json(self.path / name, MAX_BYTES)
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {name}; the run did not get as far, go on with --resume") from None
        check_fields(value, fields, f"{self.path / name}: {name.partition('.')[0]}")
        return value

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        return self.source["classes"]

    def read_metrics(self, length: int | None = None) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl, or of its first `length` bytes, one after the other: a long run has millions.

        Their `kind` is `train`, `epoch` or `validation`. Raises RunError naming the line and field that is wrong.
        """
        epochs = 0
        for number, line in enumerate(read_json_lines(self.metrics_file, MAX_METRICS, length), 1):
            where = f"{self.metrics_file}: line {number}"
            _check_metrics(line, where)
            epochs += line["kind"] != "train"
            if epochs > MAX_EPOCHS:
                raise RunError(f"{where} is of an epoch, of which it has more than {MAX_EPOCHS:,} lines")
            yield line

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one kind when given. Raises as `read_metrics` does."""
        return [line for line in self.read_metrics() if kind in (None, line["kind"])]

    def evaluations(self) -> list[dict[str, Any]]:
        """What `alexnet evaluate` measured of this run, the newest last. Raises RunError naming what is wrong."""
        path = self.path / "evaluations.jsonl"
        lines = list(read_json_lines(path, MAX_BYTES))
        for number, line in enumerate(lines, 1):
            check_fields(line, EVALUATION, f"{path}: line {number}")
            if not line["models"]:
                raise RunError(f"{path}: line {number}.models is empty")
            for model in line["models"]:
                check_fields(model, MODEL, f"{path}: line {number}.models")
        return lines

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
    def int8_file(self) -> Path:
        """How large activations are, for int8; only where it was computed."""
        return self.path / "int8.json"

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


def _check_metrics(line: Mapping[str, Any], where: str) -> None:
    """Raise RunError unless a line of metrics has its kind's fields, and numbers in all others."""
    if not {"kind", "epoch", "step"} <= line.keys():
        raise RunError(f"{where} is not an object with kind, epoch, step")
    if len(line) > MAX_FIELDS:
        raise RunError(f"{where} has {len(line):,} fields, more than {MAX_FIELDS}")
    kind = line["kind"]
    if not isinstance(kind, str) or kind not in LINES:
        raise RunError(f"{where}.kind {quoted(kind)} should be {', '.join(LINES)}")
    check_fields(line, {"epoch": int, "step": int, **LINES[kind]}, where)
    for name, value in line.items():
        if name != "kind" and value is not None:
            checked(float, value, f"{where}.{quoted(name)[1:-1]}")
    if kind != "validation" and line["epoch"] < 1:
        raise RunError(f"{where}.epoch {line['epoch']} should be at least 1")


def _check_kinds(path: Path) -> None:
    """Raise RunError for a run's file that is a link, a pipe or a folder, or a folder of it that is none.

    What is written into a run stays in its folder.
    """
    for names, wanted, what in ((FILES, stat.S_ISREG, "file"), (FOLDERS, stat.S_ISDIR, "folder")):
        for name in names:
            try:
                mode = (path / name).lstat().st_mode
            except OSError:
                continue
            if not wanted(mode):
                raise RunError(f"{path / name} should be a plain {what}, of the run itself")
    for name in ("last", "previous", "best"):
        file = path / "checkpoints" / f"{name}.safetensors"
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise RunError(f"{file} should be a plain file, of the run itself")


def _measured(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an evaluation is kept under: which images, and which weights computed how."""
    model = entry["models"][0]
    which = (model.get(name) for name in ("checkpoint", "backend", "precision", "sha256"))
    return entry.get("path"), entry["data"], entry["split"], entry["views"], *which
