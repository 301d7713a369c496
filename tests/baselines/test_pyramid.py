"""Regions of a pyramid, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.baselines.pyramid import count_regions, parse_levels, regions_of
from alexnet.errors import UsageError


def test_every_patch_lies_in_one_region_of_each_level() -> None:
    places = np.array([[0.1, 0.1], [0.1, 0.9], [0.6, 0.4], [0.99, 1.0]])
    (whole, one), (quarters, four), (rows, three) = regions_of(places, parse_levels(["1x1", "2x2", "3x1"]))
    assert (one, four, three) == (1, 4, 3) and count_regions([(1, 1), (2, 2), (3, 1)]) == 8
    assert whole.tolist() == [0, 0, 0, 0]
    assert quarters.tolist() == [0, 1, 2, 3]
    assert rows.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("texts", [[], ["2"], ["0x1"], ["1x1", "1x1"], ["1x10"], ["1x1 "]])
def test_a_wrong_level_is_told(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="pyramid"):
        parse_levels(texts)
