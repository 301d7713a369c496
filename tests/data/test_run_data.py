"""What a run trains and measures on: its own validation split or one held out, never the test split."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from alexnet.config import Config
from alexnet.data.dataset import other_classes
from alexnet.data.run_data import RunData, open_run_data
from alexnet.data.statistics import fit
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError
from alexnet.progress import quiet
from tests.told import Told


def keys(inputs: RunData, name: str) -> list[str]:
    split = inputs.split(name)
    return [split.image_name(i) for i in range(len(split))]


def test_a_source_with_a_validation_split_is_taken_as_it_is(seven: Path, short: Callable[..., Config]) -> None:
    inputs = open_run_data(short(seven))
    assert not inputs.held_out
    assert [len(inputs.split(name)) for name in ("train", "val", "test")] == [56, 21, 28]
    assert all(key.startswith("val") for key in keys(inputs, "val"))


def test_without_one_a_share_of_each_class_is_held_out_of_train(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 20, "test": 3})
    inputs = open_run_data(short(folder, data__validation="0.25"))
    assert inputs.held_out
    train, held = keys(inputs, "train"), keys(inputs, "val")
    assert not set(train) & set(held)
    assert len(train) + len(held) == 140 and all(key.startswith("train") for key in train + held)
    assert np.bincount(inputs.validation.labels).tolist() == [5] * 7


def test_what_is_held_out_does_not_depend_on_the_seed_of_the_run(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"": 10}, ("ant", "bee"))
    assert keys(open_run_data(short(folder)), "val") == keys(open_run_data(short(folder, train__seed="7")), "val")


def test_the_network_gets_as_many_outputs_as_there_are_classes(seven: Path, short: Callable[..., Config]) -> None:
    config = short(seven)
    assert config.network.classes == 10
    assert open_run_data(config).config.network.classes == 7


def test_a_source_without_training_images_cannot_be_trained_on(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"val": 2, "test": 2})
    with pytest.raises(DataError, match="has no train split, only val, test"):
        open_run_data(short(folder))


def test_a_split_that_is_missing_is_named_with_those_there_are(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 4, "val": 2})
    with pytest.raises(DataError, match=r"has no test split, only train, val$"):
        open_run_data(short(folder)).split("test")


def test_classes_with_one_image_cannot_be_held_out(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="held out"):
        open_run_data(short(pictures(tmp_path / "some", {"": 1})))


def test_the_description_counts_splits_as_they_are_used(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 10, "test": 3}, ("ant", "bee"))
    described = open_run_data(short(folder)).describe()
    prints = described.pop("fingerprint")
    assert {name: text.partition(" ")[0] for name, text in prints.items()} == {"train": "20", "test": "6"}
    assert described == {
        "source": str(folder),
        "path": str(folder),
        "classes": ["ant", "bee"],
        "splits": {"train": 18, "val": 2, "test": 6},
        "majority": "ant",
        "validation": "held out of train",
    }


def test_statistics_are_those_of_the_training_images_alone(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    inputs = open_run_data(short(seven))
    found = inputs.statistics(tmp_path / "statistics.npz", quiet)
    images = np.stack([inputs.train.decode(i) for i in range(len(inputs.train))]).astype(np.float64)
    np.testing.assert_allclose(found.mean_image, images.mean(0), atol=1e-4)
    pixels = images.reshape(-1, 3)
    np.testing.assert_allclose(found.rgb_covariance, np.cov(pixels.T, bias=True), rtol=1e-9)


def test_statistics_are_fitted_once_and_read_thereafter(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    inputs, notes = open_run_data(short(seven)), Told()
    first = inputs.statistics(tmp_path / "statistics.npz", notes)
    again = inputs.statistics(tmp_path / "statistics.npz", notes)
    assert len(notes.notes) == 1
    np.testing.assert_array_equal(first.mean_image, again.mean_image)


def store_of(pictures: Callable[..., Path], tmp_path: Path, splits: dict[str, int], **options: Any) -> Path:
    """A store of a folder of two classes with 16-pixel squares."""
    prepare(pictures(tmp_path / "some", splits, ("ant", "bee")), tmp_path / "store", **{"size": 16, **options})
    return tmp_path / "store"


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_the_statistics_of_a_store_are_used_without_reading_an_image(
    pictures: Callable[..., Path],
    short: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
) -> None:
    data = open_run_data(short(store_of(pictures, tmp_path, {"train": 6, "val": 2}, codec=codec)))
    fitted = fit(data.train, 16)

    def forbidden(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError("an image was read again")

    for name in ("decode", "read_bytes", "crop_into", "resize_crop"):
        monkeypatch.setattr(type(data.train), name, forbidden)
    statistics = data.statistics(tmp_path / "statistics.npz", quiet)
    assert (tmp_path / "statistics.npz").read_bytes() == (tmp_path / "store" / "statistics.npz").read_bytes()
    np.testing.assert_allclose(statistics.rgb_mean, fitted.rgb_mean, atol=0 if codec == "raw" else 2)


@pytest.mark.parametrize(("splits", "size"), [({"train": 10}, "16"), ({"train": 6, "val": 2}, "20")])
def test_a_store_of_other_images_or_another_size_is_fitted(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path, splits: dict[str, int], size: str
) -> None:
    data = open_run_data(short(store_of(pictures, tmp_path, splits), data__size=size))
    statistics = data.statistics(tmp_path / "statistics.npz", quiet)
    assert statistics.count == len(data.train) and statistics.mean_image.shape == (int(size), int(size), 3)
    expected = fit(data.train, int(size))
    np.testing.assert_array_equal(statistics.mean_image, expected.mean_image)


def test_fitting_keeps_nothing_decoded_where_no_memory_is_given(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    from alexnet.data import loader

    data = open_run_data(short(seven, data__memory="0"))
    data.statistics(tmp_path / "statistics.npz", quiet)
    assert data.train not in loader._resident
    data = open_run_data(short(seven, data__memory="1"))
    data.statistics(tmp_path / "again.npz", quiet)
    assert data.train in loader._resident
    assert (tmp_path / "statistics.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_a_run_on_a_store_remembers_how_its_pictures_were_turned(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    store = store_of(pictures, tmp_path, {"train": 4, "val": 2}, exif_rotate=True)
    assert open_run_data(short(store)).config.data.exif_rotate is True
    assert open_run_data(short(tmp_path / "some")).config.data.exif_rotate is False
    with pytest.raises(DataError, match="prepared with exif_rotate"):
        open_run_data(short(store, data__exif_rotate="false"))


def test_a_store_that_was_not_turned_cannot_be_asked_to_be(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    store = store_of(pictures, tmp_path, {"train": 4, "val": 2})
    with pytest.raises(DataError, match="prepared without exif_rotate"):
        open_run_data(short(store, data__exif_rotate="true"))


def test_pictures_are_turned_in_every_split_where_the_run_says_so(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    root = pictures(tmp_path / "some", {"": 10}, ("ant", "bee"))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (root / "ant").iterdir():
        Image.fromarray(pixels).save(path, exif=exif)
    for exif_rotate, expected in (("false", pixels), ("true", pixels[::-1, ::-1])):
        data = open_run_data(short(root, data__exif_rotate=exif_rotate))
        for split in (data.train, data.validation):
            i = split.labels.tolist().index(0)
            np.testing.assert_array_equal(split.resize_crop(i, 16), expected)
            batch = next(data.loader(split, quiet, shuffle=False).epoch(0))
            np.testing.assert_array_equal(batch.images[i].numpy(), expected)


def test_damaged_statistics_are_named(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    path = tmp_path / "statistics.npz"
    path.write_bytes(b"PK\x03\x04 half")
    with pytest.raises(DataError, match=r"statistics\.npz"):
        open_run_data(short(seven)).statistics(path, quiet)


def test_statistics_that_make_no_sense_are_named_by_field(
    seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    path = tmp_path / "statistics.npz"
    good = open_run_data(short(seven)).statistics(path, quiet)
    for name, value, words in (
        ("mean_image", good.mean_image.astype(np.float64), "mean_image is float64"),
        ("mean_image", good.mean_image[:3], "mean_image is float32"),
        ("mean_image", good.mean_image - 300, "mean_image in it should have numbers from 0 to 255"),
        ("eigenvalues", np.full(3, np.nan), "eigenvalues in it should have numbers"),
        ("rgb_mean", np.zeros(9999), "rgb_mean is"),
    ):
        replace(good, **{name: value}).save(path)
        with pytest.raises(DataError, match=words):
            open_run_data(short(seven)).statistics(path, quiet)


def test_classes_that_are_gone_or_new_are_named_and_few_of_many() -> None:
    assert other_classes(["ant", "bee"], ["ant", "bee"]) == ""
    assert other_classes(["ant", "bee"], ["bee", "ant"]) == "classes in another order"
    assert other_classes(["ant", "bee"], ["ant", "bee", "cow"]) == "other classes (new: 'cow')"
    many = [f"a{i}" for i in range(1002)]
    assert other_classes([*many, "x"], ["x"]) == "other classes (gone: 'a0', 'a1', 'a2' and 999 more)"
