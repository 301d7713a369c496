"""Descriptors against scikit-image, against loops, and against OpenCV called for one patch."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.colour import colour
from alexnet.baselines.descriptors import DESCRIBE, Grid
from alexnet.baselines.grid import grey, starts
from alexnet.baselines.hog import hog
from alexnet.baselines.lbp import code_table, lbp, lbp_codes
from alexnet.baselines.settings import DESCRIPTORS
from alexnet.baselines.sift import sift
from alexnet.engine.resize import resize
from tests.baselines.paintings import paintings


def test_hog_is_that_of_scikit_image() -> None:
    feature = pytest.importorskip("skimage.feature")
    images = paintings(3, 32)
    found = hog(images, 16, 4)
    for image, mine in zip(images, found, strict=True):
        theirs = feature.hog(
            image.astype(np.float64),
            orientations=9,
            pixels_per_cell=(4, 4),
            cells_per_block=(4, 4),
            block_norm="L2-Hys",
            channel_axis=-1,
            feature_vector=False,
        )
        assert mine.shape[:2] == theirs.shape[:2]
        np.testing.assert_allclose(mine, theirs.reshape(*theirs.shape[:2], -1), atol=2e-3)


def test_patches_without_contrast_are_zeros_and_not_noise() -> None:
    flat = np.full((1, 16, 16, 3), 90, np.uint8)
    for name in ("hog", "sift"):
        assert not DESCRIBE[name](flat, 8, 4).any(), name


def test_the_59_codes_are_those_of_scikit_image() -> None:
    feature = pytest.importorskip("skimage.feature")
    for picture in np.rint(grey(paintings(3, 24))):
        theirs = feature.local_binary_pattern(picture.astype(np.uint8), 8, 1, method="nri_uniform")
        mine = lbp_codes(picture[None])[0]
        assert (mine == theirs).all()
        assert mine.max() > 40 and len(np.unique(mine)) > 20


def test_58_patterns_have_a_code_of_their_own() -> None:
    table = code_table()
    uniform = [p for p in range(256) if bin(p ^ ((p >> 1) | (p & 1) << 7)).count("1") <= 2]
    assert len(uniform) == 58 == len({int(table[p]) for p in uniform})
    assert {int(table[p]) for p in range(256) if p not in uniform} == {58}


def test_lbp_counts_the_codes_of_each_cell() -> None:
    images = paintings(2, 20)
    codes, found = lbp_codes(np.rint(grey(images))), lbp(images, 8, 4)
    for i, top in enumerate(starts(20, 8, 4)):
        for j, left in enumerate(starts(20, 8, 4)):
            cells = [codes[1, y : y + 4, x : x + 4] for y in (top, top + 4) for x in (left, left + 4)]
            counts = np.concatenate([np.bincount(cell.ravel(), minlength=59) for cell in cells])
            np.testing.assert_allclose(found[1, i, j], np.sqrt(counts / 64), atol=1e-6)


def test_colours_are_means_and_deviations_of_the_cells() -> None:
    images = paintings(2, 20)
    found = colour(images, 8, 4)
    for i, top in enumerate(starts(20, 8, 4)):
        for j, left in enumerate(starts(20, 8, 4)):
            wanted = []
            for y in range(top, top + 8, 2):
                for x in range(left, left + 8, 2):
                    cell = images[0, y : y + 2, x : x + 2].reshape(-1, 3) / 255
                    wanted += [*cell.mean(axis=0), *cell.std(axis=0)]
            np.testing.assert_allclose(found[0, i, j], wanted, atol=1e-5)


def test_sift_is_opencvs_for_every_patch_row_by_row() -> None:
    cv2 = pytest.importorskip("cv2")
    images = paintings(2, 32)
    found = sift(images, 12, 4)
    detector = cv2.SIFT_create()
    for i, top in enumerate(starts(32, 12, 4)):
        for j, left in enumerate(starts(32, 12, 4)):
            point = cv2.KeyPoint(float(left) + 5.5, float(top) + 5.5, 2.0, 0.0, 1.0, 0)
            one = detector.compute(np.rint(grey(images))[1].astype(np.uint8), [point])[1][0]
            np.testing.assert_allclose(found[1, i, j], np.sqrt(one / one.sum()), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)


def test_a_grid_describes_patches_of_all_sizes_in_enlarged_pictures() -> None:
    pytest.importorskip("cv2")
    images, grid = paintings(2, 16), Grid(32, (8, 16), 8)
    large = np.stack([resize(image, 32) for image in images])
    assert DESCRIBE.keys() == DESCRIPTORS.keys()
    for name, compute in DESCRIBE.items():
        found = grid.describe(name, images)
        assert found.shape == (2, 16 + 9, DESCRIPTORS[name].length) and found.dtype == np.float32
        assert (found[:, :16] == compute(large, 8, 8).reshape(2, 16, -1)).all()
        assert (found[:, 16:] == compute(large, 16, 8).reshape(2, 9, -1)).all()
    places = grid.places(16)
    assert places[:2].tolist() == [[0.125, 0.125], [0.125, 0.375]]
    assert places[-1].tolist() == [0.75, 0.75]
