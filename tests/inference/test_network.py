"""A run's predictions are those of its weights, worked out by hand from its files, whatever form a picture has."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from alexnet.errors import CheckpointError, RunError, UnreadableImage, UsageError
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor, softmax, weights_sha256
from alexnet.model.zoo import create_model
from alexnet.training.loop import train

SIDE, CROP = 16, 14
CENTRE = [(1, 1, False)]
FIVE = [(0, 0, False), (0, 2, False), (2, 0, False), (2, 2, False), (1, 1, False)]
TEN = FIVE + [(row, column, True) for row, column, _ in FIVE]


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def by_hand(run: Path, pixels: np.ndarray, views: list[tuple[int, int, bool]]) -> np.ndarray:
    """Softmax outputs (C,) averaged over the views of one 16×16 image, from the run's files alone."""
    weights = load_file(run / "checkpoints" / "best.safetensors")
    model = create_model("digits", num_classes=7).eval()
    model.load_state_dict(weights)
    mean = np.load(run / "statistics.npz")["mean_image"]
    outputs = []
    for row, column, mirrored in views:
        place = slice(row, row + CROP), slice(column, column + CROP)
        view = pixels[place].astype(np.float32) - mean[place]
        view = view[:, ::-1] if mirrored else view
        with torch.no_grad():
            logits = model(torch.from_numpy(view.transpose(2, 0, 1)[None].copy()))[0].double().numpy()
        powers = np.exp(logits - logits.max())
        outputs.append(powers / powers.sum())
    return np.mean(outputs, axis=0)


@pytest.mark.parametrize(("count", "views"), [(1, CENTRE), (5, FIVE), (10, TEN)])
def test_probabilities_are_the_mean_of_the_views_softmaxes(
    count: int, views: list[tuple[int, int, bool]], trained: Path, seven: Path
) -> None:
    net = load(trained)
    paths = sorted((seven / "test").glob("*/0[01].png"))
    images = np.stack([pixels_of(path) for path in paths])
    found = net.probabilities(images, count)
    wanted = np.stack([by_hand(trained, image, views) for image in images])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_labels_come_with_their_probabilities_the_most_probable_first(trained: Path, seven: Path) -> None:
    path = seven / "test" / "cat" / "00.png"
    (found,) = load(trained).predict(path, top=3)
    wanted = by_hand(trained, pixels_of(path), CENTRE)
    names = sorted(entry.name for entry in (seven / "train").iterdir())
    order = np.argsort(-wanted)[:3]
    assert found.labels == tuple(names[i] for i in order)
    np.testing.assert_allclose(found.probabilities, wanted[order], atol=1e-5)


def test_a_path_its_pixels_and_a_batch_give_the_same(trained: Path, seven: Path) -> None:
    net = load(trained)
    paths = sorted((seven / "test").glob("*/00.png"))
    arrays = [pixels_of(path) for path in paths]
    from_paths = net.predict(paths)
    assert net.predict([str(path) for path in paths]) == from_paths
    assert net.predict(arrays) == from_paths
    assert net.predict(torch.from_numpy(np.stack(arrays))) == from_paths
    for given in (paths[0], str(paths[0]), arrays[0]):
        (alone,) = net.predict(given)
        assert alone.labels == from_paths[0].labels
        np.testing.assert_allclose(alone.probabilities, from_paths[0].probabilities, atol=1e-6)


def test_more_images_than_a_batch_are_predicted_as_each_alone(trained: Path, seven: Path) -> None:
    net = load(trained)
    paths = sorted((seven / "test").glob("*/*.png"))
    assert len(paths) > net.batch_size
    for path, found in zip(paths, net.predict(paths), strict=True):
        (alone,) = net.predict(path)
        assert found.labels == alone.labels
        np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-6)


