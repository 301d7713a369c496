"""Records: what is written is read, what is of other settings is left out and said, what is damaged is named."""

import json
from pathlib import Path

import pytest

from alexnet.errors import DataError
from alexnet.reproduce.records import PACKAGE, read_records, settings_of
from alexnet.reproduce.scales import ARMS, SCALES
from tests.reproduce.made import record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = record("paper", 0, top1_error=1.5)
    path = made.save(tmp_path)
    assert path == tmp_path / "digits" / "paper-0.json"
    found = read_records([tmp_path])
    assert found.runs == {("digits", "paper", 0): made} and found.left_out == ()
    assert found.predictions_file(made.key, "centre") == tmp_path / "digits" / "paper-0.centre.npz"


def test_a_later_folders_record_stands_in_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    record("paper", 0, top1_error=1.0).save(tmp_path / "package")
    record("paper", 1, top1_error=2.0).save(tmp_path / "package")
    record("paper", 0, top1_error=3.0).save(tmp_path / "own")
    found = read_records([tmp_path / "package", tmp_path / "own", tmp_path / "absent"])
    assert {seed: one.values["top1_error"] for seed, one in found.of("digits", "paper").items()} == {0: 3.0, 1: 2.0}
    assert found.places["digits", "paper", 0] == tmp_path / "own"


def test_records_of_other_settings_are_said_and_not_mixed(tmp_path: Path) -> None:
    record("paper", 0, top1_error=1.0).save(tmp_path)
    for seed in (1, 2):
        path = record("paper", seed, top1_error=9.0).save(tmp_path)
        path.write_text(path.read_text().replace(settings_of("digits", "paper"), "0" * 12))
    found = read_records([tmp_path])
    assert list(found.of("digits", "paper")) == [0]
    assert found.left_out == ("2 of digits/paper are of other settings than it has now",)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: value | {"seed": -1}, "seed"),
        (lambda value: value | {"values": {"top1_error": "low"}}, "values.top1_error"),
        (lambda value: value | {"surprise": 1}, "surprise is not known"),
        (lambda value: {name: entry for name, entry in value.items() if name != "curve"}, "curve is missing"),
        (lambda value: value | {"seed": 5}, "is the record of digits/paper/5"),
        (lambda value: [], "should hold an object"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, change: object, told: str) -> None:
    path = record("paper", 0, top1_error=1.0).save(tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(DataError, match=told) as error:
        read_records([tmp_path])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_packages_records_are_of_arms_and_scales_that_exist() -> None:
    found = read_records([PACKAGE])
    assert found.left_out == ()
    for scale, arm, _ in found.runs:
        assert scale in SCALES and arm in ARMS


def test_settings_of_what_does_not_exist_are_those_of_no_record() -> None:
    assert settings_of("digits", "no-conv5") == settings_of("moon", "paper") == settings_of("digits", "x") == ""
