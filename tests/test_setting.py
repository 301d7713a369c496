"""The one checker of values: every type and range, from text and from a file, and what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import UsageError, quoted
from alexnet.setting import REQUIRED, checked, either, fields_of, setting


@dataclass(frozen=True)
class Sample:
    """One field of each type."""

    count: int = setting(REQUIRED, "a count", minimum=1)
    share: float = setting(0.5, "a share", above=0, below=1)
    open: float | None = setting(None, "may be open", minimum=0)
    on: bool = setting(True, "a switch")
    word: str = setting("a", "a word")
    choice: Literal["x", "y", "z"] = setting("x", "one of three")
    numbers: tuple[int, ...] = setting((), "several", minimum=1)
    words: tuple[str, ...] = setting((), "several words")


FIELDS = {field.path: field for field in fields_of(Sample, "sample")}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("count", "a whole number of at least 1"),
        ("share", "a number above 0 and below 1"),
        ("open", "a number of at least 0, or none"),
        ("on", "true or false"),
        ("word", "a text"),
        ("choice", "x, y or z"),
        ("numbers", "whole numbers of at least 1, as 23,51,78"),
        ("words", "texts, as conv1,fc8"),
    ],
)
def test_what_is_wanted_is_said_in_words(name: str, wanted: str) -> None:
    assert FIELDS[f"sample.{name}"].wanted == wanted


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("share", "0.25", 0.25),
        ("share", "1e-9", 1e-9),
        ("open", "none", None),
        ("open", "0", 0.0),
        ("on", "OFF", False),
        ("word", "none", "none"),
        ("choice", "z", "z"),
        ("numbers", "1, 2 3", (1, 2, 3)),
        ("numbers", "", ()),
        ("words", "a,b", ("a", "b")),
    ],
)
def test_a_text_is_read_as_its_fields_type(name: str, text: str, value: object) -> None:
    read = FIELDS[f"sample.{name}"].parse(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 0),
        ("count", 1.0),
        ("count", True),
        ("count", None),
        ("count", "none"),
        ("share", 0),
        ("share", 1),
        ("share", math.nan),
        ("share", "0.5"),
        ("open", -1),
        ("open", math.inf),
        ("open", 10**400),
        ("on", 1),
        ("word", 1),
        ("word", None),
        ("choice", "w"),
        ("choice", ["x"]),
        ("numbers", 3),
        ("numbers", [0]),
        ("count", 2**63),
        ("count", 10**400),
        ("share", 10**400),
        ("numbers", [2**63]),
        ("numbers", [1, True]),
        ("words", "ab"),
        ("words", [1]),
    ],
)
def test_another_value_is_refused_with_path_value_and_what_it_should_be(name: str, value: Any) -> None:
    field = FIELDS[f"sample.{name}"]
    with pytest.raises(UsageError) as error:
        field.check(value)
    assert str(error.value) == f"sample.{name} {quoted(value)} should be {field.wanted}"
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "text", ["", " ", "１", "1_0", "0x10", "1e999", "nan", "-inf", "9" * 400, "9" * 9999, "1" + "０" * 5]
)
@pytest.mark.parametrize("name", ["count", "share", "numbers"])
def test_a_number_is_plain_digits_in_range(name: str, text: str) -> None:
    if (name, text.strip()) == ("numbers", ""):
        assert FIELDS["sample.numbers"].parse(text) == ()
        return
    with pytest.raises(UsageError, match=r"^sample.* should be [a-z ]*numbers?.*$"):
        FIELDS[f"sample.{name}"].parse(text)


def test_choices_in_words() -> None:
    assert [either(choices) for choices in ((1,), (1, 5), (1, 5, 10))] == ["1", "1 or 5", "1, 5 or 10"]


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_a_number_is_taken_just_where_it_is_in_range(number: float) -> None:
    field = FIELDS["sample.share"]
    if math.isfinite(number) and 0 < number < 1:
        assert field.check(number) == number
    else:
        with pytest.raises(UsageError):
            field.check(number)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(UsageError, match=r"^sample.count is missing; it should be a whole number of at least 1$"):
        checked(Sample, "sample", {})


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^sample.cuont is not a setting; did you mean sample.count\?$"):
        checked(Sample, "sample", {"cuont": 1})


def test_values_replace_those_of_an_instance() -> None:
    assert checked(Sample, "sample", {"share": 0.75}, Sample(count=2)) == Sample(count=2, share=0.75)
    assert checked(Sample, "sample", {"numbers": [1, 2], "count": 4}) == Sample(count=4, numbers=(1, 2))
