"""The views of a square, and what its pixels are less and times."""

import numpy as np
import pytest

from alexnet.data.views import IMAGENET_MEAN, IMAGENET_STD, centring, views


def test_the_ten_views_are_four_corners_and_the_centre_each_mirrored() -> None:
    places = {(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)}
    assert len(views(10, 256, 224)) == 10
    assert set(views(10, 256, 224)) == {(row, column, mirror) for row, column in places for mirror in (False, True)}
    assert set(views(5, 256, 224)) == {(row, column, False) for row, column in places}


def test_one_view_is_the_centre_and_not_mirrored() -> None:
    assert views(1, 256, 224) == [(16, 16, False)]
    assert views(1, 19, 14) == [(2, 2, False)]
    assert set(views(10, 14, 14)) == {(0, 0, False), (0, 0, True)}


@pytest.mark.parametrize("count", [0, 2, 11, -1])
def test_another_number_of_views_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count}.*1, 5 or 10"):
        views(count, 256, 224)


def test_squares_are_centred_as_the_setting_says() -> None:
    image = np.random.default_rng(0).random((4, 4, 3), np.float32)
    assert centring("none", 4, image) == (None, None)
    mean, scale = centring("mean-image", 4, image)
    assert mean is image and scale is None
    mean, scale = centring("imagenet", 4, image)
    assert mean is not None and scale is not None and mean.shape == (4, 4, 3)
    np.testing.assert_allclose(mean[2, 3], IMAGENET_MEAN)
    np.testing.assert_allclose(scale * IMAGENET_STD, 1, rtol=1e-6)
