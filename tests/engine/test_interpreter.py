"""The interpreter against the torch model, which is the specification."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet import presets
from alexnet.architecture import Network
from alexnet.config import replace
from alexnet.data.augment import Augmentation
from alexnet.data.statistics import Statistics
from alexnet.engine import library, quantization
from alexnet.engine.build import LIBRARY
from alexnet.engine.interpreter import Interpreter
from alexnet.errors import CheckpointError, UsageError
from alexnet.model.alexnet import AlexNet

FOUND = library.library()
ENGINES = [None, *(library.Library(LIBRARY, target) for target in (FOUND.targets if FOUND else ()))]  # None: NumPy


def network(preset: str, image: int | None = None, **fields: object) -> Network:
    """A preset's network, with a smaller image where the preset's makes a slow test."""
    net = presets.preset(preset).network
    return dataclasses.replace(net, image=image or net.image, **fields)  # type: ignore[arg-type]


def narrow(net: Network) -> Network:
    """The network with hidden fully-connected layers of at most 64 units: the same code in a fraction of the time."""
    layers = tuple(
        dataclasses.replace(layer, units=min(layer.units, 64)) if getattr(layer, "units", None) else layer
        for layer in net.layers
    )
    return dataclasses.replace(net, layers=layers)


def weights_of(model: AlexNet) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def squares(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count + side).integers(0, 256, (count, side, side, 3), np.uint8)


def error(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest difference relative to the largest value."""
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))


LARGE = ("code-145", "caffe", "one-weird-trick", "one-gpu", "conv6")  # tested on smaller pictures, "paper" on its own
NETWORKS = [narrow(network(name, 114 if name in LARGE else None)) for name in presets.names()]
NETWORKS += [narrow(network("paper", 99, activation="tanh", name="tanh")), network("digits", columns=1, name="one")]


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: net.name)
def test_taps_and_logits_are_the_torch_models_on_every_target(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AlexNet(net, seed=3).eval()
    side = net.image + 3
    mean = np.random.default_rng(1).uniform(90, 150, (side, side, 3)).astype(np.float32)
    images = squares(2, side)
    crops = images[:, 1:-2, 2:-1].astype(np.float32) - mean[1:-2, 2:-1]
    theirs = model.taps(torch.from_numpy(crops).permute(0, 3, 1, 2))
    for engine in ENGINES:
        monkeypatch.setattr(library, "_loaded", [engine])
        interpreter = Interpreter(net, weights_of(model), mean=mean)
        ours = interpreter.taps(images, (1, 2, False))
        assert list(ours) == list(theirs)
        for name, values in theirs.items():
            assert error(ours[name], values.numpy()) < 1e-5, (engine and engine.target, name)
        logits = interpreter.logits(images, [(1, 2, False)])
        assert error(logits[0], theirs[net.layers[-1].name].numpy()) < 1e-5


@pytest.mark.parametrize("center", ["mean-image", "imagenet", "none"])
def test_views_are_those_of_training(center: str) -> None:
    config = replace(presets.preset("digits"), {"data.center": center})
    mean = np.random.default_rng(2).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    augmentation = Augmentation(
        config, Statistics(mean, np.zeros(3), np.eye(3), np.ones(3), np.eye(3), 9), torch.device("cpu")
    )
    model = AlexNet(config.network).eval()
    given = None if center == "none" else augmentation.means[0, 0].numpy()
    if center != "none":  # the whole mean, of which the first crop is a part
        given = mean if center == "mean-image" else np.broadcast_to(given[0, 0], mean.shape)
    scale = None if augmentation.scale is None else augmentation.scale.numpy()
    interpreter = Interpreter(config.network, weights_of(model), mean=given, scale=scale)
    images, views = squares(3, 16), [(0, 0, False), (1, 2, True), (2, 0, True)]
    logits = interpreter.logits(images, views)
    with torch.no_grad():
        theirs = [model(augmentation.test(torch.from_numpy(images), *view)).numpy() for view in views]
    assert error(logits, np.stack(theirs)) < 1e-5


def interpreter_of(name: str = "digits", **options: object) -> Interpreter:
    net = network(name)
    return Interpreter(net, weights_of(AlexNet(net)), **options)  # type: ignore[arg-type]


def test_many_images_are_the_same_as_few() -> None:
    interpreter = interpreter_of()
    images, views = squares(70, 16), [(0, 0, False), (1, 1, True), (2, 2, False)]
    together = interpreter.logits(images, views)
    assert together.shape == (3, 70, 10)
    alone = [interpreter.logits(images[i : i + 1], views[j : j + 1])[0, 0] for i, j in ((0, 0), (69, 2), (64, 1))]
    assert np.allclose(together[[0, 2, 1], [0, 69, 64]], alone, rtol=1e-5, atol=1e-6)
    assert len(interpreter.taps(images, views[0], ["fc4"])["fc4"]) == 70


def test_no_images_and_no_views_are_answered() -> None:
    interpreter = interpreter_of()
    assert interpreter.logits(squares(0, 16), [(0, 0, False)]).shape == (1, 0, 10)
    assert interpreter.logits(squares(2, 16), []).shape == (0, 2, 10)
    assert interpreter.taps(squares(0, 16), (0, 0, False), ["pool1"])["pool1"].shape == (0, 32, 7, 7)
    assert interpreter.taps(squares(2, 16), (0, 0, False), []) == {}


def test_several_threads_may_call_at_once() -> None:
    interpreter = interpreter_of(threads=2)
    batches = [squares(count, 16) for count in (1, 5, 9, 33) * 4]
    alone = [interpreter.logits(batch, [(0, 2, True), (1, 1, False)]) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: interpreter.logits(batch, [(0, 2, True), (1, 1, False)]), batches))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_how_many_threads_compute_changes_nothing() -> None:
    images = squares(7, 16)
    one, three = (interpreter_of(threads=n).logits(images, [(1, 1, False)]) for n in (1, 3))
    assert np.array_equal(one, three)


