"""Every engine against the torch model: how closely, by precision."""

import dataclasses
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import presets
from alexnet.architecture import LRN, Activation, Conv, Full, Network, Pool
from alexnet.config import Data
from alexnet.formats.five_crop_graph import shares
from alexnet.inference import backends as engines
from alexnet.inference.backends import ENGINES, KINDS, EngineError, choose, installed, load
from alexnet.inference.predictor import load as load_plain
from alexnet.model.zoo import build, create_model
from alexnet.training.loop import train

CLOSE = {"float32": 1e-5, "bfloat16": 2e-2}  # of the largest logit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits of two epochs."""
    config = presets.preset("digits")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2, threads=1))
    path = tmp_path_factory.mktemp("runs") / "digits"
    train(config, path)
    return path


def need(engine: str) -> None:
    if not installed(engine):
        packages, extra = engines.NEEDS[engine]
        pytest.skip(f"{' or '.join(packages)} is not installed (extra: {extra})")


def need_int8() -> None:
    need("openvino")
    pytest.importorskip("nncf", reason="nncf is not installed (extra: openvino)")


def images(n: int, side: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_gives_the_logits_of_the_torch_model(engine: str, precision: str) -> None:
    need(engine)
    if precision not in engines.COMPUTES[engine]:
        pytest.skip(f"{engine} does not compute {precision}")
    model = create_model("digits").eval()
    views = (torch.randn(6, 3, 14, 14) * 60).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model(views)
    found = KINDS[engine](model, precision, 1).logits(views)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= CLOSE[precision] * expected.abs().max()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_takes_batches_of_any_size_after_one_another(engine: str) -> None:
    need(engine)
    model = create_model("digits").eval()
    made = KINDS[engine](model, "float32", 1)
    for n in (1, 5, 2, 5):
        views = torch.randn(n, 3, 14, 14) * 60
        with torch.no_grad():
            expected = model(views)
        assert torch.allclose(made.logits(views), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("views", [1, 5, 10])
def test_probabilities_are_those_of_the_plain_classifier(run: Path, engine: str, views: int) -> None:
    need(engine)
    plain, fast = load_plain(run), load(run, engine=engine)
    pictures = images(7)
    assert torch.allclose(fast.probabilities(pictures, views), plain.probabilities(pictures, views), atol=1e-5)


def test_ten_views_of_many_images_go_through_in_several_batches(run: Path) -> None:
    pictures = images(30)
    fast = load(run, engine="torch")
    assert torch.allclose(fast.probabilities(pictures, 10), load_plain(run).probabilities(pictures, 10), atol=1e-5)


def test_crops_that_share_the_first_layer_give_the_plain_ten_views(monkeypatch: pytest.MonkeyPatch) -> None:
    need("openvino")
    from benchmarks.predict import Bench

    monkeypatch.setattr(engines, "PRECISIONS", ("float32",))
    monkeypatch.setattr(Bench, "_peers", lambda self: {})
    # conv1's windows as in `paper`: stride 4, zeros complete the last one; offsets 0, 8 and 16
    layers = (
        Conv("conv1", 16, 11, stride=4, std=0.01),
        Activation("relu1"),
        LRN("norm1"),
        Pool("pool1"),
        Conv("conv2", 16, 3, pad=1, sees="own", std=0.1),
        Activation("relu2"),
        Full("fc3", std=0.1),
    )
    config = dataclasses.replace(
        presets.preset("digits"), network=Network("shared", 48, 10, 2, layers=layers), data=Data(size=64)
    )
    bench = Bench(Namespace(preset=config, no_compile=True))
    pictures = torch.from_numpy(bench.pictures(17))
    fast = bench.ours["openvino float32"]
    assert fast.engine.shares(64)
    for views in (5, 10):
        expected = bench.classifier.probabilities(pictures, views)
        assert torch.allclose(fast.probabilities(pictures, views), expected, rtol=1e-4, atol=1e-6)


def test_crops_share_nothing_where_their_windows_differ() -> None:
    assert shares(presets.preset("paper").network, 256)
    assert not shares(presets.preset("caffe").network, 256)  # the corner is 29 pixels from the other
    assert not shares(presets.preset("cifar-13").network, 32)  # zeros surround every crop


def test_the_one_predict_call_works_with_every_engine(run: Path) -> None:
    picture = images(1)[0].numpy()
    expected = load_plain(run).predict(picture, top=3)[0].labels
    for engine in ENGINES:
        if installed(engine):
            assert load(run, engine=engine).predict(picture, top=3)[0].labels == expected


def test_int8_gives_the_labels_of_float32_for_nearly_every_training_image(run: Path) -> None:
    need_int8()
    from alexnet.data.run_data import open_run_data

    plain, small = load_plain(run), load(run, precision="int8")
    split = open_run_data(plain.config).train
    pictures = [split.decode(i) for i in range(300)]
    from alexnet.data.preprocess import square

    batch = torch.from_numpy(np.stack([square(picture, 16) for picture in pictures]))
    same = plain.probabilities(batch).argmax(1) == small.probabilities(batch).argmax(1)
    assert same.float().mean() > 0.97


def test_an_int8_network_is_made_once_and_kept_in_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_int8()
    from alexnet.inference import quantization

    first = load(run, precision="int8").probabilities(images(3))
    monkeypatch.setattr(quantization, "quantize", lambda *_: pytest.fail("quantized again"))
    assert torch.equal(load(run, precision="int8").probabilities(images(3)), first)


def test_the_last_layer_and_layers_named_stay_as_they_are() -> None:
    need_int8()
    from alexnet.inference.quantization import quantize

    model = build(presets.preset("digits").network)
    views = (torch.randn(8, 3, 14, 14) * 60).numpy()

    def rounded(**how: object) -> int:
        made = quantize(model, views, **how)  # type: ignore[arg-type]
        return sum(op.get_type_name() == "FakeQuantize" for op in made.get_ordered_ops())

    assert rounded(also=("conv1",)) < rounded() < rounded(last=True)


def test_auto_falls_back_to_torch_where_nothing_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda engine: engine == "torch")
    assert choose("auto", "float32") == choose("auto", "bfloat16") == "torch"


def test_auto_stays_with_torch_on_cuda() -> None:
    assert choose("auto", "bfloat16", "cuda") == "torch"


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda engine: engine == "torch")
    with pytest.raises(EngineError, match=r"openvino needs onnx and openvino; pip install 'alexnet\[openvino\]'"):
        choose("openvino", "float32")
    with pytest.raises(EngineError, match="int8 needs OpenVINO"):
        choose("auto", "int8")


def test_an_engine_that_lacks_a_precision_says_which_has_it() -> None:
    with pytest.raises(EngineError, match="torch does not compute int8 here; choose openvino"):
        choose("torch", "int8")


def test_an_unknown_engine_or_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="engine 'tensorrt' should be auto, torch"):
        choose("tensorrt", "float32")
    with pytest.raises(EngineError, match="precision 'int4' should be one of"):
        load(tmp_path, precision="int4")
