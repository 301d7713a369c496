"""Errors of a run are those of a plain loop over the images, and of several runs those of their average."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.config import Config
from alexnet.data.dataset import Source
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError, UsageError
from alexnet.inference.evaluate import evaluate, match_labels
from alexnet.inference.load import load
from alexnet.inference.network import softmax
from alexnet.predictor import Images, Predictor
from alexnet.progress import Progress
from alexnet.run import Run
from alexnet.training.loop import train
from tests.told import Told

FIELDS = {"top1_error", "top5_error", "loss", "count", "views", "data", "split", "runs", "models", "unreadable"}
FIELDS |= {"chance_error", "majority_error", "answered", "present", "path"}


def plain_loop(runs: list[Path | Predictor], folder: Path, views: int = 1) -> tuple[float, float, float, int]:
    """Top-1 error, top-5 error, loss and count of the class folders in `folder`, an image at a time."""
    nets = [load(run) for run in runs]  # a predictor is itself
    wrong = missed = count = 0
    losses = []
    for path in sorted(folder.glob("*/*.png")):
        pixels = np.array(Image.open(path))[None]
        outputs = np.mean([net.probabilities(pixels, views)[0].astype(np.float64) for net in nets], axis=0)
        ranked = [nets[0].classes[i] for i in np.argsort(-outputs)]
        truth = path.parent.name
        wrong += ranked[0] != truth
        missed += truth not in ranked[:5]
        losses.append(-math.log(outputs[nets[0].classes.index(truth)]))
        count += 1
    return 100 * wrong / count, 100 * missed / count, float(np.mean(losses)), count


@pytest.mark.parametrize("views", [1, 10])
def test_errors_are_those_of_a_plain_loop(views: int, trained: Path, seven: Path) -> None:
    result = evaluate(trained, views=views)
    top1, top5, loss, count = plain_loop([trained], seven / "test", views)
    assert result.top1_error == pytest.approx(top1, abs=1e-4)
    assert result.top5_error == pytest.approx(top5, abs=1e-4)
    assert result.loss == pytest.approx(loss, abs=1e-5)
    assert result.count == count == 28


def test_an_ensemble_is_the_mean_of_its_runs(trained: Path, second: Path, seven: Path) -> None:
    result = evaluate([trained, second])
    top1, top5, loss, _ = plain_loop([trained, second], seven / "test")
    assert result.top1_error == pytest.approx(top1, abs=1e-4)
    assert result.top5_error == pytest.approx(top5, abs=1e-4)
    assert result.loss == pytest.approx(loss, abs=1e-5)
    assert result.runs == [str(trained), str(second)]


def test_a_run_averaged_with_itself_is_itself(trained: Path) -> None:
    alone, twice = evaluate(trained), evaluate([trained, trained])
    assert dataclasses.replace(twice, models=()) == dataclasses.replace(alone, models=())


def test_the_result_has_the_fields_promised(trained: Path, seven: Path) -> None:
    result = evaluate(trained)
    assert set(result.to_json()) == FIELDS
    assert (result.views, result.split, result.data) == (1, "test", str(seven))
    assert result.chance_error == result.majority_error == pytest.approx(100 * 6 / 7, abs=1e-4)
    json.dumps(result.to_json(), allow_nan=False)


def test_a_split_may_be_chosen(trained: Path) -> None:
    assert [evaluate(trained, split=split).count for split in ("train", "val", "test")] == [56, 21, 28]


def test_val_is_measured_where_there_is_no_test(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    train(short(pictures(tmp_path / "some", {"": 10}, ("ant", "bee"))), tmp_path / "run")
    result = evaluate(tmp_path / "run")
    assert (result.split, result.count, result.top5_error) == ("val", 2, None)


def test_a_store_is_measured_without_a_word_of_torchs(
    trained: Path, seven: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    prepare(seven, tmp_path / "store", size=16, codec="raw")  # whose labels are mapped, not to be written
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        result = evaluate(trained, data=str(tmp_path / "store"))
    finally:
        torch.set_warn_always(before)
    expected = evaluate(trained)
    assert (result.top1_error, result.loss) == (expected.top1_error, expected.loss)
    assert not [str(warning.message) for warning in recwarn if "not writable" in str(warning.message)]


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
    result = evaluate(trained, data=str(folder))
    assert (result.split, result.count, result.data) == ("test", 21, str(folder))


def test_classes_are_matched_by_name_where_another_source_has_fewer(trained: Path, seven: Path, tmp_path: Path) -> None:
    for name in ("cat", "gnu"):
        shutil.copytree(seven / "test" / name, tmp_path / "some" / "test" / name)
    result = evaluate(trained, data=str(tmp_path / "some"))
    top1, _, loss, count = plain_loop([trained], tmp_path / "some" / "test")
    assert (result.count, count) == (8, 8)
    assert result.top1_error == pytest.approx(top1, abs=1e-4)
    assert result.loss == pytest.approx(loss, abs=1e-5)


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
    result, wanted = evaluate(trained, data=str(tmp_path / "parquet")), evaluate(trained)
    for name in ("top1_error", "top5_error", "loss", "count"):
        assert getattr(result, name) == pytest.approx(getattr(wanted, name), abs=1e-5)


def test_a_class_the_run_was_not_trained_on_is_named(
    pictures: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"test": 2}, ("ant", "cats"))
    with pytest.raises(DataError, match=r"'cats' that the model was not trained on; did you mean cat\?; name .*--data"):
        evaluate(trained, data=str(folder))


def test_images_of_other_classes_than_the_runs_are_told_once(
    pictures: Callable[..., Path], short: Callable[..., Config], tmp_path: Path
) -> None:
    class Warnings(Progress):
        def warn(self, text: str) -> None:
            pytest.fail(text)

    folder = pictures(tmp_path / "some", {"": 6}, ("ant", "bee"))
    train(short(folder), tmp_path / "run")
    (folder / "bee").rename(folder / "cow")
    with pytest.raises(DataError, match="has a class 'cow' that the model was not trained on; name images of its"):
        evaluate(tmp_path / "run", progress=Warnings())


def test_unreadable_images_are_left_out_and_counted(trained: Path, seven: Path, tmp_path: Path) -> None:
    shutil.copytree(seven / "test", tmp_path / "some" / "test")
    for name in ("ant", "gnu"):
        (tmp_path / "some" / "test" / name / "00.png").write_bytes(b"no image")
    result = evaluate(trained, data=str(tmp_path / "some"))
    assert (result.count, result.unreadable) == (26, 2)
    for name in ("ant", "gnu"):
        (tmp_path / "some" / "test" / name / "00.png").unlink()
    assert dataclasses.replace(evaluate(trained, data=str(tmp_path / "some")), unreadable=2) == result


def test_a_split_without_a_readable_image_is_told(pictures: Callable[..., Path], trained: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "some", {"test": 1}, ("ant", "bee"))
    for path in folder.glob("*/*/*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 2 images of the test split"):
        evaluate(trained, data=str(folder))


def test_runs_on_different_classes_are_not_averaged(
    pictures: Callable[..., Path], short: Callable[..., Config], trained: Path, tmp_path: Path
) -> None:
    train(short(pictures(tmp_path / "some", {"": 6}, ("ant", "bee"))), tmp_path / "run")
    with pytest.raises(UsageError, match="has other classes than"):
        evaluate([trained, tmp_path / "run"])


@pytest.mark.parametrize("views", [0, 3])
def test_another_number_of_views_is_refused(views: int, trained: Path) -> None:
    with pytest.raises(ValueError, match="1, 5 or 10"):
        evaluate(trained, views=views)


def test_no_run_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no model is given"):
        evaluate([])


def test_a_probability_of_zero_is_a_large_loss_and_not_an_infinite_one(trained: Path, tmp_path: Path) -> None:
    from alexnet.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

    out = tmp_path / "run"
    shutil.copytree(trained, out)
    path = out / "checkpoints" / "best.safetensors"
    saved = read_checkpoint(path)
    weights = {**saved.weights, "fc5.weight": saved.weights["fc5.weight"] * 1e6}
    save_checkpoint(path, Checkpoint(weights, saved.velocities, saved.state))
    result = evaluate(out)
    assert math.isfinite(result.loss) and result.loss > 5


def test_bfloat16_runs_are_measured_in_bfloat16(seven: Path, short: Callable[..., Config], tmp_path: Path) -> None:
    train(short(seven, train__precision="bfloat16"), tmp_path / "run")
    assert evaluate(tmp_path / "run").loss == pytest.approx(plain_loop([tmp_path / "run"], seven / "test")[2], abs=0.02)


def test_measuring_leaves_the_run_as_it_was(trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    evaluate(trained)
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def source(*classes: str) -> Source:
    return Source("tars", classes, {})


def test_imagenet_classes_are_matched_by_wnid_whatever_words_follow() -> None:
    theirs, ours = ("n02119789 kit fox", "n01440764 tench"), ("n01440764", "n02119789")
    assert match_labels(np.array([0, 1, 0]), source(*theirs), ours).tolist() == [1, 0, 1]
    assert match_labels(np.array([0, 1]), source(*ours), theirs).tolist() == [1, 0]
    with pytest.raises(DataError, match="n00000001"):
        match_labels(np.array([0]), source("n00000001 kit fox"), ours)


def test_a_thousand_classes_by_words_alone_are_in_the_order_of_the_wnids() -> None:
    wnids = [f"n{10_000_000 + i}" for i in range(1000)]
    words = [f"word {i}" for i in range(1000)]
    labels = np.array([0, 1, 999])
    assert match_labels(labels, source(*wnids), words).tolist() == [0, 1, 999]
    assert match_labels(labels, source(*reversed(wnids)), words).tolist() == [999, 998, 0]


class ByBrightness(Predictor):
    """No network: the brighter a picture, the later the class."""

    classes = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
    size, batch_size = 16, 5
    description = {"run": "by brightness"}

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        place = self.check_squares(images).mean((1, 2, 3), dtype=np.float32) / 256 * 7
        return softmax(-((place[:, None] - np.arange(7, dtype=np.float32) - 0.5) ** 2))

    def taps(self, images: Images, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        return {"brightness": self.squares(images).mean((1, 2, 3), dtype=np.float32)}


def test_what_is_not_a_network_is_measured_and_averaged_too(trained: Path, seven: Path) -> None:
    made_up = ByBrightness()
    result = evaluate(made_up, data=str(seven))
    top1, top5, loss, count = plain_loop([made_up], seven / "test")
    assert (result.count, result.runs) == (count, ["by brightness"])
    assert (result.top1_error, result.top5_error) == (pytest.approx(top1, abs=1e-4), pytest.approx(top5, abs=1e-4))
    assert result.loss == pytest.approx(loss, abs=1e-5)
    both = evaluate([trained, made_up])
    assert both.top1_error == pytest.approx(plain_loop([trained, made_up], seven / "test")[0], abs=1e-4)
    assert both.runs == [str(trained), "by brightness"]


def test_what_is_not_a_run_needs_a_source() -> None:
    with pytest.raises(UsageError, match="name them with --data"):
        evaluate(ByBrightness())


def test_an_ensemble_reads_each_image_once(
    trained: Path, second: Path, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet.data import dataset

    read: list[int] = []
    plain = dataset.decode
    monkeypatch.setattr(dataset, "decode", lambda data, **how: read.append(len(data)) or plain(data, **how))
    evaluate([trained, second, trained], data=str(seven))
    assert len(read) == 28


def test_given_weights_are_those_of_the_average(trained: Path, second: Path, seven: Path) -> None:
    result = evaluate([trained, second], weights=[3, 1])
    assert result.weights == (0.75, 0.25) and result.to_json()["weights"] == [0.75, 0.25]
    assert result.loss == pytest.approx(plain_loop([trained, trained, trained, second], seven / "test")[2], abs=1e-5)
    assert evaluate([trained, second], weights=[1, 0]).loss == pytest.approx(evaluate(trained).loss, abs=1e-6)


def test_searched_weights_are_at_least_as_good_as_equal_ones_on_validation(trained: Path, second: Path) -> None:
    progress = Told()
    nets = [trained, second, ByBrightness()]
    searched = evaluate(nets, weights="search", split="val", progress=progress)
    equal = evaluate(nets, split="val")
    assert searched.top5_error is not None and equal.top5_error is not None
    assert searched.top5_error <= equal.top5_error
    assert searched.weights and sum(searched.weights) == pytest.approx(1)
    assert progress.notes == [f"weights searched on 21 images: {', '.join(f'{w:.3f}' for w in searched.weights)}"]
    assert "the one they are measured on" in progress.warnings[0]
    assert evaluate(nets, weights="search").weights == searched.weights


@pytest.mark.parametrize("weights", ["equal", [1], [1, -1], [0, 0], [1, math.nan]])
def test_weights_that_are_none_are_refused(weights: str | list[float], trained: Path, second: Path) -> None:
    with pytest.raises(UsageError, match="weights"):
        evaluate([trained, second], weights=weights)


def test_evaluations_of_best_last_and_other_precisions_stay_beside_each_other(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    options: list[dict[str, str]] = [{}, {"checkpoint": "last"}, {"precision": "bfloat16"}, {"split": "val"}, {}]
    for how in options:
        run.record_evaluation(evaluate(run.path, **how).to_json())  # type: ignore[arg-type]
    said = [(entry["split"], *list(entry["models"][0].values())[1:]) for entry in run.evaluations()]
    assert len(said) == len(set(said)) == 4
    assert {(entry[0], entry[1], entry[-1]) for entry in said} == {
        ("test", "last", "float32"),
        ("test", "best", "bfloat16"),
        ("val", "best", "float32"),
        ("test", "best", "float32"),
    }
    assert all(len(entry["models"][0]["sha256"]) == 64 and entry["models"][0]["step"] for entry in run.evaluations())