def test_squares_may_be_part_of_a_larger_array() -> None:
    interpreter, images = interpreter_of(), squares(6, 20)
    part = images[::2, 2:18, 1:17]
    whole = interpreter.logits(np.ascontiguousarray(part), [(1, 1, False)])
    assert np.array_equal(interpreter.logits(part, [(1, 1, False)]), whole)


def test_taps_are_copies_and_can_be_chosen() -> None:
    interpreter = interpreter_of()
    images = squares(2, 16)
    before = interpreter.taps(images, (1, 1, False), ["relu1", "drop4"])
    assert list(before) == ["relu1", "drop4"]
    before["relu1"][:] = 0
    assert interpreter.taps(images, (1, 1, False), ["relu1"])["relu1"].any()


def test_bfloat16_is_near_float32_and_gives_unrounded_logits() -> None:
    images, views = squares(4, 16), [(1, 1, False)]
    exact, rounded = (interpreter_of(precision=p).logits(images, views) for p in ("float32", "bfloat16"))
    assert 0 < error(rounded, exact) < 0.02
    assert (rounded.view(np.uint32) & 0xFFFF).any()


def ranges_of(interpreter: Interpreter, images: NDArray[np.uint8]) -> dict[str, float]:
    """The largest absolute values of the taps that layers take, on some images."""
    names = set(quantization.sources(interpreter.network).values()) - {quantization.IMAGE}
    taps = interpreter.taps(images, (1, 1, False), names)
    return {quantization.IMAGE: 255.0, **{name: float(np.abs(values).max()) for name, values in taps.items()}}