def test_more_labels_than_classes_are_all_of_them(trained: Path, seven: Path) -> None:
    (found,) = load(trained).predict(seven / "test" / "ant" / "00.png", top=99)
    assert len(found.labels) == len(set(found.labels)) == 7
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)
    assert list(found.probabilities) == sorted(found.probabilities, reverse=True)


def test_an_image_of_another_size_is_brought_to_the_runs(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (90, 61), (200, 40, 40)).save(path)
    assert load(trained).predict(path)[0].labels


def test_no_images_give_no_predictions(trained: Path) -> None:
    assert load(trained).predict([]) == []


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n half"])
def test_a_file_that_is_no_image_is_named(content: bytes, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"odd\.png"):
        load(trained).predict(path)


def test_a_missing_file_and_a_folder_are_named(trained: Path, tmp_path: Path) -> None:
    net = load(trained)
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(UnreadableImage, match=path.name):
            net.predict(path)


@pytest.mark.parametrize(
    "image", [np.zeros((16, 16), np.uint8), np.zeros((16, 16, 4), np.uint8), np.zeros((16, 16, 3), np.float32)]
)
def test_other_arrays_are_refused(image: np.ndarray, trained: Path) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        load(trained).predict([image])


@pytest.mark.parametrize("views", [0, 2, 3, 11])
def test_another_number_of_views_is_refused(views: int, trained: Path, seven: Path) -> None:
    with pytest.raises(ValueError, match="1, 5 or 10"):
        load(trained).predict(seven / "test" / "ant" / "00.png", views=views)


def test_no_label_at_all_is_refused(trained: Path, seven: Path) -> None:
    with pytest.raises(ValueError, match="top 0"):
        load(trained).predict(seven / "test" / "ant" / "00.png", top=0)


def test_best_and_last_are_the_checkpoints_of_those_names(trained: Path) -> None:
    for name in ("best", "last"):
        weights = load_file(trained / "checkpoints" / f"{name}.safetensors")
        net = load(trained, checkpoint=name)
        assert isinstance(net, NetworkPredictor) and net.trained.weights
        for key, value in net.trained.weights.items():
            np.testing.assert_array_equal(value, weights[key].numpy())
    with pytest.raises(RunError, match="best or last"):
        load(trained, checkpoint="first")


def test_a_run_that_validated_nothing_yet_is_loaded_from_its_last_save(
    seven: Path, short: Callable[..., object], tmp_path: Path
) -> None:
    train(short(seven, train__steps="1"), tmp_path / "run")  # type: ignore[arg-type]
    assert len(load(tmp_path / "run").classes) == 7


def test_a_run_without_a_save_is_told(trained: Path, tmp_path: Path) -> None:
    for name in ("config.json", "source.json", "statistics.npz"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    with pytest.raises(CheckpointError, match="has not saved yet"):
        load(tmp_path)


def test_what_is_not_a_run_is_named(seven: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="seven is (no|not a) run directory"):
        load(seven)
    with pytest.raises(RunError, match="no such run directory|not a run directory"):
        load(tmp_path / "absent")


def test_the_taps_of_images_are_their_centre_views(trained: Path, seven: Path) -> None:
    net = load(trained)
    images = np.stack([pixels_of(seven / "test" / "ant" / f"0{i}.png") for i in range(2)])
    (name,) = [name for name in net.taps(images) if name == "fc5"]
    np.testing.assert_allclose(softmax(net.taps(images, [name])[name]), net.probabilities(images), atol=1e-6)


def test_a_loaded_network_does_not_drop_units(trained: Path, seven: Path) -> None:
    net = load(trained)
    path = seven / "test" / "ant" / "00.png"
    assert net.predict(path) == net.predict(path)


def test_taps_of_pictures_of_any_size_go_through_the_one_preprocessing(trained: Path, tmp_path: Path) -> None:
    net = load(trained)
    path = tmp_path / "large.png"
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    expected = net.taps(net.square(path)[None], ["conv1"])["conv1"]
    for given in (path, pixels, path.read_bytes(), [path], torch.from_numpy(pixels)[None]):
        np.testing.assert_array_equal(net.taps(given, ["conv1"])["conv1"], expected)


def test_taps_of_a_batch_of_any_size_are_those_of_its_squares(trained: Path) -> None:
    net = load(trained)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 300, 200, 3), dtype=np.uint8)
    squares = np.stack([net.square(picture) for picture in pixels])
    expected = net.taps(squares)
    for given in (pixels, torch.from_numpy(pixels), list(pixels)):
        found = net.taps(given)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 14, 14),
        torch.zeros(1, 16, 16, 3),
        np.zeros((2, 2, 16, 16, 3), np.uint8),
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((1, 3, 16, 16), np.uint8),
    ],
)
def test_what_is_no_picture_has_no_taps(images: object, trained: Path) -> None:
    shape = re.escape(str(tuple(images.shape)))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=rf"images of \w+ {shape} should be uint8 \(N, H, W, 3\)"):
        load(trained).taps(images)  # type: ignore[arg-type]


