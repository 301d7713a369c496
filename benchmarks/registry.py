"""The questions that can be asked, and how one is answered: measured, printed, kept as a record, compared."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from alexnet.errors import AlexnetError, UsageError
from benchmarks import records, tables
from benchmarks.processes import child_environment, python
from benchmarks.records import Record, Result

MODULES = {"train": "train_step", "parity": "parity", "predict": "predict", "data": "data", "lrn": "lrn"}
QUESTIONS = tuple(MODULES)
RECORDS = Path(__file__).parent / "records"
# What `all` asks, in order: the question and its options.
SUITE: tuple[tuple[str, tuple[str, ...]], ...] = (
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
COUNTS = ("turns", "batch", "steps", "seeds", "workers", "copies", "side")


@dataclass(frozen=True)
class Answer:
    """A record with its place (None where it was not kept) and its comparison with the last of its kind."""

    record: Record
    path: Path | None
    comparison: str

    @property
    def text(self) -> str:
        """The table, the comparison and the place."""
        parts = [tables.text_table(self.record)]
        if self.path is not None:
            parts += [self.comparison, f"kept as {self.path}"]
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The record's fields with `path` and `comparison`."""
        path = None if self.path is None else str(self.path)
        return {**self.record.to_json(), "path": path, "comparison": self.comparison}


@dataclass(frozen=True)
class Survey:
    """All answers of a suite, or the newest results that were kept, in one table."""

    record: Record
    answers: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The table and the notes."""
        return "\n\n".join([tables.text_table(self.record), *self.notes])

    def to_json(self) -> dict[str, Any]:
        """`results` of everything, and `records`, one per question asked."""
        return {"results": self.record.to_json()["results"], "records": list(self.answers)}


def arguments(question: str, parser: argparse.ArgumentParser) -> None:
    """Add a question's options. Raises UsageError for an unknown question."""
    _module(question).arguments(parser)
    records_argument(parser)


def records_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--records`, the folder of records."""
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records (default: the source tree's)")


def run(
    question: str,
    options: Sequence[str] | argparse.Namespace = (),
    keep: bool = True,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Answer:
    """Measure, print each result as soon as it is known with `say`, and return the answer, kept or not.

    `options` are words as on the command line, or parsed already. Raises UsageError for an unknown question or option.
    """
    module = _module(question)
    if not isinstance(options, argparse.Namespace):
        parser = argparse.ArgumentParser(prog=f"bench {question}", exit_on_error=False)
        arguments(question, parser)
        options, left = parser.parse_known_args(list(options))
        if left:
            raise UsageError(f"{left[0]!r} is not an option of `bench {question}`")
    for name in COUNTS:
        count = getattr(options, name, None)
        if count is not None and count < 1:
            raise UsageError(f"--{name} {count} should be at least 1")
    results: list[Result] = []
    for result in module.measure(options):
        results.append(result)
        say(tables.line(result))
    record = records.make_record(question, results)
    if not keep:
        return Answer(record, None, "")
    compared = records.comparison(record, records.latest(options.records, record.hardware.kind))
    return Answer(record, records.save(options.records, record), compared)


def everything(images: Path | None = None, folder: Path = RECORDS) -> Survey:
    """Ask all questions of `SUITE`, each in a process of its own and kept as a record in `folder`.

    `images` is a folder of class folders of photographs, without which the data question is left out. Raises
    AlexnetError naming a question that could not be answered.
    """
    answers = []
    for question, words in [*SUITE, *([("data", (str(images),))] if images else [])]:
        command = ["alexnet.cli", "bench", question, *words, "--records", str(folder), "--json"]
        done = subprocess.run(python(*command), env=child_environment(), stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise AlexnetError(f"alexnet bench {question} {' '.join(words)} ended with code {done.returncode}")
        answers.append(json.loads(done.stdout))
    results = [Result.from_json(result) for answer in answers for result in answer["results"]]
    notes = [f"{answer['name']}: {answer['comparison']}" for answer in answers]
    if images is None:
        notes.append("data was not measured: give --images, a folder of class folders of photographs")
    return Survey(records.make_record("all", results), tuple(answers), tuple(notes))


def newest(folder: Path = RECORDS) -> Survey:
    """The newest result of each name kept on this kind of hardware, without measuring.

    Raises UsageError where nothing was kept.
    """
    kind = records.hardware_here().kind
    known = records.latest(folder, kind)
    if not known:
        raise UsageError(f"{folder} has no records of {kind}; `alexnet bench all` makes them")
    return Survey(records.make_record("newest", [result for result, _ in known.values()]))


def _module(question: str) -> ModuleType:
    if question not in MODULES:
        raise UsageError(f"bench {question!r} should be one of {', '.join(QUESTIONS)}")
    return import_module(f"{__package__}.{MODULES[question]}")