def test_int8_is_near_float32() -> None:
    images, views = squares(6, 16), [(1, 1, False)]
    mean = np.full((16, 16, 3), 120, np.float32)
    exact = interpreter_of(mean=mean)
    ranges = ranges_of(exact, images)
    whole = interpreter_of(mean=mean, precision="int8", ranges=ranges)
    assert 0 < error(whole.logits(images, views), exact.logits(images, views)) < 0.05
    del ranges["relu4"]  # the last layer is computed in bfloat16 then
    mixed = interpreter_of(mean=mean, precision="int8", ranges=ranges)
    assert (mixed.logits(images, views) != whole.logits(images, views)).any()


@pytest.mark.parametrize("left_out", [None, "relu4"], ids=["all", "but for the last layer"])
def test_int8_is_that_of_numpy_on_every_target(left_out: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    images, views = squares(6, 16), [(1, 1, False), (0, 2, True)]
    mean = np.full((16, 16, 3), 120, np.float32)
    ranges = ranges_of(interpreter_of(mean=mean), images)
    ranges.pop(left_out or "", None)
    found = []
    for engine in ENGINES:
        monkeypatch.setattr(library, "_loaded", [engine])
        found.append(interpreter_of(mean=mean, precision="int8", ranges=ranges).logits(images, views))
        # A map on the edge between two bfloat16 numbers or two levels may fall on either side.
        assert error(found[-1], found[0]) < 2e-3, engine and engine.target


def test_wrong_requests_are_told() -> None:
    net = network("digits")
    weights = weights_of(AlexNet(net))
    with pytest.raises(UsageError, match="precision 'int4' should be one of float32, bfloat16, int8"):
        Interpreter(net, weights, precision="int4")
    with pytest.raises(UsageError, match="only torch can run it"):
        Interpreter(Network("torchvision:alexnet"), {})
    with pytest.raises(UsageError, match=r"a mean of shape \(8, 8, 3\) should be"):
        Interpreter(net, weights, mean=np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UsageError, match="int8, and no other precision, needs ranges"):
        Interpreter(net, weights, precision="int8")
    with pytest.raises(UsageError, match="int8, and no other precision, needs ranges"):
        Interpreter(net, weights, ranges={})
    with pytest.raises(UsageError, match="ranges have 'relu1', which no layer of digits takes; they"):
        Interpreter(net, weights, precision="int8", ranges={"relu1": 1.0})
    with pytest.raises(UsageError, match="the range of pool1, nan, should be a number above 0"):
        Interpreter(net, weights, precision="int8", ranges={"pool1": float("nan")})
    interpreter = Interpreter(net, weights, mean=np.zeros((16, 16, 3), np.float32))
    with pytest.raises(UsageError, match=r"uint8 \(1, 15, 15, 3\) should be uint8 \(N, 16, 16, 3\)"):
        interpreter.logits(squares(1, 15), [(0, 0, False)])
    with pytest.raises(UsageError, match="float64"):
        interpreter.logits(np.zeros((1, 16, 16, 3)), [(0, 0, False)])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a view at \(3, 0\) does not lie in squares of side 16: 2 is the last"):
        interpreter.logits(squares(1, 16), [(3, 0, False)])
    with pytest.raises(UsageError, match="no tap 'conv9'; it has conv1, relu1"):
        interpreter.taps(squares(1, 16), (0, 0, False), ["conv9"])


def test_weights_that_do_not_fit_are_named() -> None:
    net = network("digits")
    weights = weights_of(AlexNet(net))
    with pytest.raises(CheckpointError, match=r"the weights have no conv1.weight"):
        Interpreter(net, {})
    with pytest.raises(CheckpointError, match=r"the weights have 'conv9.weight'"):
        Interpreter(net, {**weights, "conv9.weight": weights["conv1.weight"]})
    with pytest.raises(CheckpointError, match=r"fc5.bias is float32 \(9,\), but should be float32 \(10,\)"):
        Interpreter(net, {**weights, "fc5.bias": weights["fc5.bias"][:9]})
    with pytest.raises(CheckpointError, match=r"fc5.bias is int64"):
        Interpreter(net, {**weights, "fc5.bias": weights["fc5.bias"].astype(int)})
