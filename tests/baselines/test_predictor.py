"""A baseline predicts what its files say, goes wherever a predictor goes, and a damaged one is told in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import alexnet
from alexnet.baselines.directory import BaselineRun
from alexnet.baselines.fisher import Mixture, fisher_sums, gradients, improved
from alexnet.baselines.fit import fit_baseline
from alexnet.baselines.llc import llc
from alexnet.baselines.predictor import load_baseline
from alexnet.errors import CheckpointError, MissingLibrary, RunError, UsageError
from alexnet.inference.evaluate import evaluate
from alexnet.inference.load import load
from tests.baselines.conftest import KINDS, SMALL


def squares(seven: Path, split: str = "test") -> np.ndarray:
    paths = sorted((seven / split).glob("*/*.png"))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_probabilities_of_fisher_vectors_by_hand_from_the_files(fisher: Path, seven: Path) -> None:
    """One region after the other, one view after the other."""
    net, images = load_baseline(fisher), squares(seven)[:6]
    grid, total = net.settings.grid, np.zeros((6, 7))
    for name in ("sift", "colour"):
        arrays = load_file(fisher / "members" / f"{name}.safetensors")
        mix = Mixture(*(arrays[f"mixture.{part}"] for part in ("weights", "means", "variances")))
        for view in (images, images[:, :, ::-1]):
            described = grid.describe(name, np.ascontiguousarray(view))
            x = (described - arrays["projection.mean"]) @ arrays["projection.basis"]
            shares, rows = mix.posteriors(x), np.array([y < 0.5 for y, _ in grid.places(16)])
            left = np.array([z < 0.5 for _, z in grid.places(16)])
            everything = np.ones(len(rows), bool)
            parts = []
            quarters = [everything, rows & left, rows & ~left, ~rows & left, ~rows & ~left]
            for members, weight in zip(quarters, [1, 0.5, 0.5, 0.5, 0.5], strict=True):
                sums = fisher_sums(shares[:, members], x[:, members], np.zeros(members.sum(), np.int64), 1)
                parts.append(weight * improved(gradients(mix, sums, members.sum())[:, 0]))
            features = np.concatenate(parts, axis=1)
            features /= np.linalg.norm(features, axis=1, keepdims=True)
            total += features @ arrays["classifier.weights"] + arrays["classifier.biases"]
    wanted = softmax(total / 4 / BaselineRun.open(fisher).record.temperature)
    np.testing.assert_allclose(net.probabilities(images), wanted, atol=2e-4)


def test_features_of_sparse_codes_by_hand(sparse: Path, seven: Path) -> None:
    net, images = load_baseline(sparse), squares(seven)[:3]
    arrays = load_file(sparse / "members" / "llc-hog.safetensors")
    described = net.settings.grid.describe("hog", images)
    x = (described - arrays["projection.mean"]) @ arrays["projection.basis"]
    places = net.settings.grid.places(16)
    found = net.taps(images, ["llc-hog"])["llc-hog"]
    for picture in range(3):
        pooled = np.zeros((5, 16))
        nearest, weights = llc(x[picture], arrays["words"], 5)
        for (row, column), words, values in zip(places, nearest, weights, strict=True):
            for region in (0, 1 + 2 * int(row >= 0.5) + int(column >= 0.5)):
                for word, value in zip(words, values, strict=True):
                    pooled[region, word] = max(pooled[region, word], value)
        np.testing.assert_allclose(found[picture], (pooled / np.linalg.norm(pooled)).ravel(), atol=1e-4)


def test_the_recorded_validation_errors_are_the_predictors(fisher: Path, sparse: Path, seven: Path) -> None:
    for path in (fisher, sparse):
        recorded = BaselineRun.open(path).record.validation
        measured = evaluate(str(path), split="val")
        assert recorded is not None
        assert (measured.top1_error, measured.count) == (recorded.top1_error, recorded.count)
        assert measured.loss == pytest.approx(recorded.loss, abs=5e-3)  # features were bytes while it was fitted
        assert measured.data == str(seven) and measured.majority_error is not None


def test_it_answers_alike_alone_in_a_batch_and_from_several_threads(fisher: Path, seven: Path) -> None:
    net, images = load_baseline(fisher), squares(seven)
    whole = net.probabilities(images)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(net.probabilities(images[5:6]), whole[5:6], atol=1e-5)
    assert net.probabilities(images[:0]).shape == (0, 7)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(net.probabilities(images))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and all((answer == whole).all() for answer in found)


def test_mirror_images_count_as_much_where_they_were_learned_from(fisher: Path, seven: Path, tmp_path: Path) -> None:
    images = squares(seven)[:4]
    net = load_baseline(fisher)
    np.testing.assert_allclose(net.probabilities(images[:, :, ::-1]), net.probabilities(images), atol=1e-5)
    values = SMALL | KINDS["sparse-coding"] | {"members": ("llc-hog",), "epochs": 1, "mirror": False}
    fit_baseline("sparse-coding", str(seven), tmp_path / "plain", values)
    plain = load_baseline(tmp_path / "plain")
    assert np.abs(plain.probabilities(images[:, :, ::-1]) - plain.probabilities(images)).max() > 1e-4


def test_pictures_of_any_size_are_predicted(fisher: Path, seven: Path) -> None:
    net = alexnet.load(str(fisher))
    path = next((seven / "test").glob("bee/*.png"))
    (answer,) = net.predict(path, top=3)
    assert len(answer.labels) == 3 and set(answer.labels) <= set(net.classes)
    assert net.predict(np.zeros((40, 60, 3), np.uint8), top=1)[0].probabilities[0] <= 1


def test_taps_are_the_members_features_and_the_scores(sparse: Path, seven: Path) -> None:
    net, images = load_baseline(sparse), squares(seven)[:4]
    taps = net.taps(images)
    assert {name: value.shape for name, value in taps.items()} == {
        "llc-hog": (4, 80), "l1-colour": (4, 120), "llc-lbp": (4, 80), "scores": (4, 7)
    }  # fmt: skip
    temperature = BaselineRun.open(sparse).record.temperature
    np.testing.assert_allclose(net.probabilities(images), softmax(taps["scores"] / temperature), atol=1e-5)
    with pytest.raises(UsageError, match="there is no tap 'conv1', only llc-hog, l1-colour, llc-lbp, scores"):
        net.taps(images, ["conv1"])


def test_more_views_than_the_square_are_refused(sparse: Path, seven: Path) -> None:
    with pytest.raises(UsageError, match="--views 10: a baseline sees the whole square; give --views 1"):
        load_baseline(sparse).probabilities(squares(seven), 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint": "best"}, "leave --checkpoint best out"),
        ({"device": "cuda"}, "leave --device cuda out"),
        ({"backend": "torch"}, "leave --backend torch out"),
        ({"precision": "int8"}, "leave --precision int8 out"),
    ],
)
def test_choices_of_networks_are_refused(options: dict[str, str], words: str, sparse: Path) -> None:
    with pytest.raises(UsageError, match=words):
        load(str(sparse), **options)  # type: ignore[arg-type]
    assert load(str(sparse), device="cpu", precision="float32").classes == load(str(sparse)).classes


def test_it_is_averaged_with_a_network_and_with_another_baseline(fisher: Path, sparse: Path, trained: Path) -> None:
    members = [load(str(path)) for path in (fisher, sparse, trained)]
    result = evaluate(members, weights="search")
    assert result.count == 28 and len(result.models) == 3
    assert [model["backend"] for model in result.models] == ["numpy", "numpy", "engine"]
    assert evaluate([str(fisher), str(trained)]).loss > 0


def copied(path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(path, tmp_path / "copy")


def change(path: Path, **fields: object) -> None:
    document = json.loads((path / "baseline.json").read_text())
    (path / "baseline.json").write_text(json.dumps(document | fields))


def spoil_array(path: Path, name: str, value: np.ndarray | None) -> None:
    file = path / "members" / "llc-hog.safetensors"
    arrays = load_file(file)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    save_file(arrays, file)


def cut_file(path: Path) -> None:
    file = path / "members" / "llc-hog.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def remove_file(path: Path) -> None:
    (path / "members" / "llc-hog.safetensors").unlink()


def link_file(path: Path) -> None:
    (path / "baseline.json").rename(path / "other.json")
    (path / "baseline.json").symlink_to("other.json")


def other_classes(path: Path) -> None:
    source = json.loads((path / "source.json").read_text())
    (path / "source.json").write_text(json.dumps(source | {"classes": ["a", "b"]}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: (path / "baseline.json").write_text("{"), "baseline.json cannot be read: it is not JSON"),
        (lambda path: change(path, format=2), "its format is not 1"),
        (lambda path: change(path, kind="svm"), "unknown kind 'svm'"),
        (lambda path: change(path, settings={"size": "x"}), "size 'x' should be a whole number"),
        (lambda path: change(path, temperature="warm"), "baseline.temperature 'warm' should be a number"),
        (lambda path: change(path, temperature=0), "no temperature above 0"),
        (lambda path: change(path, members=[]), "has no members"),
        (lambda path: change(path, finished=False), "is not finished: go on with `alexnet baseline sparse-coding"),
        (lambda path: change(path, extra=1), "baseline.extra is not known"),
        (link_file, "should be a plain file"),
        (cut_file, "llc-hog.safetensors is damaged"),
        (remove_file, "llc-hog.safetensors does not exist"),
        (other_classes, r"classifier.weights is \(80, 7\), here 80 × 2"),
        (lambda path: spoil_array(path, "words", None), "it has no words"),
        (lambda path: spoil_array(path, "words", np.zeros((16, 3), np.float32)), r"words is \(16, 3\), here any × 8"),
        (lambda path: spoil_array(path, "words", np.zeros((2, 8), np.float32)), "2 words are fewer than 5"),
        (lambda path: spoil_array(path, "words", np.full((16, 8), np.nan, np.float32)), "not finite"),
        (lambda path: spoil_array(path, "words", np.zeros((16, 8), np.float64)), "words is float64, here float32"),
        (lambda path: spoil_array(path, "classifier.biases", np.zeros(3, np.float32)), "classifier.biases"),
    ],
)
def test_a_damaged_directory_is_told_in_one_line(
    spoil: Callable[[Path], object], words: str, sparse: Path, tmp_path: Path
) -> None:
    path = copied(sparse, tmp_path)
    spoil(path)
    with pytest.raises(RunError, match=words) as told:
        load(str(path))
    assert "\n" not in str(told.value) and str(tmp_path) in str(told.value)


def test_what_needs_a_networks_run_says_so(sparse: Path) -> None:
    from alexnet.run import Run

    with pytest.raises(RunError, match="is a baseline, not the run of a network"):
        Run.open(sparse)


def test_sift_without_opencv_names_the_extra(fisher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingLibrary, match=r"SIFT needs opencv-python-headless; pip install 'alexnet\[baselines\]'"):
        load(str(fisher))


def test_the_sha256_is_that_of_the_arrays(sparse: Path, tmp_path: Path) -> None:
    before = load(str(sparse)).description["sha256"]
    path = copied(sparse, tmp_path)
    assert load(str(path)).description["sha256"] == before
    spoil_array(path, "classifier.biases", np.zeros(7, np.float32))
    assert load(str(path)).description["sha256"] != before
    assert issubclass(CheckpointError, RunError)


def test_predicting_needs_neither_torch_nor_what_learns(sparse: Path, seven: Path) -> None:
    picture = next((seven / "test").glob("*/*.png"))
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'sklearn', 'scipy', 'skimage', 'cv2', 'threadpoolctl']))\n"
        "from alexnet.cli import main\n"
        f"sys.exit(main(['predict', {str(sparse)!r}, {str(picture)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
