"""The house: the page that draws it names what is there, and no file or function in it outgrows a look."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import alexnet
from tests.test_imports import ROOMS

ROOT = Path(__file__).parents[1]
SOURCE = Path(alexnet.__file__).parent
PLACE = re.compile(r"(?:^|(?<=[\s;,(]))((?:\w+/)+|\w+\.py)(?=[\s;,.:)]|$)")
LONGEST_FUNCTION, LONGEST_FILE = 60, 450  # lines


def rooms(source: Path) -> set[str]:
    """`model/`, `data/store/`, `run.py`, …: every folder with Python in it and every module on the ground floor."""
    folders = {path.parent.relative_to(source).as_posix() + "/" for path in source.rglob("*.py")} - {"./"}
    return folders | {path.name for path in source.glob("*.py") if not path.name.startswith("__")}


def drawn(listing: str) -> set[str]:
    """The places named on the lines under `src/alexnet/`; one named after a folder, on its line, may lie in it."""
    lines = listing.split("src/alexnet/", 1)[1].splitlines()[1:]
    places: set[str] = set()
    for line in lines:
        if not line.startswith("  "):
            break
        outer = ""
        for place in PLACE.findall(line.replace("__main__.py", "")):
            inner = outer + place
            if outer and place.endswith("/") and (SOURCE / inner).is_dir():
                places.add(inner)
                continue
            places.add(place)
            outer = place if place.endswith("/") else outer
    return places


def test_the_page_draws_the_house_as_it_is() -> None:
    listing = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.S)[0]
    assert drawn(listing) == rooms(SOURCE)


def test_the_page_draws_the_rooms_in_the_order_of_imports() -> None:
    listing = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.S)[0]
    first = [line.split()[0].rstrip("/").removesuffix(".py") for line in listing.splitlines() if line.startswith("  ")]
    ground = [name for name in ROOMS if "." not in name]
    assert first == ground[::-1]


def test_the_readme_names_every_room_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text()
    assert drawn(readme.split("## What is where")[1]) == rooms(SOURCE)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("src/alexnet/\n  cli.py   the frame          commands/   one verb per file", {"cli.py", "commands/"}),
        (
            "src/alexnet/\n  data/  decoding;  readers/ formats;  store/ prepared",
            {"data/", "data/readers/", "data/store/"},
        ),
        (
            "src/alexnet/   the package\n  run.py  checkpoint.py, files.py\ntests/   x/",
            {"run.py", "checkpoint.py", "files.py"},
        ),
        ("src/alexnet/\n  model/  and/or, 3/4 of it", {"model/"}),
    ],
)
def test_places_are_read_off_a_drawing(text: str, places: set[str]) -> None:
    assert drawn(text) == places


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert not long, long
