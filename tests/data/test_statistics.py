"""The mean image and PCA against NumPy in float64 on the whole set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data import statistics
from alexnet.data.dataset import ArraySplit
from alexnet.data.readers.open import open_source
from alexnet.data.statistics import Accumulator, Statistics, fit
from alexnet.errors import DataError


def images_of(seed, n, size):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (n, size, size, 1))
    return np.clip(base + rng.integers(-60, 60, (n, size, size, 3)), 0, 255).astype(np.uint8)


def check(found, images):
    pixels = images.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    assert found.count == len(images)
    np.testing.assert_allclose(found.mean_image, images.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found.rgb_mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.rgb_covariance, covariance, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-8, atol=1e-6)
    rebuilt = found.eigenvectors @ np.diag(found.eigenvalues) @ found.eigenvectors.T
    np.testing.assert_allclose(rebuilt, found.rgb_covariance, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(found.eigenvectors.T @ found.eigenvectors, np.eye(3), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 1000))
def test_statistics_are_those_of_numpy(n, size, seed):
    images = images_of(seed, n, size)
    sums = Accumulator(size)
    for part in np.array_split(images, 3):
        sums.add(part)
    check(sums.statistics(), images)


def test_many_images_of_one_value_lose_nothing():
    sums = Accumulator(64)
    for _ in range(20):
        sums.add(np.full((300, 64, 64, 3), 255, np.uint8))
    found = sums.statistics()
    assert (found.rgb_mean == 255).all() and (found.mean_image == 255).all() and (found.rgb_covariance == 0).all()


def test_a_tiny_variation_on_a_large_mean_is_seen():
    images = np.full((4, 256, 256, 3), 250, np.uint8)
    images[2, 17, 33] = (251, 250, 249)
    sums = Accumulator(256)
    sums.add(images)
    check(sums.statistics(), images)


def test_the_order_and_the_division_of_the_work_do_not_matter():
    images = images_of(1, 57, 20)
    one, other, rest = Accumulator(20), Accumulator(20), Accumulator(20)
    one.add(images)
    other.add(images[40:])
    rest.add(images[:40][::-1])
    other.merge(Accumulator.from_state(rest.state()))
    assert (one.sums == other.sums).all() and (one.products == other.products).all() and one.count == other.count


def test_the_largest_component_of_an_eigenvector_is_positive():
    sums = Accumulator(16)
    sums.add(images_of(3, 30, 16))
    vectors = sums.statistics().eigenvectors
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()


def test_fitting_a_split_squares_its_images_first():
    split = open_source("digits").splits["train"]
    from alexnet.data.preprocess import square

    check(fit(split, 11), np.stack([square(image, 11) for image in split.images]))


def test_statistics_survive_saving_and_saving_is_repeatable(tmp_path):
    found = fit(open_source("digits").splits["test"], 8)
    found.save(tmp_path / "a.npz")
    found.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    again = Statistics.load(tmp_path / "a.npz")
    assert again.count == found.count and again.mean_image.dtype == np.float32
    assert (again.eigenvectors == found.eigenvectors).all() and (again.mean_image == found.mean_image).all()


@pytest.mark.parametrize("data", [None, b"", b"not a zip", b"PK\x03\x04" + b"\x00" * 40])
def test_what_is_no_statistics_is_named(tmp_path, data):
    path = tmp_path / "statistics.npz"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match="statistics.npz"):
        Statistics.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean_image", np.full((8, 8, 3), np.nan, np.float32)),
        ("mean_image", np.zeros((8, 7, 3), np.float32)),
        ("mean_image", np.zeros((0, 0, 3), np.float32)),
        ("mean_image", np.zeros((), np.float32)),
        ("mean_image", np.zeros((8, 8, 3), np.float64)),
        ("mean_image", np.full((8, 8, 3), 256, np.float32)),
        ("rgb_mean", np.array([1, np.inf, 1])),
        ("rgb_covariance", np.zeros(3)),
        ("eigenvalues", np.array([1.0, 0, -1e-3])),
        ("eigenvectors", np.full((3, 3), 2.0)),
        ("count", np.int64(0)),
        ("count", np.float64(3)),
        ("count", np.array([print], dtype=object)),
        ("more", np.zeros(3)),
    ],
)
def test_statistics_that_no_images_have_are_refused(tmp_path, name, value):
    path = tmp_path / "statistics.npz"
    fit(open_source("digits").splits["test"], 8).save(path)
    np.savez(path, **{**np.load(path), name: value})
    with pytest.raises(DataError, match=r"statistics\.npz"):
        Statistics.load(path)


def test_no_images_have_no_statistics():
    with pytest.raises(DataError, match="no readable images"):
        Accumulator(8).statistics()


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 9, 8, 3), np.uint8)])
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match="uint8"):
        Accumulator(8).add(images)


def test_unreadable_images_do_not_count():
    from alexnet.errors import UnreadableImage

    class Half(ArraySplit):
        def decode(self, i, shortest=0):
            if i % 2:
                raise UnreadableImage("gone")
            return self.images[i]

    images = images_of(5, 10, 8)
    split = Half("train", images, np.zeros(10, np.int64), [str(i) for i in range(10)])
    check(fit(split, 8), images[::2])


@pytest.mark.parametrize("side", [1, 3, 64, 300])
def test_native_products_are_the_exact_ones(side: int) -> None:
    rng = np.random.default_rng(side)
    for images in (
        rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8),
        np.zeros((1, side, side, 3), np.uint8),
        np.full((1, side, side, 3), 255, np.uint8),
    ):
        values = images.reshape(-1, 3).astype(np.int64) - 128
        exact = values.T @ values
        assert np.array_equal(statistics._products(images), exact)
        assert np.array_equal(statistics._matrix_products(images), exact)
    view = np.flip(images, 2)
    assert np.array_equal(statistics._products(view), exact)
