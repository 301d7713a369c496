"""Ranges of activations for int8: how they are chosen, kept and read back, and what int8 costs."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from alexnet import presets
from alexnet.data.views import View
from alexnet.errors import DataError, RunError, UsageError
from alexnet.inference import quantization
from alexnet.inference.load import load, open_model
from alexnet.inference.network import Trained
from alexnet.inference.quantization import calibrate, feeding, measure_ranges, quantized, training_squares
from alexnet.run import Run

FEEDING = ["image", "pool1", "pool2", "relu3", "relu4"]  # of the preset digits' five layers with weights


class Rounded:
    """Stands for the network in int8: float32's, with logits as wrong as it is told for a last layer in int8."""

    def __init__(self, trained: Trained, ranges: Mapping[str, float], error: float) -> None:
        self.exact, self.ranges = Trained.interpreter(trained), dict(ranges)
        self.error = error if FEEDING[-1] in ranges else 0

    def logits(self, squares: np.ndarray, views: list[View]) -> np.ndarray:
        logits = self.exact.logits(squares, views)
        wrong = np.random.default_rng(0).random(len(squares)) < self.error
        return np.where(wrong[:, None], -logits, logits)

    def taps(self, squares: np.ndarray, view: View, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        return self.exact.taps(squares, view, names)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Rounded]:
    """Every int8 network that is made, each with a last layer that is right."""
    return play(monkeypatch, 0)


def play(monkeypatch: pytest.MonkeyPatch, error: float) -> list[Rounded]:
    made: list[Rounded] = []
    plain = Trained.interpreter

    def interpreter(self: Trained, precision: str = "float32", ranges: Mapping[str, float] | None = None) -> object:
        if precision != "int8":
            return plain(self, precision)
        monkeypatch.setattr(Trained, "interpreter", plain)
        made.append(Rounded(self, ranges or {}, error))
        monkeypatch.setattr(Trained, "interpreter", interpreter)
        return made[-1]

    monkeypatch.setattr(Trained, "interpreter", interpreter)
    return made


def test_every_layer_with_weights_is_fed_from_a_tap() -> None:
    assert feeding(presets.preset("digits").network) == FEEDING
    paper = feeding(presets.preset("paper").network)
    assert paper == ["image", "pool1", "pool2", "relu3", "relu4", "pool5", "relu6", "relu7"]


def test_ranges_lie_below_the_largest_activations_and_round_with_less_error(run: Path) -> None:
    trained = open_model(str(run))
    exact, squares, view = trained.interpreter(), training_squares(Run(run)), (1, 1, False)
    ranges = measure_ranges(trained, exact, squares, view)
    assert list(ranges) == FEEDING
    taps = exact.taps(squares, view)
    taps["image"] = squares - trained.mean_image  # type: ignore[operator]

    def error(values: np.ndarray, reach: float) -> float:
        low = -reach if values.min() < 0 else 0.0
        step = (reach - low) / 127
        rounded = np.rint((np.clip(values, low, reach) - low) / step) * step + low
        return float(np.square(rounded - values).sum())

    for name, reach in ranges.items():
        largest = float(np.abs(taps[name]).max())
        assert 0.29 * largest < reach <= 1.001 * largest, name
        assert error(taps[name], reach) <= 1.02 * error(taps[name], largest), name


def test_a_network_is_calibrated_once_and_the_ranges_kept_in_the_run(
    run: Path, made: list[Rounded], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(run, precision="int8")
    kept = json.loads((run / "int8.json").read_text())
    assert list(kept["ranges"]) == FEEDING and kept["images"] == 256
    assert kept["weights"] == first.description["sha256"] and first.description["precision"] == "int8"
    assert kept["agreement"] == {"int8": 1.0, "bfloat16": 1.0}
    assert made[-1].ranges == kept["ranges"]
    Run.open(run)  # it is a file of the run's own
    monkeypatch.setattr(quantization, "calibrate", lambda *_: pytest.fail("calibrated again"))
    load(run, precision="int8")
    assert made[-1].ranges == kept["ranges"]


def test_other_weights_are_calibrated_anew(run: Path, made: list[Rounded]) -> None:
    load(run, precision="int8", checkpoint="best")
    best = json.loads((run / "int8.json").read_text())
    shutil.copy(run / "checkpoints" / "previous.safetensors", run / "checkpoints" / "best.safetensors")
    load(run, precision="int8", checkpoint="best")
    assert json.loads((run / "int8.json").read_text())["weights"] != best["weights"]


@pytest.mark.parametrize(("error", "kept"), [(0.0, FEEDING), (0.5, FEEDING[:-1])])
def test_the_last_layer_is_whole_where_int8_there_gives_other_labels(
    error: float, kept: list[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, error)
    found = calibrate(open_model(str(run)), training_squares(Run(run)))
    assert list(found.ranges) == kept
    assert found.agreement["bfloat16"] == 1 and (found.agreement["int8"] < 0.9) == bool(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ranges": {"image": -1.0}}, r"ranges\.image -1\.0 is not the range of a tap; remove the file"),
        ({"ranges": {"conv9": 1.0}}, r"ranges\.conv9 1\.0 is not the range of a tap"),
        ({"ranges": {"image": 1.0}}, r"ranges\.pool1 is missing; remove the file"),
        ({"ranges": 3}, r"int8\.json\.ranges 3"),
        ({"weights": 3}, r"int8\.json\.weights 3"),
    ],
)
def test_ranges_that_were_edited_are_refused_by_field(
    change: dict[str, object], words: str, run: Path, made: list[Rounded]
) -> None:
    load(run, precision="int8")
    value = json.loads((run / "int8.json").read_text())
    (run / "int8.json").write_text(json.dumps(value | change))
    with pytest.raises(RunError, match=words):
        load(run, precision="int8")


def test_a_run_that_cannot_be_written_to_is_calibrated_each_time(
    run: Path, made: list[Rounded], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(quantization, "write_json", full)
    load(run, precision="int8")
    assert made and not (run / "int8.json").exists()


def test_only_a_run_knows_training_images(run: Path) -> None:
    trained = open_model(str(run))
    alone = Trained(trained.config, trained.weights, trained.mean_image, trained.classes, {"run": "net.safetensors"})
    with pytest.raises(UsageError, match="net.safetensors is not a run directory"):
        quantized(alone)


def test_training_squares_are_spread_over_the_split_and_readable_ones_alone(run: Path, seven: Path) -> None:
    few = training_squares(Run(run), 7)
    assert few.shape == (7, 16, 16, 3) and few.dtype == np.uint8
    assert len(np.unique(few.reshape(7, -1), axis=0)) == 7
    assert len(training_squares(Run(run), 1000)) == 56


def test_images_that_are_gone_are_told(run: Path) -> None:
    source = json.loads((run / "source.json").read_text())
    (run / "source.json").write_text(json.dumps(source | {"path": str(run / "gone")}))
    with pytest.raises(DataError, match="no longer at"):
        load(run, precision="int8")


def test_int8_gives_the_labels_of_float32_for_nearly_every_training_image(run: Path) -> None:
    squares = training_squares(Run(run))
    plain = load(run)
    small = load(run, precision="int8")
    same = plain.probabilities(squares).argmax(1) == small.probabilities(squares).argmax(1)
    assert same.mean() > 0.95
