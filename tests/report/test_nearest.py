"""The nearest vectors are those of a plain search."""

import numpy as np
import pytest
import torch

from alexnet.report.nearest import features, nearest


@pytest.mark.parametrize("part", [1, 7, 100])
def test_the_nearest_are_those_of_a_plain_search_whatever_the_batches(part):
    rng = np.random.default_rng(0)
    queries, vectors = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    batches = [
        (torch.arange(first, min(first + part, 40)), torch.from_numpy(vectors[first : first + part]))
        for first in range(0, 40, part)
    ]
    distances, positions = nearest(torch.from_numpy(queries), batches, 6)
    plain = np.linalg.norm(queries[:, None].astype(np.float64) - vectors, axis=2)
    np.testing.assert_array_equal(positions, np.argsort(plain, axis=1)[:, :6])
    np.testing.assert_allclose(distances, np.sort(plain, axis=1)[:, :6], rtol=1e-5)


def test_fewer_vectors_than_are_asked_for_are_all_found():
    distances, positions = nearest(torch.zeros(2, 3), [(torch.tensor([4, 9]), torch.eye(3)[:2] * 2)], 6)
    assert distances.tolist() == [[2, 2], [2, 2]]
    assert sorted(positions[0].tolist()) == [4, 9]


def test_features_are_one_vector_per_image():
    class Maps:
        def taps(self, images, names=None):
            return {name: images.transpose(0, 3, 1, 2).astype(np.float32) for name in names}

    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    vectors = features(Maps(), images, "conv5")
    assert vectors.shape == (2, 48) and vectors.dtype == torch.float32
    assert vectors[1].tolist() == images[1].transpose(2, 0, 1).ravel().tolist()
