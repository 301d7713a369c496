"""JSON of strangers is read within limits, and what is wrong with it is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexnet.errors import RunError
from alexnet.records import check_fields, checked, parse_json, read_json


def test_what_is_plain_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "ß \\u00e4"]}') == {"a": [1, 2.5, None, True, "ß ä"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "nested too deep"),
        ("[" + "[]," * 3_000_000 + "[]]", "more than 2,000,000 values"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        ("9" * 41, "a number of 41 digits"),
        ("1e999", "is not finite"),
        ("NaN", "NaN is no number"),
        ('"\\ud800"', "half characters"),
    ],
)
def test_what_is_not_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_a_file_is_named_and_its_size_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError):
        read_json(path, 10)
    for content, words in ((b"[]", "an object in braces"), (b'"\xff"', "not UTF-8"), (b"{}" + b" " * 9, "limit of 10")):
        path.write_bytes(content)
        with pytest.raises(RunError, match=rf"a\.json cannot be read: .*{words}"):
            read_json(path, 10)


def test_a_field_is_checked_by_its_type() -> None:
    wanted = {"a": int, "b?": dict[str, list[str]]}
    check_fields({"a": 3, "b": {"x": ["y"]}, "c": object()}, wanted, "file")
    for record, words in (
        ({}, r"file\.a is missing"),
        ({"a": True}, r"file\.a true should be a whole number from 0 to 9,007,199,254,740,991"),
        ({"a": 3, "b": {"x": [1]}}, r"file\.b\.x\[0\] 1 should be a text"),
    ):
        with pytest.raises(RunError, match=words):
            check_fields(record, wanted, "file")
    with pytest.raises(RunError, match="should be a number within"):
        checked(float, 1e300, "x")
