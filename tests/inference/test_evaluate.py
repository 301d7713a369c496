"""Errors of a run are those of a plain loop over the images, and of several runs those of their average."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.config import Config
from alexnet.errors import DataError, RunError
from alexnet.inference.evaluate import evaluate
from alexnet.inference.predictor import load
from alexnet.training.loop import train

FIELDS = {"top1_error", "top5_error", "loss", "count", "views", "data", "split", "runs", "unreadable"}


def plain_loop(runs: list[Path], folder: Path, views: int = 1) -> tuple[float, float, float, int]:
    """Top-1 error, top-5 error, loss and count of the class folders in `folder`, an image at a time."""
    nets = [load(run) for run in runs]
    wrong = missed = count = 0
    losses = []
    for path in sorted(folder.glob("*/*.png")):
        pixels = torch.from_numpy(np.array(Image.open(path)))[None]
        outputs = np.mean([net.probabilities(pixels, views)[0].double().numpy() for net in nets], axis=0)
        ranked = [nets[0].classes[i] for i in np.argsort(-outputs)]
        truth = path.parent.name
        wrong += ranked[0] != truth
        missed += truth not in ranked[:5]
        losses.append(-math.log(outputs[nets[0].classes.index(truth)]))
        count += 1
    return 100 * wrong / count, 100 * missed / count, float(np.mean(losses)), count


@pytest.mark.parametrize("views", [1, 10])
def test_errors_are_those_of_a_plain_loop(views: int, trained: Path, seven: Path) -> None:
    found = evaluate(trained, views=views)
    top1, top5, loss, count = plain_loop([trained], seven / "test", views)
    assert found["top1_error"] == pytest.approx(top1, abs=1e-4)
    assert found["top5_error"] == pytest.approx(top5, abs=1e-4)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert found["count"] == count == 28


def test_an_ensemble_is_the_mean_of_its_runs(trained: Path, second: Path, seven: Path) -> None:
    found = evaluate([trained, second])
    top1, top5, loss, _ = plain_loop([trained, second], seven / "test")
    assert found["top1_error"] == pytest.approx(top1, abs=1e-4)
    assert found["top5_error"] == pytest.approx(top5, abs=1e-4)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert found["runs"] == [str(trained), str(second)]


def test_a_run_averaged_with_itself_is_itself(trained: Path) -> None:
    alone, twice = evaluate(trained), evaluate([trained, trained])
    assert {**twice, "runs": None} == {**alone, "runs": None}


def test_the_result_has_the_fields_promised(trained: Path, seven: Path) -> None:
    found = evaluate(trained)
    assert set(found) == FIELDS
    assert (found["views"], found["split"], found["data"]) == (1, "test", str(seven))
    json.dumps(found, allow_nan=False)


def test_a_split_may_be_chosen(trained: Path) -> None:
    assert [evaluate(trained, split=split)["count"] for split in ("train", "val", "test")] == [56, 21, 28]


def test_val_is_measured_where_there_is_no_test(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    train(short(pictures(tmp_path / "some", {"": 10}, ("ant", "bee"))), tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert (found["split"], found["count"], found["top5_error"]) == ("val", 2, None)


def test_a_missing_split_is_named(pictures: Callable[..., Path], trained: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "some", {"train": 3, "val": 2})
    with pytest.raises(DataError, match="has no test split"):
        evaluate(trained, data=str(folder), split="test")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_source_without_that_split_is_not_measured_on_another(
    split: str, pictures: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"test": 3})
    with pytest.raises(DataError, match=f"has no {split} split"):
        evaluate(trained, data=str(folder), split=split)


def test_another_source_needs_no_training_images(pictures: Callable[..., Path], trained: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "some", {"test": 3})
    found = evaluate(trained, data=str(folder))
    assert (found["split"], found["count"], found["data"]) == ("test", 21, str(folder))


def test_classes_are_matched_by_name_where_another_source_has_fewer(trained: Path, seven: Path, tmp_path: Path) -> None:
    for name in ("cat", "gnu"):
        shutil.copytree(seven / "test" / name, tmp_path / "some" / "test" / name)
    found = evaluate(trained, data=str(tmp_path / "some"))
    top1, _, loss, count = plain_loop([trained], tmp_path / "some" / "test")
    assert (found["count"], count) == (8, 8)
    assert found["top1_error"] == pytest.approx(top1, abs=1e-4)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)


def test_classes_are_matched_by_name_where_another_source_orders_them_differently(
    trained: Path, seven: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["gnu", "ant", "fox", "bee", "eel", "cat", "dog"]
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": label}
        for label, name in enumerate(names)
        for path in sorted((seven / "test" / name).iterdir())
    ]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "test-00000-of-00001.parquet")
    found, wanted = evaluate(trained, data=str(tmp_path / "parquet")), evaluate(trained)
    for name in ("top1_error", "top5_error", "loss", "count"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-5)


def test_a_class_the_run_was_not_trained_on_is_named(
    pictures: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"test": 2}, ("ant", "cats"))
    with pytest.raises(DataError, match=r"'cats' that the run was not trained on; did you mean cat\?"):
        evaluate(trained, data=str(folder))


def test_unreadable_images_are_left_out_and_counted(trained: Path, seven: Path, tmp_path: Path) -> None:
    shutil.copytree(seven / "test", tmp_path / "some" / "test")
    for name in ("ant", "gnu"):
        (tmp_path / "some" / "test" / name / "00.png").write_bytes(b"no image")
    found = evaluate(trained, data=str(tmp_path / "some"))
    assert (found["count"], found["unreadable"]) == (26, 2)
    for name in ("ant", "gnu"):
        (tmp_path / "some" / "test" / name / "00.png").unlink()
    assert {**evaluate(trained, data=str(tmp_path / "some")), "unreadable": 2} == found


def test_a_split_without_a_readable_image_is_told(pictures: Callable[..., Path], trained: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "some", {"test": 1}, ("ant", "bee"))
    for path in folder.glob("*/*/*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 2 images of its test split"):
        evaluate(trained, data=str(folder))


def test_runs_on_different_classes_are_not_averaged(
    pictures: Callable[..., Path], short: Callable[..., Config], trained: Path, tmp_path: Path
) -> None:
    train(short(pictures(tmp_path / "some", {"": 6}, ("ant", "bee"))), tmp_path / "run")
    with pytest.raises(RunError, match="has other classes than"):
        evaluate([trained, tmp_path / "run"])


@pytest.mark.parametrize("views", [0, 3])
def test_another_number_of_views_is_refused(views: int, trained: Path) -> None:
    with pytest.raises(ValueError, match="1, 5 or 10"):
        evaluate(trained, views=views)


def test_no_run_at_all_is_refused() -> None:
    with pytest.raises(RunError, match="no run is given"):
        evaluate([])


def test_a_probability_of_zero_is_a_large_loss_and_not_an_infinite_one(trained: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    out = tmp_path / "run"
    shutil.copytree(trained, out)
    path = out / "checkpoints" / "best.safetensors"
    with safe_open(path, framework="pt") as file:
        token = file.metadata()
    weights = load_file(path)
    weights["fc5.weight"] *= 1e6
    save_file(weights, path, token)
    found = evaluate(out)
    assert math.isfinite(found["loss"]) and found["loss"] > 5


def test_bfloat16_runs_are_measured_in_bfloat16(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    train(short(seven, train__precision="bfloat16"), tmp_path / "run")
    assert evaluate(tmp_path / "run")["loss"] == pytest.approx(
        plain_loop([tmp_path / "run"], seven / "test")[2], abs=0.02
    )


def test_measuring_leaves_the_run_as_it_was(trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    evaluate(trained)
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_imagenet_classes_are_matched_by_wnid_whatever_words_follow() -> None:
    from alexnet.inference.evaluate import _labels

    theirs, ours = ["n02119789 kit fox", "n01440764 tench"], ["n01440764", "n02119789"]
    assert _labels(np.array([0, 1, 0]), theirs, ours, "tars").tolist() == [1, 0, 1]
    assert _labels(np.array([0, 1]), ours, theirs, "folders").tolist() == [1, 0]
    with pytest.raises(DataError, match="n00000001"):
        _labels(np.array([0]), ["n00000001 kit fox"], ours, "tars")
