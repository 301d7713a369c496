"""The one form of a record, for measurements of speed and for trainings: results, command, hardware, versions, commit.

Records are kept by what decides speed: the class of the processor's instructions, the threads and the GPUs (a folder
`avx512-bf16-2-threads`), not by the processor's name, which virtual machines hide. Only records of one such kind are
compared.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shlex
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from alexnet.environment import environment, version
from alexnet.errors import DataError
from alexnet.files import write_json

FELL = 0.9  # a ratio below this share of the last one is named
EXTRA_VERSIONS = ("onnxruntime", "openvino", "nncf", "onnx", "datasets", "webdataset")


class Json:
    """A frozen dataclass that is written as JSON and read back."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them: tuples as lists."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The object that `to_json` wrote. Raises DataError naming what is missing, unknown or of another form."""
        try:
            return typing.cast(Self, _read(cls, value))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"this is not a {cls.__name__}: {error}") from None


@dataclass(frozen=True)
class Hardware(Json):
    """What a measurement ran on."""

    cpu: str  # as the system names it
    cores: int
    threads: int  # those that torch used
    gpus: tuple[str, ...]
    instruction_class: str  # `avx512-bf16`, `avx512`, `avx2`, …
    instruction_sets: tuple[str, ...] = ()  # flags of vector instructions; empty where they were not noted

    @property
    def kind(self) -> str:
        """A folder's name for hardware whose measurements may be compared."""
        words = [self.instruction_class, _threads(self.threads), *self.gpus]
        return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")

    @property
    def title(self) -> str:
        """The hardware in words."""
        return ", ".join([f"{self.cpu} ({self.instruction_class})", _threads(self.threads), *self.gpus])

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Hardware:
        """The hardware of `environment.json`."""
        return cls.from_json(facts)


@dataclass(frozen=True)
class Result(Json):
    """One quantity, measured n times: the median of times, the mean of errors."""

    name: str
    value: float
    unit: str  # "ms", "s", "µs", "images/s", "MiB", "%", or "" for a plain number
    spread: tuple[float, float] | None = None  # least and greatest
    n: int = 1
    by: str = ""  # which of our contenders
    peers: Mapping[str, float] = field(default_factory=dict)  # in the same unit
    peer_spread: tuple[float, float] | None = None  # of the first peer
    ratio: float | None = None  # how many times better than the first peer
    reference_rate: float | None = None  # what the hardware or an aim would give, in the same unit
    fraction_of_reference: float | None = None  # 1: as good as that
    reference_basis: str = ""  # where that comes from
    also: Mapping[str, float] = field(default_factory=dict)  # what else was measured, the unit in the name


@dataclass(frozen=True)
class Record(Json):
    """Results of one command on one machine."""

    name: str  # the question or the experiment
    results: tuple[Result, ...]
    command: str
    hardware: Hardware
    versions: Mapping[str, str | None]
    date: str  # UTC, to the second or the day
    commit: str | None

    def named(self, name: str) -> Result | None:
        """The result of that name, or None."""
        return next((result for result in self.results if result.name == name), None)


Known = Mapping[str, tuple[Result, Record]]  # name of a result → its newest value, and its record


def make_record(name: str, results: list[Result]) -> Record:
    """A record of results just measured here by this process."""
    facts = environment(sys.argv)
    versions = facts["versions"] | {name: number for name in EXTRA_VERSIONS if (number := version(name))}
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    hardware = Hardware.of(facts["hardware"])
    return Record(name, tuple(results), command, hardware, versions, now(), facts["commit"])


def now() -> str:
    """The date of a record: UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hardware_here() -> Hardware:
    """The hardware of this machine, with the threads that torch uses now."""
    return Hardware.of(environment()["hardware"])


def save(folder: Path, record: Record) -> Path:
    """Write a record as `folder/<kind of hardware>/<name>-<date>.json` and return its path."""
    path = Path(folder) / record.hardware.kind / f"{record.name}-{record.date.replace(':', '')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record.to_json())
    return path


def latest(folder: Path, kind: str) -> dict[str, tuple[Result, Record]]:
    """The newest result of each name on this kind of hardware, with its record; broken records are passed over."""
    newest: dict[str, tuple[Result, Record]] = {}
    for path in sorted(Path(folder).joinpath(kind).glob("*.json")):
        try:
            record = Record.from_json(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
        for result in record.results:
            if result.name not in newest or newest[result.name][1].date < record.date:
                newest[result.name] = (result, record)
    return newest


def regressions(new: Record, before: Known) -> list[str]:
    """A line for every ratio that fell by more than 10 %."""
    lines = []
    for result in new.results:
        if result.name not in before:
            continue
        old, record = before[result.name]
        if old.ratio and result.ratio is not None and result.ratio < FELL * old.ratio:
            at = f" at {record.commit}" if record.commit else ""
            change = (
                f"{old.ratio:.2f} on {record.date[:10]}{at} → {result.ratio:.2f} ({result.ratio / old.ratio - 1:+.0%})"
            )
            lines.append(f"{result.name}: ratio {change}")
    return lines


def comparison(new: Record, before: Known) -> str:
    """How the ratios stand beside those that were last kept on this kind of hardware."""
    known = sum(result.name in before for result in new.results)
    if not known:
        return f"these are the first results of {new.name} on {new.hardware.kind}"
    lines = regressions(new, before)
    if not lines:
        return f"none of the {known} ratios known from before fell by more than {1 - FELL:.0%}"
    return "\n".join([f"fell by more than {1 - FELL:.0%} since they were last kept:", *(f"  {line}" for line in lines)])


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _read(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that an annotation names: dataclasses, tuples, mappings and optional values."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(type, kind)(**{name: _read(hints[name], item) for name, item in value.items()})
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_read(part, item) for part, item in zip(kinds, value, strict=True))
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _read(parts[0], value)
    return value
