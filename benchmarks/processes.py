"""Processes of their own for contenders and commands: they import this package and these benchmarks from any folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import alexnet


def python(module: str, *words: str) -> list[str]:
    """The command that runs a module of the package or of the benchmarks in a new process."""
    return [sys.executable, "-m", module, *words]


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child finds the same package and benchmarks."""
    places = [str(Path(alexnet.__file__).parents[1]), str(Path(__file__).parents[1])]
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*places, inherited] if inherited else places)}
