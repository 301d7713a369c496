"""Squares brought to another size: the weights, a loop over them in whole numbers, and Pillow."""

import numpy as np
import pytest
from PIL import Image

from alexnet.engine import resize as module
from alexnet.engine.library import library
from alexnet.engine.resize import UNIT, filter_weights, resize

SIDES = [(48, 32), (33, 32), (16, 37), (300, 7), (1, 5), (5, 1), (2, 3), (100, 64)]


def picture(side: int) -> np.ndarray:
    """Smooth noise with some extremes."""
    small = np.random.default_rng(side).integers(0, 256, (side // 4 + 1, side // 4 + 1, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    pixels[:: max(1, side // 3)] = 255
    return pixels


def by_loops(pixels: np.ndarray, size: int) -> np.ndarray:
    first, weights = filter_weights(len(pixels), size)

    def mixed(values: np.ndarray) -> np.ndarray:
        rows = []
        for start, shares in zip(first.tolist(), weights.astype(np.int64), strict=True):
            total = sum(int(share) * values[start + t].astype(np.int64) for t, share in enumerate(shares))
            rows.append((total + UNIT // 2) // UNIT)
        return np.array(rows)

    return mixed(mixed(pixels).transpose(1, 0, 2)).transpose(1, 0, 2)


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_the_library_and_numpy_give_the_bits_of_whole_numbers(
    side: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(side)
    expected = by_loops(pixels, size)
    np.testing.assert_array_equal(resize(pixels, size), expected)
    monkeypatch.setattr(module, "library", lambda: None)
    np.testing.assert_array_equal(resize(pixels, size), expected)


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_it_is_what_pillow_does_within_its_rounding(side: int, size: int) -> None:
    pixels = picture(side)
    theirs = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    difference = np.abs(resize(pixels, size).astype(int) - theirs)
    assert difference.max() <= 2 and difference.mean() < 0.3


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_weights_are_whole_and_sum_to_one_row(side: int, size: int) -> None:
    first, weights = filter_weights(side, size)
    assert (weights >= 0).all() and (weights == np.rint(weights)).all() and (weights.sum(axis=1) == UNIT).all()
    assert first.min() >= 0 and (first + weights.shape[1]).max() <= side


def test_a_flat_picture_stays_flat() -> None:
    for value in (0, 1, 127, 255):
        assert (resize(np.full((50, 50, 3), value, np.uint8), 33) == value).all()


def test_pixels_may_lie_anywhere() -> None:
    whole = picture(60)
    part = whole[5:45, 7:47]
    expected = resize(np.ascontiguousarray(part), 16)
    np.testing.assert_array_equal(resize(part, 16), expected)
    np.testing.assert_array_equal(resize(part[::-1, ::-1], 16)[::-1, ::-1], resize(part, 16))
    bare = part.copy()
    bare.setflags(write=False)
    np.testing.assert_array_equal(resize(bare, 16), expected)


def test_the_library_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    if library() is None:
        pytest.skip("there is no compiled library")
    monkeypatch.setattr(module, "_mixed", lambda *_: pytest.fail("computed by NumPy"))
    resize(picture(20), 10)
