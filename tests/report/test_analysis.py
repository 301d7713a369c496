"""What the report says of images is what the network does with them."""

import shutil

import numpy as np
import pytest

from alexnet.data.run_data import open_run_data
from alexnet.errors import DataError
from alexnet.inference.load import load
from alexnet.report.analysis import NEIGHBOURS, analyse
from alexnet.run import Run


@pytest.fixture(scope="module")
def predictor(trained):
    return load(trained.path)


@pytest.fixture(scope="module")
def analysis(predictor, trained):
    return analyse(predictor, trained)


def test_the_test_split_is_analysed(analysis):
    assert (analysis.split, analysis.measurement.count) == ("test", 16)


def test_the_confusion_matrix_counts_every_image(analysis):
    assert analysis.confusion.sum(1).tolist() == [4, 4, 4, 4]
    assert 100 * (1 - np.trace(analysis.confusion) / 16) == pytest.approx(analysis.measurement.top1_error)


def test_labels_and_probabilities_are_the_predictors(predictor, trained, analysis):
    split = open_run_data(trained.config).split("test")
    positions = {split.image_name(i): i for i in range(len(split))}
    for example in analysis.examples:
        prediction = predictor.predict(split.decode(positions[example.name]), top=4)[0]
        assert tuple(predictor.classes[label] for label in example.labels) == tuple(prediction.labels)
        assert example.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
        assert example.truth == split.labels[positions[example.name]]


def test_images_are_shown_as_the_network_is_given_them(trained, analysis):
    data = open_run_data(trained.config)
    size = trained.config.data.size
    for split, shown in (
        (data.split("test"), analysis.examples),
        (data.train, [near for example in analysis.examples for near in example.neighbours]),
    ):
        positions = {split.image_name(i): i for i in range(len(split))}
        for image in shown:
            np.testing.assert_array_equal(image.image, split.resize_crop(positions[image.name], size))


def test_random_examples_begin_with_one_of_each_class(analysis):
    truths = [example.truth for example in analysis.examples if example.random]
    assert sorted(truths[:4]) == [0, 1, 2, 3] and len(truths) == 8


def test_the_other_examples_are_the_mistakes_of_the_highest_probability(predictor, trained, analysis):
    split = open_run_data(trained.config).split("test")
    drawn = {example.name for example in analysis.examples if example.random}
    wrong = {}
    for i in range(len(split)):
        guess = predictor.predict(split.decode(i), top=1)[0]
        if guess.labels[0] != predictor.classes[split.labels[i]] and split.image_name(i) not in drawn:
            wrong[split.image_name(i)] = guess.probabilities[0]
    expected = sorted(wrong.values(), reverse=True)[:4]
    mistakes = [example for example in analysis.examples if not example.random]
    assert [example.probabilities[0] for example in mistakes] == pytest.approx(expected, abs=1e-5)
    assert not any(example.right for example in mistakes)


def test_the_same_examples_are_drawn_each_time(predictor, trained, analysis):
    again = analyse(predictor, trained)
    assert [example.name for example in again.examples] == [example.name for example in analysis.examples]


def test_nearest_images_are_those_of_a_plain_search(predictor, trained, analysis):
    data = open_run_data(trained.config)
    train, test = data.train, data.split("test")
    vectors = _activations(predictor, train)
    queries = dict(zip(map(test.image_name, range(len(test))), _activations(predictor, test), strict=True))
    assert analysis.hidden_layer == "relu4" and analysis.hidden_units == vectors.shape[1]
    for example in analysis.examples:
        distances = np.linalg.norm(vectors - queries[example.name], axis=1)
        expected = np.sort(distances)[:NEIGHBOURS]
        assert [near.distance for near in example.neighbours] == pytest.approx(expected.tolist(), rel=1e-4)
        assert example.neighbours[0].name == train.image_name(int(distances.argmin()))
        for near in example.neighbours:
            assert near.label == train.labels[[train.image_name(i) for i in range(len(train))].index(near.name)]


def test_a_large_training_set_is_searched_in_part(predictor, trained):
    analysis = analyse(predictor, trained, searched=10)
    assert (analysis.searched, analysis.training_images) == (10, 44)
    assert len({near.name for example in analysis.examples for near in example.neighbours}) <= 10


def test_images_of_other_classes_are_told_with_what_to_do(predictor, folder, trained, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    name = predictor.classes[-1]
    for path in other.glob(f"**/{name}"):
        path.rename(path.with_name("zebra"))
    with pytest.raises(
        DataError, match=rf"is not what the run began with: other classes \(gone: '{name}'; new: 'zebra'\).*--data"
    ):
        analyse(predictor, trained, data=str(other))


def test_unreadable_images_are_left_out(predictor, folder, trained, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "pictures")
    (copy / "test" / "plain" / "1.png").write_bytes(b"nothing")
    run = _with_source(trained, tmp_path / "run", copy)
    analysis = analyse(predictor, run)
    assert (analysis.measurement.count, analysis.measurement.unreadable) == (15, 1)
    assert not any(example.name.endswith("plain/1.png") for example in analysis.examples)
    for path in (copy / "test").glob("*/*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the 16 images of the test split can be read"):
        analyse(predictor, run)


def _with_source(run, path, source):
    """A copy of a run whose images are somewhere else."""
    text = (run.path / "config.json").read_text()
    path.mkdir()
    (path / "config.json").write_text(text.replace(run.config.data.source, str(source)))
    return Run.open(path)


def _activations(predictor, split):
    """The last hidden layer's activations, one image at a time, float64."""
    size = predictor.size
    images = [split.resize_crop(i, size)[None] for i in range(len(split))]
    return np.stack([predictor.taps(image, ["relu4"])["relu4"][0].astype(np.float64) for image in images])
