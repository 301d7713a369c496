"""The questions that can be asked, and how one is answered: measured, told, kept, compared."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import records

HOMES = {"train": "train_step", "parity": "parity", "predict": "predict", "data": "data", "lrn": "lrn"}
QUESTIONS = tuple(HOMES)
RECORDS = Path("benchmarks/records")
# What `all` asks, in order: the question and its options.
TOUR = (
    ("train", ()),
    ("train", ("--preset", "tiny-64")),
    ("train", ("--preset", "cifar-26")),
    ("train", ("--preset", "tiny-64", "--layers")),
    ("train", ("--preset", "cifar-26", "--layers")),
    ("train", ("--preset", "paper", "--layers")),
    ("parity", ("--preset", "tiny-64")),
    ("lrn", ()),
    ("predict", ()),
)


def arguments(question: str, parser: argparse.ArgumentParser) -> None:
    """Add a question's options. Raises ValueError for a question nobody has a module for."""
    _module(question).arguments(parser)


def run(
    question: str,
    options: Sequence[str] | argparse.Namespace = (),
    keep: Path | None = RECORDS,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Measure and return the record, with `text` (table and comparison) and `path` (None where it was not kept).

    `options` are words as on the command line, or parsed already. `keep` is the folder of records. Each figure is said
    as soon as it is known. Raises ValueError for an unknown question or option.
    """
    module = _module(question)
    if not isinstance(options, argparse.Namespace):
        parser = argparse.ArgumentParser(prog=f"bench {question}", exit_on_error=False)
        module.arguments(parser)
        options, left = parser.parse_known_args(list(options))
        if left:
            raise ValueError(f"{left[0]!r} is no option of `bench {question}`")
    for name in ("turns", "batch", "steps", "seeds", "workers", "copies"):
        if getattr(options, name, 1) < 1:
            raise ValueError(f"--{name} {getattr(options, name)} should be at least 1")
    figures = []
    for entry in module.measure(options):
        figures.append(entry)
        say(records.line(entry))
    record = records.make(question, figures)
    parts = [records.table(record)]
    path, compared = None, ""
    if keep is not None:
        compared = records.comparison(record, records.latest(keep, record.machine))
        path = records.save(keep, record)
        parts += [compared, f"kept as {path}"]
    return {
        **dataclasses.asdict(record),
        "text": "\n\n".join(parts),
        "path": str(path) if path else None,
        "comparison": compared,
    }


def everything(images: Path | None = None) -> dict[str, Any]:
    """Ask all questions, each in a process of its own and kept as a record, and tell them in one table.

    `images` is a folder of class folders of photographs, without which the data question is left out. Returns
    {"records": [...], "text"}. Raises ValueError naming a question that could not be answered.
    """
    asked = []
    for question, words in [*TOUR, *([("data", (str(images),))] if images else [])]:
        command = [sys.executable, "-m", "alexnet.cli", "bench", question, *words, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise ValueError(f"alexnet bench {question} {' '.join(words)} ended with code {done.returncode}")
        asked.append(json.loads(done.stdout))
    whole = records.make("all", [entry for answer in asked for entry in answer["figures"]])
    parts = [records.table(whole), *(f"{answer['question']}: {answer['comparison']}" for answer in asked)]
    if images is None:
        parts.append("data was not measured: give --images, a folder of class folders of photographs")
    return {"records": asked, "text": "\n\n".join(parts)}


def newest(keep: Path = RECORDS) -> dict[str, Any]:
    """The newest figure of each name kept on this kind of machine, as one table, without measuring.

    Raises ValueError where nothing was kept.
    """
    found = records.latest(keep, records.machine_kind())
    if not found:
        raise ValueError(f"{keep} has no records of {records.machine_kind()}; `alexnet bench all` makes them")
    figures = [entry for entry, _ in found.values()]
    return {"figures": figures, "text": records.table(records.make("newest", figures))}


def _module(question: str) -> Any:
    if question not in QUESTIONS:
        raise ValueError(f"bench {question!r} should be one of {', '.join(QUESTIONS)}")
    return import_module(f"{__package__}.{HOMES[question]}")
