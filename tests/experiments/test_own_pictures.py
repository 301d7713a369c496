"""Folders of few pictures are made by a rule and trained on by the README's line, beside the most frequent class."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from alexnet.errors import UsageError
from experiments import own_pictures, real_images, records, table
from experiments.own_pictures import LINE, kind, make_folder

README = (Path(__file__).parents[2] / "README.md").read_text()
NAMES = {
    "n02085620_Chihuahua.JPEG": "mammals",
    "n02071294_killer_whale.JPEG": "mammals",
    "n01440764_tench.JPEG": "other animals",
    "n02279972_monarch.JPEG": "other animals",
    "n07734744_mushroom.JPEG": "food and plants",
    "n12267677_acorn.JPEG": "food and plants",
    "n09246464_cliff.JPEG": "outdoors",
    "n02835271_bicycle-built-for-two.JPEG": "outdoors",
    "n04597913_wooden_spoon.JPEG": "tools and vessels",
    "n09835506_ballplayer.JPEG": "rooms and people",
    "n03661043_library.JPEG": "rooms and people",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_of_the_kind_of_its_wnid_or_word(name: str) -> None:
    assert kind(name) == NAMES[name]


def test_a_file_without_a_wnid_is_refused() -> None:
    with pytest.raises(UsageError, match="should begin with a wnid"):
        kind("holiday.jpg")


def test_the_line_is_the_readmes() -> None:
    assert f"\n{LINE}\n" in README
    words = real_images.command("own-tiny", "pictures/", "runs/first", 7)
    assert words == [*LINE.split(), "--seed", "7"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Eight photographs of each of two kinds, each in its folder."""
    for number in range(16):
        word = ("n02085620_Chihuahua", "n03661043_library")[number % 2]
        buffer = io.BytesIO()
        Image.new("RGB", (70, 66), (250, number, 0) if number % 2 else (0, number, 250)).save(buffer, "JPEG")
        folder = tmp_path / "photographs" / f"{number:02d}"
        folder.mkdir(parents=True)
        (folder / f"{word}.JPEG").write_bytes(buffer.getvalue())
    return tmp_path / "photographs"


def test_every_fourth_of_a_kind_is_for_the_test(photographs: Path, tmp_path: Path) -> None:
    make_folder("own-photographs", photographs, tmp_path / "kinds")
    made = Counter(str(path.parent.relative_to(tmp_path / "kinds")) for path in (tmp_path / "kinds").rglob("*.jpg"))
    assert made == {
        "train/mammals": 6,
        "train/rooms_and_people": 6,
        "test/mammals": 2,
        "test/rooms_and_people": 2,
    }


def test_a_record_has_the_errors_to_compare_with_and_a_row(photographs: Path, tmp_path: Path) -> None:
    where = ["--data", str(photographs), "--pictures", str(tmp_path / "kinds")]
    kept = ["--runs", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    short = ["--train.steps", "2", "--train.log_every", "1", "--train.threads", "1"]
    own_pictures.main(["own-photographs", *where, *kept, *short])
    record = records.load("own-photographs", tmp_path / "records")
    assert record is not None
    assert [(error.views, error.split, error.count) for error in record.runs[0].errors] == [
        (1, "test", 4),
        (10, "test", 4),
    ]
    assert (record.runs[0].errors[0].chance_error, record.runs[0].errors[0].majority_error) == (50.0, 50.0)
    (row,) = [line for line in table.own_table(tmp_path / "records").splitlines() if "photographs" in line]
    assert "| 4 | 50.00 % |" in row
    assert "photographs" not in table.results_table(tmp_path / "records")


@pytest.mark.parametrize("name", own_pictures.MAKERS)
def test_every_recorded_run_on_few_pictures_beats_the_most_frequent_class(name: str) -> None:
    record = records.load(name)
    assert record is not None and len(record.runs) == 3
    for run in record.runs:
        for error in run.errors:
            assert error.majority_error is not None and error.top1_error < error.majority_error
