"""Messages stay one printable line of bounded length, whatever they are made of."""

from pathlib import Path

import pytest

from alexnet.errors import MOST, DataError, RunError, quoted


@pytest.mark.parametrize(
    "value, text",
    [
        ("a.jpg", "'a.jpg'"),
        (b"a\xff", "b'a\\xff'"),
        (Path("x/y"), "'x/y'"),
        ("a\nb\x1b[2J", "'a\\nb\\x1b[2J'"),
        ("\u202egnp.exe", "'\\u202egnp.exe'"),
        ("\udcff", "'\\udcff'"),
        (-3, "-3"),
        (1.5, "1.5"),
        (None, "null"),
        (True, "true"),
        ([1, None, {"a": False}], "[1, null, {'a': false}]"),
        (10**400, "a number of 1329 bits"),
    ],
)
def test_a_value_is_written_as_python_would_but_for_what_json_has_too(value, text):
    assert quoted(value) == text


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


class Rude:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    ["x" * (1 << 24), b"\0" * (1 << 24), "\n" * 81, 10**10_000, nested(100_000), ["y" * 5000] * 5000, {1: "\n" * 999}]
    + [Rude()],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("most", [20, 80])
def test_any_value_becomes_a_short_printable_text(value, most):
    text = quoted(value, most)
    assert 0 < len(text) <= most and text.isprintable()


def test_both_ends_of_a_long_name_are_shown():
    text = quoted("train/" + "x" * 500 + "/cat.jpg")
    assert text.startswith("'train/x") and text.endswith("x/cat.jpg'") and "…" in text and len(text) == 80


@pytest.mark.parametrize("kind", [DataError, RunError])
def test_a_message_is_one_printable_line(kind):
    text = str(kind("shards/a\nb.tar: " + "z" * 5000 + " ends"))
    assert len(text) <= MOST and text.isprintable() and text.startswith("shards/a\\nb.tar") and text.endswith(" ends")
    assert str(kind("plain words, as they are: “é”")) == "plain words, as they are: “é”"
