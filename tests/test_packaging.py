"""What is installed: every dependency has the version it was tested with, and `make test` brings every extra."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def plain(requirement: str) -> str:
    """The name in a requirement, as package indexes compare names."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_every_dependency_has_one_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    pinned = [plain(line) for line in lines]
    assert len(set(pinned)) == len(pinned)
    wanted = [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
    assert {plain(requirement) for requirement in wanted} <= set(pinned)


def test_make_test_installs_every_extra() -> None:
    tested = re.search(r"^TESTED := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert tested and set(tested[1].split(",")) == set(EXTRAS)
