"""What the report says of images is what the network does with them."""

import numpy as np
import pytest
import torch

from alexnet.data.decode import square
from alexnet.data.run_data import open_inputs
from alexnet.inference.load import load
from alexnet.report.analysis import NEAREST, observe


@pytest.fixture(scope="module")
def classifier(trained):
    return load(trained.path)


@pytest.fixture(scope="module")
def seen(classifier):
    return observe(classifier)


def test_the_test_split_is_looked_at(seen):
    assert (seen.split, seen.count) == ("test", 16)


def test_the_confusion_matrix_counts_every_image(seen):
    assert seen.confusion.sum(1).tolist() == [4, 4, 4, 4]
    assert 100 * (1 - np.trace(seen.confusion) / 16) == pytest.approx(seen.top1_error)


def test_labels_and_probabilities_are_the_classifiers(classifier, seen):
    split = open_inputs(classifier.config).split("test")
    keys = {split.key(i): i for i in range(len(split))}
    for example in seen.examples:
        prediction = classifier.predict(split.read(keys[example.key]), top=4)[0]
        assert tuple(classifier.classes[label] for label in example.labels) == prediction.labels
        assert example.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
        assert example.truth == split.labels[keys[example.key]]


def test_examples_by_lot_begin_with_one_of_each_class(seen):
    by_lot = [example.truth for example in seen.examples if example.by_lot]
    assert sorted(by_lot[:4]) == [0, 1, 2, 3] and len(by_lot) == 8


def test_the_other_examples_are_mistakes(seen):
    assert all(not example.right for example in seen.examples if not example.by_lot)


def test_the_same_examples_are_drawn_each_time(classifier, seen):
    assert [example.key for example in observe(classifier).examples] == [example.key for example in seen.examples]


def test_nearest_images_are_those_of_a_plain_search(classifier, seen):
    inputs = open_inputs(classifier.config)
    features = [_features(classifier, inputs.train, range(len(inputs.train))), _features(classifier, *_find(inputs))]
    test = {inputs.split("test").key(i): row for i, row in enumerate(features[1])}
    for example in seen.examples:
        distances = np.linalg.norm(features[0] - test[example.key], axis=1)
        wanted = np.sort(distances)[:NEAREST]
        assert [near.distance for near in example.nearest] == pytest.approx(wanted.tolist(), rel=1e-4)
        best = inputs.train.key(int(distances.argmin()))
        assert example.nearest[0].key == best


def test_a_large_training_set_is_searched_in_part(classifier):
    seen = observe(classifier, gallery=10)
    assert (seen.gallery, seen.train) == (10, 44)
    keys = {near.key for example in seen.examples for near in example.nearest}
    assert len(keys) <= 10


def _find(inputs):
    split = inputs.split("test")
    return split, range(len(split))


def _features(classifier, split, positions):
    """The last hidden layer's activations, one image at a time, float64."""
    size = classifier.config.data.size
    images = [torch.from_numpy(square(split.read(i), size))[None] for i in positions]
    return np.stack([classifier.taps(image, ["relu4"])["relu4"][0].double().numpy() for image in images])
