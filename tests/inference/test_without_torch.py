"""Prediction with the core dependencies alone: everything else is hidden from the processes here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.config import Config
from alexnet.data.store.prepare import prepare
from alexnet.inference.load import load

HIDDEN = (
    "torch",
    "torchvision",
    "pyarrow",
    "sklearn",
    "scipy",
    "matplotlib",
    "jinja2",
    "markupsafe",
    "onnx",
    "openvino",
)
HIDDEN += ("onnxruntime", "nncf", "datasets", "huggingface_hub", "tensorboard", "pandas")
HIDE = f"""
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
def without(name, path=None, target=None):
    return None if name.partition(".")[0] in {HIDDEN!r} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = without
"""


def python(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run code where none of the hidden libraries can be imported."""
    command = [sys.executable, "-c", HIDE + code, *map(str, words)]
    environment = {**os.environ, "COVERAGE_PROCESS_START": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def alexnet(*words: object) -> subprocess.CompletedProcess[str]:
    return python("from alexnet.cli import main; sys.exit(main())", *words)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "some.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path)
    return path


def test_torch_cannot_be_imported_here() -> None:
    done = python("import torch")
    assert done.returncode == 1 and "No module named 'torch'" in done.stderr


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_picture_is_predicted_by_command(trained: Path, picture: Path, precision: str) -> None:
    done = alexnet("predict", trained, picture, "--json", "--views", 10, "--top", 7, "--precision", precision)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["predictions"]
    expected = load(trained, backend="torch", precision=precision).predict(picture, top=7, views=10)[0]
    found = {label["label"]: label["probability"] for label in entry["labels"]}
    assert found == pytest.approx(dict(zip(expected.labels, expected.probabilities, strict=True)), abs=1e-2)


def test_int8_is_calibrated_on_a_folder(trained: Path, picture: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    done = alexnet("predict", run, picture, "--precision", "int8")
    assert done.returncode == 0 and str(picture) in done.stdout, done.stderr
    assert (run / "int8.json").is_file()


@pytest.mark.parametrize("codec", ["yuv420", "raw", "jpeg"])
def test_int8_is_calibrated_on_a_store(
    codec: str, seven: Path, short: Callable[..., Config], picture: Path, tmp_path: Path
) -> None:
    from alexnet.training.loop import train

    store, run = tmp_path / "store", tmp_path / "run"
    prepare(seven, store, size=16, codec=codec)
    train(short(store, train__epochs="1"), run)
    done = alexnet("predict", run, picture, "--precision", "int8")
    assert done.returncode == 0 and str(picture) in done.stdout, done.stderr
    assert (run / "int8.json").is_file()


@pytest.mark.parametrize("name", ["train.parquet", "train-0.tar", "n01440764.tar", "ILSVRC2012_img_val.tar"])
def test_a_source_that_needs_more_says_what_to_install_in_one_line(
    name: str, trained: Path, picture: Path, tmp_path: Path
) -> None:
    images, run = tmp_path / "images", Path(shutil.copytree(trained, tmp_path / "run"))
    images.mkdir()
    (images / name).touch()
    (run / "source.json").write_text(json.dumps(json.loads((run / "source.json").read_text()) | {"path": str(images)}))
    done = alexnet("predict", run, picture, "--precision", "int8")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"alexnet: reading {images} needs pyarrow; pip install 'alexnet[train]'\n"
    done = python("import alexnet\nalexnet.load(sys.argv[1], precision='int8')", run)
    assert f"MissingLibrary: reading {images} needs pyarrow" in done.stderr


def test_a_file_of_weights_is_predicted_by_and_written(trained: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    assert alexnet("export", trained, "--format", "safetensors", "--out", out).returncode == 0
    done = alexnet("predict", out, picture)
    assert done.returncode == 0 and str(picture) in done.stdout, done.stderr


def test_the_predictor_works_from_python(trained: Path, picture: Path) -> None:
    code = (
        "import alexnet, numpy\n"
        "net = alexnet.load(sys.argv[1], sys.argv[1])\n"
        "one = net.members[0]\n"
        "images = numpy.zeros((2, 16, 16, 3), numpy.uint8)\n"
        "print(net.predict(sys.argv[2])[0].labels[0], net.probabilities(images, 10).shape, one.taps(images).keys())\n"
    )
    done = python(code, trained, picture)
    assert done.returncode == 0, done.stderr
    assert "(2, 7)" in done.stdout and "relu1" in done.stdout


@pytest.mark.parametrize(
    "words",
    [("--help",), ("predict", "--help"), ("summary", "paper"), ("presets",), ("presets", "paper", "caffe"), ("doctor",)]
    + [("config", "tiny-64")],
)
def test_what_needs_no_torch_works_without(words: tuple[str, ...]) -> None:
    done = alexnet(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "report", "data"])
def test_what_needs_more_says_what_to_install_in_one_line(command: str, trained: Path, seven: Path) -> None:
    words = {
        "train": ("--preset", "digits", "--out", trained.parent / "new"),
        "evaluate": (trained,),
        "report": (trained,),
        "data": ("info", "digits"),
    }
    done = alexnet(command, *words[command])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"alexnet: alexnet {command} needs ") and done.stderr.count("\n") == 1
    assert done.stderr.endswith("; pip install 'alexnet[train]'\n")


def test_python_is_told_what_to_install() -> None:
    done = python("import alexnet\nalexnet.create_model('paper')")
    assert "MissingLibrary: alexnet.create_model needs torch; pip install 'alexnet[train]'" in done.stderr


@pytest.mark.parametrize("words", [("summary", "paper"), ("presets",), ("predict",)])
def test_torch_is_not_imported_where_it_is_there(words: tuple[str, ...], trained: Path, picture: Path) -> None:
    words = ("predict", str(trained), str(picture), "--device", "cpu") if words == ("predict",) else words
    code = (
        "import sys\nfrom alexnet.cli import main\nassert main(sys.argv[1:]) == 0\n"
        f"sys.exit(' '.join(sys.modules.keys() & {set(HIDDEN) | {'rich', 'safetensors'}}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
