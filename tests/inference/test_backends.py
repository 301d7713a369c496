"""The engine and torch compute the same, and which of them is taken."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import presets
from alexnet.checkpoint import arrays
from alexnet.config import replace
from alexnet.errors import MissingLibrary, UsageError
from alexnet.inference import backends
from alexnet.inference.backends import BACKENDS, Backend, choose
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor, Trained, softmax
from alexnet.inference.torch_backend import TorchBackend
from alexnet.model.zoo import create_model

CLOSE = {"float32": 1e-5, "bfloat16": 2e-2}  # of the largest logit
COMPUTED = [(name, precision) for name in BACKENDS for precision in CLOSE]


def squares(n: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def trained_as(center: str = "mean-image") -> Trained:
    """The preset digits with initial weights, centred one way or the other."""
    config = replace(presets.preset("digits"), {"data.center": center})
    weights = arrays(create_model("digits").state_dict())
    mean = np.random.default_rng(5).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    return Trained(config, weights, mean, tuple("0123456789"))


def backend_of(trained: Trained, name: str, precision: str = "float32") -> Backend:
    if name == "engine":
        return trained.interpreter(precision)
    return TorchBackend(trained.torch_model(), *trained.centring(), precision)


@pytest.mark.parametrize("center", ["mean-image", "imagenet", "none"])
@pytest.mark.parametrize(("name", "precision"), COMPUTED)
def test_a_backend_gives_the_logits_of_the_torch_model(name: str, precision: str, center: str) -> None:
    trained = trained_as(center)
    mean, scale = trained.centring()
    views = [(0, 2, False), (1, 1, True)]
    images = squares(6)
    found = backend_of(trained, name, precision).logits(images, views)
    assert found.dtype == np.float32 and found.shape == (2, 6, 10)
    pixels = images.astype(np.float32) - (0 if mean is None else mean)
    pixels = pixels if scale is None else pixels * scale
    for (top, left, mirror), logits in zip(views, found, strict=True):
        view = pixels[:, top : top + 14, left : left + 14]
        view = view[:, :, ::-1] if mirror else view
        with torch.no_grad():
            expected = trained.torch_model()(torch.from_numpy(view.transpose(0, 3, 1, 2).copy())).numpy()
        assert np.abs(logits - expected).max() <= CLOSE[precision] * np.abs(expected).max()


@pytest.mark.parametrize("name", BACKENDS)
def test_taps_are_those_of_the_torch_model(name: str) -> None:
    trained = trained_as()
    images, view = squares(3), (1, 1, False)
    model, plain = trained.torch_model(), TorchBackend(trained.torch_model(), *trained.centring())
    expected = model.taps(plain.view(torch.from_numpy(images), *view))
    found = backend_of(trained, name).taps(images, view)
    assert found.keys() == expected.keys()
    for tap, value in expected.items():
        assert found[tap].dtype == np.float32 and found[tap].shape == tuple(value.shape), tap
        assert np.abs(found[tap] - value.numpy()).max() <= 1e-5 * float(value.abs().max()), tap
    with pytest.raises(UsageError, match="no tap 'relu9'"):
        backend_of(trained, name).taps(images, view, ["conv1", "relu9"])


@pytest.mark.parametrize("name", BACKENDS)
def test_batches_of_any_size_follow_one_another(name: str) -> None:
    trained = trained_as()
    backend, plain = backend_of(trained, name), backend_of(trained, "torch")
    for n in (1, 5, 0, 2, 70):
        images = squares(n)
        views = [(1, 1, False)] * 3
        np.testing.assert_allclose(backend.logits(images, views), plain.logits(images, views), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "precision"), COMPUTED)
def test_many_threads_get_the_bits_of_one(name: str, precision: str) -> None:
    trained = trained_as()
    net = NetworkPredictor(trained, backend_of(trained, name, precision))
    batches = [squares(n) for n in (3, 1, 5, 2)] * 6

    def both(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return net.probabilities(batch, 5), net.taps(batch, ["pool1"])["pool1"]

    alone = [both(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(both, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_bfloat16_of_torch_is_the_arithmetic_of_a_training_run() -> None:
    trained = trained_as()
    model, images = trained.torch_model(), squares(4)
    view = TorchBackend(model, *trained.centring()).view(torch.from_numpy(images), 1, 1, False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(view).float().numpy()
    (logits,) = TorchBackend(model, *trained.centring(), "bfloat16").logits(images, [(1, 1, False)])
    np.testing.assert_allclose(logits, expected, atol=2**-7 * np.abs(expected).max())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("views", [1, 5, 10])
def test_a_runs_probabilities_are_those_of_torch(trained: Path, views: int) -> None:
    pictures = squares(7)
    plain, ours = load(trained, backend="torch"), load(trained, device="cpu")
    assert (plain.description["backend"], ours.description["backend"]) == ("torch", "engine")
    np.testing.assert_allclose(ours.probabilities(pictures, views), plain.probabilities(pictures, views), atol=1e-5)


def test_softmax_is_stable_and_that_of_float64() -> None:
    logits = np.array([[1000.0, 999.0, -1000.0], [0.1, 0.2, 0.3], [-1e30, 0, 1e30]], np.float32)
    exact = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found = softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact / exact.sum(1, keepdims=True), rtol=1e-6)


def test_the_engine_is_taken_unless_there_is_a_reason_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_gpu_driver", lambda: False)
    assert choose(None, "float32") == choose(None, "bfloat16") == choose(None, "int8") == "engine"
    assert choose(None, "float32", "cpu") == choose("engine", "int8", "cpu") == "engine"
    assert choose("torch", "bfloat16") == choose(None, "float32", library=True) == "torch"


def test_torch_is_taken_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_gpu_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose(None, "float32") == choose(None, "bfloat16") == "torch"
    assert choose(None, "int8") == choose(None, "float32", "cpu") == "engine"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # a driver without a card that it knows
    assert choose(None, "float32") == "engine"


def test_a_gpu_is_not_looked_for_where_there_is_no_driver_or_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    monkeypatch.setattr(backends, "has_gpu_driver", lambda: False)
    assert choose(None, "float32") == "engine"
    monkeypatch.setattr(backends, "has_gpu_driver", lambda: True)
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert choose(None, "float32") == "engine"
    with pytest.raises(MissingLibrary, match=r"torch needs torch; pip install 'alexnet\[train\]'"):
        choose("torch", "float32")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "tensorrt"}, "backend 'tensorrt' should be engine or torch"),
        ({"backend": "engin"}, "did you mean engine"),
        ({"precision": "int4"}, "precision 'int4' should be one of float32, bfloat16, int8"),
        ({"backend": "torch", "precision": "int8"}, "torch does not compute int8; choose the backend engine"),
        ({"backend": "engine", "device": "cuda:0"}, "the engine computes on the CPU"),
        ({"device": "tpu"}, "device 'tpu' should be auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_is_read(
    options: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        load(tmp_path, **options)  # type: ignore[arg-type]


def test_the_networks_of_torchvision_are_computed_by_torch_alone() -> None:
    with pytest.raises(UsageError, match="the engine does not compute torchvision's networks"):
        load("torchvision:alexnet", checkpoint="random", backend="engine")


def test_a_predictor_does_not_change_the_weights_it_is_made_of(trained: Path) -> None:
    net = load(trained)
    assert isinstance(net, NetworkPredictor)
    before = {name: value.copy() for name, value in net.trained.weights.items()}
    net.probabilities(squares(2), 10)
    TorchBackend(net.trained.torch_model()).model.get_parameter("conv1.weight").data.zero_()
    assert all(np.array_equal(value, before[name]) for name, value in net.trained.weights.items())
