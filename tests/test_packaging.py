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
    assert {plain(requirement) for requirement in wanted} - {"alexnet"} <= set(pinned)


def test_make_test_installs_every_extra() -> None:
    own = re.fullmatch(r"alexnet\[(.*)\]", EXTRAS["dev"][0])
    assert own and {*own[1].split(","), "dev"} == set(EXTRAS)
    assert re.search(r"^\.venv/tools: .*\n\t\$\(PIP\) -e '\.\[dev\]'$", (ROOT / "Makefile").read_text(), re.M)


def test_what_predicts_needs_no_torch() -> None:
    core = {plain(requirement) for requirement in PROJECT["dependencies"]}
    assert core == {"numpy", "pillow", "simplejpeg", "safetensors", "rich"}
    assert {"torch", "torchvision"} <= {plain(requirement) for requirement in EXTRAS["train"]}


def test_wheels_are_built_for_their_own_machine_and_tried_by_a_file_that_is_there() -> None:
    wheels = SETTINGS["tool"]["cibuildwheel"]
    python = re.fullmatch(r"cp3(\d+)-\*", wheels["build"])
    assert python and PROJECT["requires-python"] == f">=3.{python[1]}"
    tried = re.findall(r"\{project\}/(\S+)", wheels["test-command"])
    assert tried and all((ROOT / path).is_file() for path in tried)
    # A Mac asked for the wheel of the other kind would pack its own kernels into it.
    assert wheels["archs"] == "auto64" and not any(
        "archs" in part for part in wheels.values() if isinstance(part, dict)
    )


def test_what_is_said_of_wheels_is_there() -> None:
    page, makefile = (ROOT / "docs/wheels.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\S+)`", page):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"`(tests/\S+|pyproject\.toml)`", page):
        assert (ROOT / path).is_file(), path
    for machine in ("x86_64", "aarch64"):
        assert f"`{SETTINGS['tool']['cibuildwheel']['linux'][f'manylinux-{machine}-image']}_{machine}`" in page
