"""One module a question ("how fast is prediction?"), peers measured in the same run, and records of the answers.

A question's module has `arguments(parser)`, which adds its options, and `measure(options)`, which yields figures as
`records.figure` makes them. `run` asks a question, prints its table, keeps its record and compares it with the last.
"""

from __future__ import annotations

from benchmarks.registry import QUESTIONS, arguments, everything, newest, run

__all__ = ["QUESTIONS", "arguments", "everything", "newest", "run"]
