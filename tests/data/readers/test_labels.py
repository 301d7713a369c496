"""Labels and names of classes from strangers' files: used, or refused with the file, the place and the value."""

import numpy as np
import pytest

from alexnet.data.dataset import ArraySplit
from alexnet.data.readers.labels import MAX_CLASSES, MAX_UNNAMED, check_label, check_names, numbered
from alexnet.errors import DataError


@pytest.mark.parametrize("value", [7, "7", b"7", b" 7\n", "+7", b"007"])
def test_whole_numbers_and_their_digits_are_labels(value):
    assert check_label("a.tar: sample 'x'", value) == 7


@pytest.mark.parametrize(
    "value",
    [
        -1,
        MAX_CLASSES,
        5 * 10**7,
        10**400,
        "9" * 5000,
        b"9" * 10_000,
        True,
        1.0,
        float("nan"),
        float("inf"),
        None,
        [],
        {},
    ]
    + ["", b"", "1_0", "0x1", "1.0", "cat\n", b"\xff", "\u0663", [[[[1]]]]],
    ids=lambda value: type(value).__name__,
)
def test_any_other_value_is_named(value):
    with pytest.raises(DataError, match="^a.tar: sample 'x': the label ") as caught:
        check_label("a.tar: sample 'x'", value)
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "names, words",
    [
        (None, "no list"),
        ({"a": 1}, "no list"),
        ("cat", "no list"),
        (["cat", 3], "class 1 must be a text"),
        (["cat", ""], "class 1 must be a text"),
        (["x" * 1001], "class 0 must be a text"),
        (["cat", "dog", "cat"], "classes 0 and 2 are both called 'cat'"),
        (["a"] * (MAX_CLASSES + 1), "at most"),
    ],
)
def test_names_that_are_none_are_refused(names, words):
    with pytest.raises(DataError, match=words) as caught:
        check_names("classes.txt", names)
    assert str(caught.value).startswith("classes.txt: ") and len(str(caught.value)) < 250


def test_classes_without_names_are_numbers_up_to_a_bound():
    def split(*labels):
        return ArraySplit("train", np.zeros((len(labels), 1, 1, 3), np.uint8), np.array(labels, np.int64), [])

    assert list(numbered("x", [split(0, 2), split(1)])) == ["0", "1", "2"]
    assert len(numbered("x", [split(0, MAX_UNNAMED - 1)])) == MAX_UNNAMED
    with pytest.raises(DataError, match=f"label {MAX_UNNAMED}"):
        numbered("x", [split(0, MAX_UNNAMED)])
