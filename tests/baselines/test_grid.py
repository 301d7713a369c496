"""Patches, boxes and lengths against loops."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.grid import cell_sums, centres, grey, starts, unit_length


@pytest.mark.parametrize(
    ("side", "patch", "step", "wanted"),
    [(16, 8, 4, [0, 4, 8]), (17, 8, 4, [0, 4, 8]), (18, 8, 4, [1, 5, 9]), (9, 8, 4, [0]), (10, 4, 3, [0, 3, 6])],
)
def test_patches_lie_in_the_middle_of_what_is_left(side: int, patch: int, step: int, wanted: list[int]) -> None:
    assert starts(side, patch, step).tolist() == wanted
    assert centres(side, patch, step) == pytest.approx([(first + patch / 2) / side for first in wanted])


@pytest.mark.parametrize(
    ("cells", "patch", "step"), [(4, 8, 4), (2, 6, 2), (2, 6, 3), (4, 12, 5), (1, 5, 2), (4, 16, 3)]
)
def test_sums_over_cells_are_those_of_a_loop(cells: int, patch: int, step: int) -> None:
    maps = np.random.default_rng(0).integers(0, 9, (2, 17, 17, 3)).astype(np.float32)
    first, width = starts(17, patch, step), patch // cells
    found = cell_sums(maps, cells, patch, step)
    assert found.shape == (2, len(first), len(first), cells, cells, 3)
    for i, top in enumerate(first):
        for j, left in enumerate(first):
            for row in range(cells):
                for column in range(cells):
                    y, x = top + row * width, left + column * width
                    wanted = maps[:, y : y + width, x : x + width].sum(axis=(1, 2))
                    assert (found[:, i, j, row, column] == wanted).all()


def test_vectors_get_the_length_1_and_short_ones_become_zeros() -> None:
    vectors = np.array([[3, 4], [0, 0], [0.3, 0.4]], np.float32)
    np.testing.assert_allclose(unit_length(vectors, 1.0), [[0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(unit_length(vectors), [[0.6, 0.8], [0, 0], [0.6, 0.8]], rtol=1e-6)


def test_grey_is_the_weighted_sum_of_the_channels() -> None:
    picture = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]]], np.uint8)
    assert grey(picture)[0, 0] == pytest.approx([76.245, 149.685, 29.07, 255], abs=1e-3)
