"""The record of one run of an arm: what was measured, how long it took, on what, by which command.

A folder of records holds `SCALE/ARM-SEED.json`, and beside each the predictions for every test image
(`ARM-SEED.centre.npz`, and where ensembles need them `views` and `val` with probabilities), so that errors can be
counted again without training. Records of the package come first; others, in the user's folder, stand before them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.errors import DataError, UsageError
from alexnet.files import write_text
from alexnet.records import read_json, read_record
from alexnet.reproduce import rivals
from alexnet.reproduce.scales import ARMS, SCALES, config_of, fingerprint

PACKAGE = Path(__file__).parent / "measured"
MAX_BYTES = 4 << 20
Key = tuple[str, str, int]  # scale, arm, seed


@dataclass(frozen=True)
class Epoch:
    """One epoch: seconds of training until its end, errors in percent, loss in nats."""

    epoch: int
    seconds: float
    train_error: float  # while it was trained: of crops, with dropout
    train_loss: float
    val_error: float | None


@dataclass(frozen=True)
class RunRecord:
    """What a run measured. `values` are by metric: errors in percent of the test split unless the name says otherwise.

    `settings` is the fingerprint of what decides the result; `path` is where the record was read, not part of it.
    """

    scale: str
    arm: str
    seed: int
    settings: str
    data: str
    values: dict[str, float]
    curve: tuple[Epoch, ...]
    epochs: int
    steps: int
    seconds: float  # of training, as the run counted them
    hardware: dict[str, Any]
    versions: dict[str, Any]
    date: str
    commit: str | None
    command: str

    @property
    def key(self) -> Key:
        """Which run it is of."""
        return self.scale, self.arm, self.seed

    @property
    def processor(self) -> str:
        """The class of the processor's instructions and the threads, which decide how long a run takes."""
        return processor_of(str(self.hardware.get("instruction_class")), int(self.hardware.get("threads", 0)))

    def save(self, folder: Path) -> Path:
        """Write `folder/SCALE/ARM-SEED.json` and return its path. Raises OSError."""
        path = record_path(folder, self.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = dataclasses.asdict(self)
        rows = ",\n  ".join(json.dumps(row) for row in document.pop("curve"))  # an epoch a line
        head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
        write_text(path, f'{head},\n "curve": [{rows}]\n}}\n')
        return path


@dataclass(frozen=True)
class Records:
    """The records that count, by run, where each was found, and what was left out, in words."""

    runs: Mapping[Key, RunRecord]
    places: Mapping[Key, Path]
    left_out: tuple[str, ...] = ()

    def of(self, scale: str, arm: str) -> dict[int, RunRecord]:
        """The records of an arm, by seed in order."""
        found = {key[2]: record for key, record in self.runs.items() if key[:2] == (scale, arm)}
        return dict(sorted(found.items()))

    def predictions_file(self, key: Key, kind: str) -> Path:
        """Where a run's predictions are; see `predictions_path`."""
        return predictions_path(self.places[key], key, kind)


def processor_of(instructions: str, threads: int) -> str:
    """What decides how long a run takes, in words: `avx2, 2 threads`."""
    return f"{instructions}, {threads} thread{'' if threads == 1 else 's'}"


def record_path(folder: Path, key: Key) -> Path:
    """The file of a run's record."""
    return folder / key[0] / f"{key[1]}-{key[2]}.json"


def predictions_path(folder: Path, key: Key, kind: str) -> Path:
    """The file of predictions: `centre` of test images, `views` of them averaged, or `val`, those of validation."""
    return folder / key[0] / f"{key[1]}-{key[2]}.{kind}.npz"


def read_records(folders: Iterable[Path] = (PACKAGE,)) -> Records:
    """All records of some folders, those of later folders in the place of earlier ones.

    Records of other settings than an arm has now, and of arms and scales that do not exist, are left out and said.
    Raises DataError for a file that is no record, naming it and what is wrong.
    """
    runs: dict[Key, RunRecord] = {}
    places: dict[Key, Path] = {}
    other: dict[str, int] = {}
    current: dict[tuple[str, str], str] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*/*.json")):
            record = read_record(RunRecord, read_json(path, MAX_BYTES, DataError), str(path), DataError)
            if record_path(folder, record.key) != path:
                raise DataError(f"{path} is the record of {'/'.join(map(str, record.key))}; give it its own name back")
            arm = record.key[:2]
            if arm not in current:
                current[arm] = settings_of(*arm)
            if record.settings != current[arm]:
                name = f"{record.scale}/{record.arm}"
                other[name] = other.get(name, 0) + 1
                continue
            runs[record.key], places[record.key] = record, Path(folder)
    said = (f"{count} of {name} are of other settings than it has now" for name, count in sorted(other.items()))
    return Records(runs, places, tuple(said))


def settings_of(scale: str, arm: str) -> str:
    """The fingerprint of an arm's settings at a scale; empty where there is no such arm or scale."""
    if scale not in SCALES or arm not in ARMS:
        return ""
    try:
        if ARMS[arm].baseline:
            return rivals.fingerprint(ARMS[arm].baseline, ARMS[arm].at.get(scale, {}))
        return fingerprint(config_of(ARMS[arm], SCALES[scale], 0))
    except UsageError:  # an arm that this scale's network does not have
        return ""
