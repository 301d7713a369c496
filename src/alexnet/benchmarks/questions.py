"""The questions that can be asked, and how one is answered: measured, told, kept, compared."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexnet.benchmarks import records

HOMES = {"train": "train_step", "predict": "predict", "data": "data", "lrn": "lrn"}
QUESTIONS = tuple(name for name, home in HOMES.items() if find_spec(f"{__package__}.{home}"))
RECORDS = Path("benchmarks/records")


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
    figures = []
    for entry in module.measure(options):
        figures.append(entry)
        say(records.line(entry))
    record = records.make(question, figures)
    parts = [records.table(record)]
    path = None
    if keep is not None:
        before = records.last(keep, record)
        parts.append(records.comparison(record, before))
        path = records.save(keep, record)
        parts.append(f"kept as {path}")
    return {**dataclasses.asdict(record), "text": "\n\n".join(parts), "path": str(path) if path else None}


def _module(question: str) -> Any:
    if question not in QUESTIONS:
        raise ValueError(f"bench {question!r} should be one of {', '.join(QUESTIONS)}")
    return import_module(f"{__package__}.{HOMES[question]}")