def test_the_square_is_what_training_sees(trained: Path, pictures: Callable[..., Path], tmp_path: Path) -> None:
    from alexnet.data.loader import BatchLoader
    from alexnet.data.readers.open import open_source

    folder = pictures(tmp_path / "some", {"": 2}, ("ant", "bee"), 203)
    for path in folder.rglob("*.png"):  # a JPEG of this size is decoded at an eighth or a quarter
        Image.open(path).resize((410, 320)).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    net = load(trained)
    split = open_source(str(folder)).splits["train"]
    (batch,) = BatchLoader(split, net.size, 8, seed=0, shuffle=False).epoch(0)
    paths = sorted(folder.rglob("*.jpg"))
    assert len(paths) == len(batch.images) == 4
    for path, seen in zip(paths, batch.images, strict=True):
        np.testing.assert_array_equal(net.square(path), seen.numpy())
        np.testing.assert_array_equal(net.square(path.read_bytes()), seen.numpy())


def test_squares_of_another_size_are_refused_where_no_preprocessing_is_done(trained: Path) -> None:
    with pytest.raises(UsageError, match=r"should be uint8 \(N, 16, 16, 3\)"):
        load(trained).probabilities(np.zeros((1, 20, 20, 3), np.uint8))
    with pytest.raises(UsageError, match="should be uint8"):
        load(trained).probabilities(np.zeros((1, 16, 16, 3), np.float32))  # type: ignore[arg-type]


def test_no_squares_have_no_probabilities(trained: Path) -> None:
    assert load(trained).probabilities(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, 7)


def test_the_description_says_which_weights_predict(trained: Path) -> None:
    best, last = (load(trained, checkpoint=name).description for name in ("best", "last"))
    assert set(best) == {"run", "checkpoint", "step", "sha256", "backend", "precision"}
    assert (best["run"], best["checkpoint"], last["checkpoint"]) == (str(trained), "best", "last")
    assert last["step"] == 8 and best["step"] <= 8
    rounded = load(trained, precision="bfloat16").description
    assert (rounded["sha256"], rounded["precision"]) == (best["sha256"], "bfloat16")


def test_another_weight_gives_another_sha256(trained: Path) -> None:
    net = load(trained)
    assert isinstance(net, NetworkPredictor)
    weights = dict(net.trained.weights)
    assert weights_sha256(weights) == net.description["sha256"]
    weights["conv1.bias"] = weights["conv1.bias"] + 1
    assert weights_sha256(weights) != net.description["sha256"]


def test_a_pipe_is_refused_at_once(trained: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match=r"pipe\.jpg.*regular file"):
        load(trained).predict(tmp_path / "pipe.jpg")


def test_a_huge_file_is_refused_unread(trained: Path, tmp_path: Path) -> None:
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UnreadableImage, match=r"huge\.jpg.*limit"):
        load(trained).predict(tmp_path / "huge.jpg")
