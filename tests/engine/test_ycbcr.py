"""Planes of luma and halved chroma: near the square, the same bytes with the library and without, at every edge."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from alexnet.engine import ycbcr
from alexnet.engine.library import library
from alexnet.engine.ycbcr import crop, plain_crop, planes_bytes, to_planes

native = pytest.mark.skipif(library() is None, reason="no compiled library here, or switched off")


def noise(side: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def extreme(side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Planes of bytes at the ends of their range, which no square has: every clamp is reached."""
    return np.random.default_rng(seed).choice(np.array([0, 1, 254, 255], np.uint8), planes_bytes(side))


def whole(planes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    out = np.empty((side, side, 3), np.uint8)
    crop(planes, side, 0, 0, out)
    return out


@native
@settings(max_examples=150, deadline=None)
@given(st.integers(1, 70), st.booleans(), st.data())
def test_the_library_gives_the_bytes_of_the_plain_version(side: int, hostile: bool, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, side)), data.draw(st.integers(0, side))
    top, left = data.draw(st.integers(0, side - rows)), data.draw(st.integers(0, side - columns))
    planes = extreme(side, side) if hostile else to_planes(noise(side, side))
    guarded = np.full(rows * columns * 3 + 2, 7, np.uint8)
    compiled, plain = guarded[1:-1].reshape(rows, columns, 3), np.empty((rows, columns, 3), np.uint8)
    crop(planes, side, top, left, compiled)
    plain_crop(planes, side, top, left, plain)
    assert np.array_equal(compiled, plain) and guarded[0] == guarded[-1] == 7


@native
@pytest.mark.parametrize(("left", "columns"), [(0, 2101), (1, 2100), (2, 1024), (75, 1025), (1023, 1078), (1077, 1024)])
def test_a_row_wider_than_a_block_has_no_seam(left: int, columns: int) -> None:
    side = 2101
    planes, compiled, plain = extreme(side), np.empty((2, columns, 3), np.uint8), np.empty((2, columns, 3), np.uint8)
    crop(planes, side, side - 2, left, compiled)
    plain_crop(planes, side, side - 2, left, plain)
    assert np.array_equal(compiled, plain)


@pytest.mark.parametrize("side", [1, 2, 7, 16, 33])
def test_a_crop_is_cut_from_the_whole_square(side: int) -> None:
    planes = to_planes(noise(side))
    square = whole(planes, side)
    for top, left, rows, columns in [(0, 0, side, 1), (side // 2, side // 3, 1, side // 2), (side - 1, side - 1, 1, 1)]:
        out = np.empty((rows, columns, 3), np.uint8)
        crop(planes, side, top, left, out)
        assert np.array_equal(out, square[top : top + rows, left : left + columns])


@pytest.mark.parametrize("side", [1, 5, 8])
def test_greys_come_back_exactly(side: int) -> None:
    for level in range(256):
        square = np.full((side, side, 3), level, np.uint8)
        assert np.array_equal(whole(to_planes(square), side), square)


@pytest.mark.parametrize("side", [1, 5, 8])
def test_a_single_colour_comes_back_within_two_levels(side: int) -> None:
    for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (12, 200, 90), (130, 129, 128)]:
        square = np.full((side, side, 3), colour, np.uint8)
        assert np.abs(whole(to_planes(square), side).astype(int) - square).max() <= 2


def test_the_planes_are_those_of_jfif() -> None:
    """Pillow's are libjpeg's: rounded down where ours are rounded to the nearest, so at most one level apart."""
    square = noise(64)
    y, cb, cr = np.moveaxis(np.asarray(Image.fromarray(square).convert("YCbCr")).astype(int), 2, 0)
    planes = to_planes(square)
    assert np.abs(planes[:4096].reshape(64, 64) - y).max() <= 1
    for plane, full in zip(planes[4096:].reshape(2, 32, 32), (cb, cr), strict=True):
        assert np.abs(plane - full.reshape(32, 2, 32, 2).mean(axis=(1, 3))).max() <= 1.25


def test_an_odd_side_repeats_its_last_row_and_column() -> None:
    square = noise(7)
    even = np.pad(square, ((0, 1), (0, 1), (0, 0)), mode="edge")
    odd, padded = to_planes(square), to_planes(even)
    assert len(odd) == 7 * 7 + 2 * 4 * 4 == planes_bytes(7)
    assert np.array_equal(odd[49:], padded[64:])
    assert np.array_equal(odd[:49].reshape(7, 7), padded[:64].reshape(8, 8)[:7, :7])


def test_colours_that_change_slowly_are_nearer_than_a_jpegs() -> None:
    coarse = noise(5, 3)
    square = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
    error = np.abs(whole(to_planes(square), 64).astype(int) - square).mean()
    buffer = io.BytesIO()
    Image.fromarray(square).save(buffer, "JPEG", quality=90, subsampling="4:2:0")
    assert error < np.abs(np.asarray(Image.open(buffer)).astype(int) - square).mean()


def test_without_the_library_the_plain_version_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    planes, expected = to_planes(noise(16)), whole(to_planes(noise(16)), 16)
    monkeypatch.setattr(ycbcr, "library", lambda: None)
    assert np.array_equal(whole(planes, 16), expected)


def test_memory_that_is_not_in_one_piece_is_written_all_the_same() -> None:
    planes, expected = to_planes(noise(16)), whole(to_planes(noise(16)), 16)
    out = np.zeros((16, 32, 3), np.uint8)[:, ::2]
    crop(np.repeat(planes, 2)[::2], 16, 0, 0, out)
    assert np.array_equal(out, expected)


@pytest.mark.parametrize(
    ("length", "place", "shape", "message"),
    [
        (383, (0, 0), (4, 4, 3), "planes of 16×16"),
        (385, (0, 0), (4, 4, 3), "planes of 16×16"),
        (384, (0, 0), (4, 4, 4), "planes of 16×16"),
        (384, (13, 0), (4, 4, 3), "does not lie within"),
        (384, (0, 13), (4, 4, 3), "does not lie within"),
        (384, (-1, 0), (4, 4, 3), "does not lie within"),
        (384, (0, 0), (17, 17, 3), "does not lie within"),
    ],
)
def test_what_would_read_outside_the_planes_is_refused(
    length: int, place: tuple[int, int], shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        crop(np.zeros(length, np.uint8), 16, *place, np.empty(shape, np.uint8))
