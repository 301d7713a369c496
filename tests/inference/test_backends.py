"""Every backend against the torch model: how closely, by precision."""

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import presets
from alexnet.config import Config
from alexnet.data.loader import BatchLoader
from alexnet.data.readers.open import open_source
from alexnet.data.statistics import Accumulator, Statistics
from alexnet.errors import MissingLibrary, UsageError
from alexnet.inference import backends
from alexnet.inference.backends import BACKENDS, PRECISIONS, Backend, OpenVinoBackend, TorchBackend, choose, fastest
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor
from alexnet.model.zoo import build, create_model
from alexnet.training.loop import train

CLOSE = {"float32": 1e-5, "bfloat16": 2e-2}  # of the largest logit
KINDS = list(BACKENDS.values())
COMPUTED = [(kind, precision) for kind in KINDS for precision in kind.precisions if precision in CLOSE]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits of two epochs."""
    config = presets.preset("digits")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2, threads=1))
    path = tmp_path_factory.mktemp("runs") / "digits"
    train(config, path)
    return path


def need(kind: type[Backend]) -> None:
    if not kind.installed():
        pytest.skip(f"{' or '.join(kind.needs)} is not installed (extra: {kind.extra})")


def need_int8() -> None:
    need(BACKENDS["openvino"])
    pytest.importorskip("nncf", reason="nncf is not installed (extra: openvino)")


def images(n: int, side: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


def statistics(config: Config) -> Statistics:
    """Those of some noise."""
    sums = Accumulator(config.data.size)
    sums.add(images(4, config.data.size).numpy())
    return sums.statistics()


@pytest.mark.parametrize(("kind", "precision"), COMPUTED)
def test_a_backend_gives_the_logits_of_the_torch_model(kind: type[Backend], precision: str) -> None:
    need(kind)
    model = create_model("digits").eval()
    views = (torch.randn(6, 3, 14, 14) * 60).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model(views)
    logits = kind(model, precision).logits(views)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= CLOSE[precision] * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_takes_batches_of_any_size_after_one_another(kind: type[Backend]) -> None:
    need(kind)
    model = create_model("digits").eval()
    backend = kind(model)
    for n in (1, 5, 2, 5):
        views = torch.randn(n, 3, 14, 14) * 60
        with torch.no_grad():
            expected = model(views)
        assert torch.allclose(backend.logits(views), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("kind", "precision"), COMPUTED)
def test_many_threads_get_the_bits_of_one(kind: type[Backend], precision: str) -> None:
    need(kind)
    config = presets.preset("digits")
    net = NetworkPredictor(config, statistics(config), list("0123456789"), kind(build(config.network), precision))
    batches = [images(n) for n in (3, 1, 5, 2)] * 6

    def both(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return net.probabilities(batch, 5), net.taps(batch, ["pool1"])["pool1"]

    alone = [both(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(both, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_bfloat16_of_torch_is_the_arithmetic_of_a_training_run() -> None:
    model = create_model("digits").eval()
    views = torch.randn(4, 3, 14, 14) * 60
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(views).float()
    logits = TorchBackend(model, "bfloat16").logits(views)
    assert torch.allclose(logits, expected, atol=2**-7 * float(expected.abs().max()))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_ctrl_c_stops_a_process_that_has_used_several_openvino_networks() -> None:
    need(OpenVinoBackend)
    code = (
        "import gc, signal\n"
        "from alexnet.inference.backends import OpenVinoBackend\n"
        "from alexnet.model.zoo import create_model\n"
        "one = OpenVinoBackend(create_model('digits'))\n"
        "two = OpenVinoBackend(create_model('digits'))\n"
        "del one\n"
        "gc.collect()\n"
        "del two\n"
        "gc.collect()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped')\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "stopped\n"), process.stderr


@pytest.mark.parametrize("name", ["auto", *BACKENDS])
@pytest.mark.parametrize("views", [1, 5, 10])
def test_probabilities_are_those_of_torch(run: Path, name: str, views: int) -> None:
    if name != "auto":
        need(BACKENDS[name])
    pictures = images(7)
    plain, other = load(str(run)), load(str(run), backend=name)
    assert torch.allclose(other.probabilities(pictures, views), plain.probabilities(pictures, views), atol=1e-5)


def test_what_is_installed_changes_nothing_without_a_word(run: Path) -> None:
    net = load(run)
    assert isinstance(net, NetworkPredictor) and type(net.backend) is TorchBackend
    assert (net.description["backend"], net.description["precision"]) == ("torch", "float32")


def test_the_one_predict_call_works_with_every_backend(run: Path) -> None:
    picture = images(1)[0].numpy()
    expected = load(run).predict(picture, top=3)[0].labels
    for kind in fastest("float32"):
        assert load(run, backend=kind.name).predict(picture, top=3)[0].labels == expected


def test_int8_gives_the_labels_of_float32_for_nearly_every_training_image(run: Path) -> None:
    need_int8()
    plain, small = load(run), load(run, precision="int8")
    assert small.description["backend"] == "openvino"
    loader = BatchLoader(open_source("digits").splits["train"], 16, 300, seed=0, shuffle=False)
    batch = next(loader.epoch(0)).images
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
        graph = quantize(model, views, **how)  # type: ignore[arg-type]
        return sum(op.get_type_name() == "FakeQuantize" for op in graph.get_ordered_ops())

    assert rounded(also=("conv1",)) < rounded() < rounded(last=True)


def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda package: None)


def test_auto_falls_back_to_torch_where_nothing_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    only_torch(monkeypatch)
    assert choose("auto", "float32") is choose("auto", "bfloat16") is TorchBackend
    assert fastest("int8") == []


def test_auto_stays_with_torch_on_a_gpu() -> None:
    assert choose("auto", "bfloat16", gpu=True) is choose("auto", "float32", gpu=True) is TorchBackend


def test_torch_computes_unless_another_is_named() -> None:
    assert choose(None, "float32") is choose(None, "bfloat16") is TorchBackend


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    only_torch(monkeypatch)
    message = r"openvino needs onnx and openvino; pip install 'alexnet\[openvino\]'"
    for name, precision in (("openvino", "float32"), ("auto", "int8"), (None, "int8")):
        with pytest.raises(MissingLibrary, match=message):
            choose(name, precision)


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_a_backend_that_lacks_a_precision_says_which_has_it(name: str, run: Path) -> None:
    with pytest.raises(UsageError, match=f"{name} does not compute int8; choose the backend openvino"):
        load(run, backend=name, precision="int8")


def test_an_unknown_backend_or_precision_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backend 'tensorrt' should be one of auto, torch"):
        load(tmp_path, backend="tensorrt", precision="float32")
    with pytest.raises(UsageError, match="precision 'int4' should be one of"):
        load(tmp_path, precision="int4")


def test_every_precision_has_a_backend() -> None:
    for precision in PRECISIONS:
        assert any(precision in kind.precisions for kind in KINDS)
