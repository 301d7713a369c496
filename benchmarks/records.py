"""Measured figures in one format: taken in turns, told as a table, kept as JSON, compared with the last of their kind.

A figure is a dictionary: `name`, `value`, `unit`, `spread` (least and greatest), `n` turns, `peers` (name → value),
`ratio` (how many times better than the first peer), `limit` and `limit_fraction` (1: at the limit).
"""

from __future__ import annotations

import datetime
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alexnet.commands import text_table as tables
from alexnet.environment import commit, cpu_name, environment
from alexnet.files import write_json

Figure = dict[str, Any]
FELL = 0.9  # a ratio below this share of the last one is named
EXTRA_VERSIONS = ("onnxruntime", "openvino", "nncf", "onnx", "datasets", "webdataset")


@dataclass(frozen=True)
class Record:
    """The answer to one question on one machine."""

    question: str
    machine: str
    hardware: dict[str, Any]
    versions: dict[str, str | None]
    date: str  # UTC, to the second
    commit: str | None
    command: list[str]
    figures: list[Figure]


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    turns: int,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call, the contenders one after the other in every turn; the first `warm` turns are not kept."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + warm):
        for name, call in contenders.items():
            began = clock()
            call()
            if turn >= warm:
                seconds[name].append(clock() - began)
    return seconds


def figure(
    name: str,
    seconds: Mapping[str, list[float]],
    own: str,
    peers: list[str],
    work: float | None = None,
    unit: str = "ms",
    limit: float | None = None,
    limited_by: str = "",
) -> Figure:
    """The figure of contender `own` beside its `peers`, the first of which `ratio` refers to.

    With `work` (images a call, say) values are rates in `unit` and more is better; without, milliseconds (`unit` ms)
    or seconds (s) and less is better. `limit` is in the same unit.
    """

    def value(t: float) -> float:
        return work / t if work is not None else t * (1e3 if unit == "ms" else 1)

    medians = {key: value(statistics.median(seconds[key])) for key in (own, *peers)}
    spread = sorted(value(t) for t in (min(seconds[own]), max(seconds[own])))
    ratio = None
    if peers:
        ratio = medians[own] / medians[peers[0]] if work is not None else medians[peers[0]] / medians[own]
    fraction = None
    if limit is not None:
        fraction = medians[own] / limit if work is not None else limit / medians[own]
    return {
        "name": name,
        "by": own,
        "value": rounded(medians[own]),
        "unit": unit,
        "spread": [rounded(s) for s in spread],
        "n": len(seconds[own]),
        "peers": {peer: rounded(medians[peer]) for peer in peers},
        "ratio": None if ratio is None else round(ratio, 3),
        "limit": None if limit is None else rounded(limit),
        "limit_fraction": None if fraction is None else round(fraction, 3),
        "limited_by": limited_by,
    }


def make(question: str, figures: list[Figure]) -> Record:
    """A record of figures just measured here."""
    from importlib import metadata

    found = environment(sys.argv)
    versions = dict(found["versions"])
    for package in EXTRA_VERSIONS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
    return Record(
        question, machine_kind(found["hardware"]), found["hardware"], versions, now, commit(), command, figures
    )


def machine_kind(hardware: Mapping[str, Any] | None = None) -> str:
    """A folder's name for machines whose figures may be compared: processor, threads and GPUs."""
    if hardware is None:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        hardware = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "gpus": gpus}
    threads = hardware["threads"]
    words = [hardware["cpu"], f"{threads} thread{'s' if threads > 1 else ''}", *hardware["gpus"]]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def save(folder: Path, record: Record) -> Path:
    """Write a record as `folder/<machine>/<question>-<date>.json` and return its path."""
    path = Path(folder) / record.machine / f"{record.question}-{record.date.replace(':', '')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record))
    return path


def latest(folder: Path, machine: str) -> dict[str, tuple[Figure, Record]]:
    """Figure name → its newest value on this kind of machine, with the record; broken records are passed over."""
    found: dict[str, tuple[Figure, Record]] = {}
    for path in sorted(Path(folder).joinpath(machine).glob("*.json")):
        try:
            record = Record(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        for entry in record.figures:
            if entry["name"] not in found or found[entry["name"]][1].date < record.date:
                found[entry["name"]] = (entry, record)
    return found


def fallen(new: Record, before: Mapping[str, tuple[Figure, Record]]) -> list[str]:
    """A line for every ratio that fell by more than 10 %."""
    lines = []
    for entry in new.figures:
        was, now = before[entry["name"]][0].get("ratio") if entry["name"] in before else None, entry.get("ratio")
        if was and now is not None and now < FELL * was:
            old = before[entry["name"]][1]
            at = f" at {old.commit}" if old.commit else ""
            lines.append(f"{entry['name']}: ratio {was:.2f} on {old.date[:10]}{at} → {now:.2f} ({now / was - 1:+.0%})")
    return lines


def comparison(new: Record, before: Mapping[str, tuple[Figure, Record]]) -> str:
    """What became of the ratios since these figures were last kept on this machine kind."""
    known = sum(entry["name"] in before for entry in new.figures)
    if not known:
        return f"these are the first figures of {new.question} on {new.machine}"
    lines = fallen(new, before)
    if not lines:
        return f"none of the {known} ratios known from before fell by more than {1 - FELL:.0%}"
    return "\n".join([f"fell by more than {1 - FELL:.0%} since they were last kept:", *(f"  {line}" for line in lines)])


HEAD = ("figure", "by", "value", "spread", "n", "peer", "its value", "ratio", "limit", "of limit")


def rows(figures: list[Figure]) -> list[list[str]]:
    """A row of `HEAD` for each figure: beside its first peer, with the limit and the fraction of it."""
    found = []
    for entry in figures:
        peer, value = next(iter(entry.get("peers", {}).items()), ("", None))
        found.append(
            [
                entry["name"],
                entry.get("by", ""),
                f"{told(entry['value'])} {entry['unit']}",
                _spread(entry),
                str(entry.get("n", "")),
                peer,
                told(value),
                told(entry.get("ratio")),
                told(entry.get("limit")),
                f"{entry['limit_fraction']:.0%}" if entry.get("limit_fraction") is not None else "",
            ]
        )
    return found


def table(record: Record) -> str:
    """Figure, peer, ratio, limit and fraction of the limit, with the hardware above."""
    hardware = record.hardware
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''}"
    title = ", ".join([hardware["cpu"], threads, *hardware["gpus"], f"torch {record.versions['torch']}"])
    return title + "\n" + tables.table(list(HEAD), rows(record.figures), right=(2, 4, 6, 7, 8, 9))


def line(entry: Figure) -> str:
    """One figure as a line, for those who wait."""
    by = f" by {entry['by']}" if entry.get("by") else ""
    text = f"{entry['name']}{by}: {told(entry['value'])} {entry['unit']} [{_spread(entry)}]"
    if entry.get("peers"):
        text += "; " + ", ".join(f"{peer} {told(value)}" for peer, value in entry["peers"].items())
    if entry.get("limit") is not None:
        text += f"; limit {told(entry['limit'])}" + (f" ({entry['limited_by']})" if entry.get("limited_by") else "")
    return text


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def told(value: float | None) -> str:
    """A value as people read it: whole from a hundred on, else three digits; nothing for None."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(entry: Figure) -> str:
    spread = entry.get("spread")
    return " … ".join(told(value) for value in spread) if spread else ""
