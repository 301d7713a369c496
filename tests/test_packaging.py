"""What is installed: every dependency has the version it was tested with, and `make test` brings every extra."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
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


def test_wheels_are_built_by_a_supported_python_and_tried_by_a_file_that_is_there() -> None:
    wheels = SETTINGS["tool"]["cibuildwheel"]
    python = re.fullmatch(r"cp3(\d+)-\*", wheels["build"])
    assert python and PROJECT["requires-python"] == f">=3.{python[1]}"
    tried = re.findall(r"\{project\}/(\S+)", wheels["test-command"])
    assert tried and all((ROOT / path).is_file() for path in tried)
    compiler = wheels["windows"]["environment"]["CXX"]
    assert f'"win32": ("{compiler}",)' in (ROOT / "src/alexnet/engine/build.py").read_text()


def test_what_is_said_of_wheels_is_there() -> None:
    page, makefile = (ROOT / "docs/wheels.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", page, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"`(tests/\S+|pyproject\.toml)`", page):
        assert (ROOT / path).is_file(), path
    images = {SETTINGS["tool"]["cibuildwheel"]["linux"][f"manylinux-{arch}-image"] for arch in ("x86_64", "aarch64")}
    assert len(images) == 1 and f"`{images.pop()}`" in page
