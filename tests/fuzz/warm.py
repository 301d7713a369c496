"""Imported by the server of the processes that are killed: each then has what a training, a report, … import."""

from __future__ import annotations

from tests.fuzz.runs import trained

trained("warm")
