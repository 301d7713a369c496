"""The built network against plain loops, another library's weights, and two half-networks wired by hand.

Everything that is compared is computed in float64, so tolerances are those of rounding alone.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet import presets
from alexnet.architecture import (
    Activation,
    Conv,
    Dropout,
    Full,
    Layer,
    Local,
    Network,
    Pool,
    hidden_layer,
    infer_shapes,
)
from alexnet.model import native
from alexnet.model.alexnet import AlexNet, Linear, Local2d
from alexnet.model.zoo import LibraryConv2d, create_model

PRESETS = presets.names()


def single(layer: Layer, side: int, columns: int = 1) -> AlexNet:
    """A network of one layer, in float64."""
    return AlexNet(Network("single", image=side, classes=2, columns=columns, layers=(layer,))).double().eval()


def pictures(n: int, side: int, seed: int = 0) -> Tensor:
    """Random images of about the size of centred pixels, float64 (n, 3, side, side)."""
    return 60 * torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolved(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, pad: int, groups: int) -> np.ndarray:
    """A convolution by loops: as many windows as the 2012 code's ceil gives, zeros wherever a window leaves the image.

    x (N, C, H, W), w (kernels, C/groups, size, size), b (kernels,).
    """
    n, maps, height, width = x.shape
    kernels, seen, size, _ = w.shape
    rows, columns = (1 + math.ceil((2 * pad + side - size) / stride) for side in (height, width))
    canvas = np.zeros((n, maps, height + 2 * pad + stride, width + 2 * pad + stride))
    canvas[:, :, pad : pad + height, pad : pad + width] = x
    out = np.empty((n, kernels, rows, columns))
    for k, i, j in itertools.product(range(kernels), range(rows), range(columns)):
        first = k // (kernels // groups) * seen
        window = canvas[:, first : first + seen, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, k, i, j] = (window * w[k]).sum((1, 2, 3)) + b[k]
    return out


def pooled(x: np.ndarray, size: int, stride: int, kind: str) -> np.ndarray:
    """Pooling by loops: windows start inside the map and are cut off at its edge; a mean is over what is left."""
    n, maps, height, width = x.shape
    rows, columns = (
        len([s for s in range(0, side, stride) if s == 0 or s - stride + size < side]) for side in (height, width)
    )
    out = np.empty((n, maps, rows, columns))
    for i, j in itertools.product(range(rows), range(columns)):
        window = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, :, i, j] = window.max((2, 3)) if kind == "max" else window.mean((2, 3))
    return out


@pytest.mark.parametrize(
    ("side", "size", "stride", "pad", "kernels", "columns"),
    [
        (7, 3, 1, 0, 4, 1),
        (7, 3, 1, 1, 4, 1),
        (8, 3, 2, 0, 4, 1),
        (9, 3, 2, 0, 3, 3),
        (10, 4, 3, 1, 3, 3),
        (11, 5, 4, 2, 2, 1),
        (12, 5, 3, 0, 3, 3),
        (13, 11, 4, 0, 2, 1),
        (6, 6, 5, 0, 2, 1),
        (5, 1, 1, 0, 3, 3),
    ],
)
def test_a_convolution_equals_plain_loops(
    side: int, size: int, stride: int, pad: int, kernels: int, columns: int
) -> None:
    model = single(Conv("conv", kernels, size, stride, pad, sees="own", bias=0.5), side, columns)
    x = pictures(2, side)
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    expected = convolved(x.numpy(), weights["conv.weight"], weights["conv.bias"], stride, pad, columns)
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12, atol=1e-11)


def test_the_first_layer_makes_55_rows_of_224_with_zeros_past_the_right_and_bottom_edges() -> None:
    model = single(Conv("conv", 2, 11, stride=4), 224)
    x = pictures(1, 224)
    state = model.state_dict()
    expected = convolved(x.numpy(), state["conv.weight"].numpy(), state["conv.bias"].numpy(), 4, 0, 1)
    assert expected.shape == (1, 2, 55, 55)
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12, atol=1e-11)


def test_a_window_over_the_far_edge_sees_zeros_there_and_the_near_edge_has_none() -> None:
    model = single(Conv("conv", 1, 11, stride=4), 224)
    with torch.no_grad():
        model.get_submodule("conv").weight.fill_(1)
    out = model(torch.ones(1, 3, 224, 224, dtype=torch.float64))[0, 0]
    assert out[0, 0] == out[53, 53] == 3 * 11 * 11
    assert out[54, 0] == out[0, 54] == 3 * 11 * 8  # rows 216 to 223 are there, 224 to 226 are zeros
    assert out[54, 54] == 3 * 8 * 8


@pytest.mark.parametrize(
    ("side", "size", "stride", "pad", "kernels", "columns"),
    [(8, 3, 2, 0, 4, 1), (10, 4, 3, 1, 3, 3), (11, 5, 4, 2, 2, 1), (9, 3, 1, 1, 6, 3), (27, 11, 4, 0, 2, 1)],
)
def test_a_bfloat16_convolution_and_its_gradients_are_those_of_float64_but_for_rounding(
    side: int, size: int, stride: int, pad: int, kernels: int, columns: int
) -> None:
    model = single(Conv("conv", kernels, size, stride, pad, sees="own", bias=0.5), side, columns)
    rounded = {key: value.bfloat16() for key, value in model.state_dict().items()}
    model.load_state_dict(rounded)
    x = pictures(3, side).bfloat16().double().requires_grad_()
    low = AlexNet(model.network)
    low.load_state_dict(rounded)
    y = x.detach().float().requires_grad_()
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = low(y)
    assert out.dtype == torch.bfloat16
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).bfloat16()
    expected.backward(slope.double())
    out.backward(slope)
    pairs = [(out, expected), (y.grad, x.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(low.parameters(), model.parameters(), strict=True)]
    for ours, exact in pairs:
        assert ours is not None and exact is not None
        torch.testing.assert_close(ours.double(), exact, rtol=2**-7, atol=2**-8 * float(exact.detach().abs().max()))


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize(
    ("low", "shape"),
    [
        (Linear(70, 30), (9, 70)),
        (Local2d(7, 5, 3, 1, (6, 6)), (2, 7, 6, 6)),
        (LibraryConv2d(8, 6, 3, 2, 1, groups=2), (2, 8, 7, 7)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_bfloat16_products_and_their_gradients_are_those_of_float64_but_for_rounding(
    low: nn.Module, shape: tuple[int, ...], multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "multiplies_bfloat16", lambda: multiplies)
    torch.manual_seed(0)
    low.load_state_dict({key: torch.randn(value.shape).bfloat16() for key, value in low.state_dict().items()})
    low.zero_grad()
    exact = copy.deepcopy(low).double()
    x = torch.randn(shape).bfloat16().float().requires_grad_()
    y = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = low(x)
    assert out.dtype == torch.bfloat16
    expected = exact(y)
    slope = torch.randn(expected.shape).bfloat16()
    out.backward(slope)
    expected.backward(slope.double())
    pairs = [(out, expected), (x.grad, y.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(low.parameters(), exact.parameters(), strict=True)]
    for ours, theirs in pairs:
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours.double(), theirs, rtol=2**-7, atol=2**-8 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("side", "size", "stride"),
    [
        (5, 3, 2),
        (6, 3, 2),
        (8, 3, 2),
        (32, 3, 2),
        (7, 2, 2),
        (8, 2, 2),
        (9, 3, 3),
        (10, 3, 3),
        (11, 4, 3),
        (5, 5, 3),
        (9, 2, 3),
        (6, 1, 2),
    ],
)
def test_pooling_equals_plain_loops(side: int, size: int, stride: int, kind: str) -> None:
    model = single(Pool("pool", size, stride, kind), side)  # type: ignore[arg-type]
    x = pictures(2, side)
    np.testing.assert_allclose(model(x).numpy(), pooled(x.numpy(), size, stride, kind), rtol=1e-13, atol=1e-12)


def test_a_clipped_average_divides_by_the_pixels_it_has() -> None:
    out = single(Pool("pool", 3, 2, "avg"), 4)(torch.ones(1, 3, 4, 4, dtype=torch.float64))
    assert torch.equal(out, torch.ones(1, 3, 2, 2, dtype=torch.float64))


def test_a_maximum_at_the_edge_of_negative_pixels_is_no_zero_of_padding() -> None:
    out = single(Pool("pool", 3, 2, "max"), 4)(-torch.ones(1, 3, 4, 4, dtype=torch.float64))
    assert torch.equal(out, -torch.ones(1, 3, 2, 2, dtype=torch.float64))


@pytest.mark.parametrize(("side", "kernels", "size", "pad"), [(6, 4, 3, 1), (7, 2, 3, 0), (5, 3, 5, 2), (4, 3, 1, 0)])
def test_a_locally_connected_layer_equals_plain_loops(side: int, kernels: int, size: int, pad: int) -> None:
    model = single(Local("local", kernels, size, pad), side)
    state = model.state_dict()
    weight, bias = state["local.weight"].numpy(), state["local.bias"].numpy()
    bias += np.random.default_rng(1).normal(size=bias.shape)
    rows = side + 2 * pad - size + 1
    x = pictures(2, side)
    canvas = np.zeros((2, 3, side + 2 * pad, side + 2 * pad))
    canvas[:, :, pad : pad + side, pad : pad + side] = x.numpy()
    expected = np.empty((2, kernels, rows, rows))
    for i, j, k in itertools.product(range(rows), range(rows), range(kernels)):
        kernel = weight[i * rows + j, :, k].reshape(3, size, size)  # one kernel per position and map
        window = canvas[:, :, i : i + size, j : j + size]
        expected[:, k, i, j] = (window * kernel).sum((1, 2, 3)) + bias[i * rows + j, k]
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    "layer", [Conv("layer", 2, 3, stride=2, pad=1), Local("layer", 2, 3, 1), Pool("layer", kind="avg"), Pool("layer")]
)
def test_the_gradient_of_a_layer_is_its_slope(layer: Layer) -> None:
    model = single(layer, 6)
    x = pictures(1, 6).div(60).requires_grad_()
    assert torch.autograd.gradcheck(model, (x,))


@st.composite
def described(draw: st.DrawFn) -> tuple[Layer, int]:
    size = draw(st.integers(1, 6))
    side = draw(st.integers(size, 20))
    stride, pad, ceil = draw(st.integers(1, 7)), draw(st.integers(0, size)), draw(st.booleans())
    kind = draw(st.sampled_from(["conv", "local", "max", "avg"]))
    if kind == "conv":
        return Conv("layer", 3, size, stride, pad, ceil=ceil, sees=draw(st.sampled_from(["own", "all"]))), side
    if kind == "local":
        return Local("layer", 2, size, pad), side
    return Pool("layer", size, stride, kind, ceil), side  # type: ignore[arg-type]


@given(described())
@example((Conv("layer", 3, 1, stride=2), 2))
@example((Conv("layer", 3, 3, stride=3, pad=1), 2))
@example((Local("layer", 2, 1, pad=1), 1))
@settings(max_examples=150, deadline=None)
def test_a_built_layer_has_the_described_shape_and_parameters(case: tuple[Layer, int]) -> None:
    layer, side = case
    network = Network("any", image=side, classes=2, columns=3, layers=(layer,))
    (measured,) = infer_shapes(network)
    model = AlexNet(network)
    assert model(torch.zeros(2, 3, side, side)).shape == (2, *measured.shape)
    assert sum(p.numel() for p in model.parameters()) == measured.parameters


@pytest.fixture(scope="module", params=PRESETS)
def model(request: pytest.FixtureRequest) -> Iterator[AlexNet]:
    yield create_model(request.param)  # type: ignore[misc]


def published(name: str) -> dict[str, tuple[float, float]]:
    """Deviation of the initial weights and the initial bias of each layer, where the facts give both."""
    ones = {key: 1.0 for key in ("conv2", "conv4", "conv5", "fc6", "fc7")}
    eight = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    if name in ("paper", "one-gpu"):
        return {key: (0.01, ones.get(key, 0.0)) for key in eight}
    if name == "conv6":
        return {key: (0.01, ones.get(key, 0.0)) for key in (*eight[:5], "conv6", *eight[5:])}
    if name == "code-145":
        thirds = ("conv3", "conv4", "conv5")
        return {key: (0.03 if key in thirds else 0.01, ones.get(key, 0.0)) for key in eight}
    if name == "caffe":
        small = ("fc6", "fc7")
        return {key: (0.005 if key in small else 0.01, ones.get(key, 0.0) / 10) for key in eight}
    if name == "cifar-26":
        return {"conv1": (1e-4, 0), "conv2": (0.01, 0), "conv3": (0.01, 0), "fc4": (0.1, 0), "fc5": (0.1, 0)}
    if name == "cifar-18":
        return {"conv1": (1e-4, 0), "conv2": (0.01, 0), "conv3": (0.01, 0), "fc4": (0.01, 0)}
    if name in ("cifar-13", "cifar-11"):
        return {"conv1": (1e-4, 0), "conv2": (0.01, 0), "local3": (0.04, 0), "local4": (0.04, 0), "fc5": (0.01, 0)}
    return {}


def test_initial_weights_are_normal_with_the_published_deviation(model: AlexNet) -> None:
    for name, (std, _) in published(model.network.name).items():
        weight = model.get_submodule(name).weight.detach().flatten()
        assert float(weight.std()) == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel())), name
        assert abs(float(weight.mean())) < 5 * std / math.sqrt(weight.numel()), name
        share = float((weight.abs() < std).double().mean())
        assert share == pytest.approx(0.6827, abs=2.5 / math.sqrt(weight.numel())), name


def test_initial_biases_are_the_published_constants(model: AlexNet) -> None:
    for name, (_, value) in published(model.network.name).items():
        bias = model.get_submodule(name).bias
        assert torch.equal(bias, torch.full_like(bias, value)), name


def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(model: AlexNet) -> None:
    side, classes = model.network.image, model.network.classes
    scale = 1 / 60 if model.network.name == "one-weird-trick" else 1.0
    model.train()
    torch.manual_seed(0)
    loss = F.cross_entropy(model(pictures(2, side).float() * scale), torch.tensor([1, classes - 1]))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    model.zero_grad(set_to_none=True)


def test_taps_have_the_described_names_and_shapes(model: AlexNet) -> None:
    side = model.network.image
    acts = model.taps(pictures(1, side).float())
    assert {name: tuple(act.shape) for name, act in acts.items()} == {
        entry.name: (1, *entry.shape) for entry in infer_shapes(model.network)
    }
    assert list(acts)[-1] == model.shapes[-1].name


def test_parameters_are_as_many_as_described(model: AlexNet) -> None:
    assert sum(p.numel() for p in model.parameters()) == sum(m.parameters for m in infer_shapes(model.network))


def test_the_later_net_with_torchvisions_weights_gives_torchvisions_logits() -> None:
    from torchvision.models import alexnet

    torch.manual_seed(3)
    theirs = alexnet(weights=None).double().eval()
    ours = create_model("one-weird-trick").double().eval()
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    keys = [key for key in theirs.state_dict() if key.endswith("weight")]
    renamed = {}
    for layer, key in zip(layers, keys, strict=True):
        for part in ("weight", "bias"):
            renamed[f"{layer}.{part}"] = theirs.state_dict()[key.replace("weight", part)]
    ours.load_state_dict(renamed)
    x = pictures(2, 224) / 60
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-11, atol=1e-12)


def normalized_by_loops(a: np.ndarray) -> np.ndarray:
    """The formula of §3.3 for the maps of one column: b_i = a_i / (2 + 1e-4·Σ a_j²)^0.75, j from i−2 to i+2."""
    out = np.empty_like(a)
    maps = a.shape[1]
    for i in range(maps):
        total = np.zeros_like(a[:, i])
        for j in range(max(0, i - 2), min(maps - 1, i + 2) + 1):
            total += a[:, j] ** 2
        out[:, i] = a[:, i] / (2 + 1e-4 * total) ** 0.75
    return out


class Half:
    """One column of the paper's network, on its own half of the weights, with torch's functions alone."""

    def __init__(self, state: dict[str, Tensor], which: int) -> None:
        self.state, self.which = state, which

    def own(self, name: str) -> tuple[Tensor, Tensor]:
        """This column's kernels (or units) and their biases."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        half = len(weight) // 2
        mine = slice(self.which * half, (self.which + 1) * half)
        return weight[mine], bias[mine]

    def first(self, images: Tensor) -> Tensor:
        """images (N, 3, 224, 224) → this column's pool1 (N, 48, 27, 27)."""
        weight, bias = self.own("conv1")
        bigger = torch.zeros(len(images), 3, 227, 227, dtype=images.dtype)
        bigger[:, :, :224, :224] = images
        return self.normalized_and_pooled(F.relu(F.conv2d(bigger, weight, bias, stride=4)))

    def second(self, maps: Tensor) -> Tensor:
        """(N, 48, 27, 27) → this column's pool2 (N, 128, 13, 13)."""
        weight, bias = self.own("conv2")
        return self.normalized_and_pooled(F.relu(F.conv2d(maps, weight, bias, padding=2)))

    def third(self, mine: Tensor, other: Tensor) -> Tensor:
        """Both columns' pool2 → this column's relu3 (N, 192, 13, 13): the first exchange."""
        weight, bias = self.own("conv3")
        seen = [mine, other] if self.which == 0 else [other, mine]
        out = F.conv2d(seen[0], weight[:, :128], None, padding=1) + F.conv2d(seen[1], weight[:, 128:], None, padding=1)
        return F.relu(out + bias[:, None, None])

    def last_maps(self, maps: Tensor) -> Tensor:
        """(N, 192, 13, 13) → this column's pool5 (N, 128, 6, 6)."""
        for name in ("conv4", "conv5"):
            weight, bias = self.own(name)
            maps = F.relu(F.conv2d(maps, weight, bias, padding=1))
        return F.max_pool2d(maps, 3, 2)

    def units(self, name: str, mine: Tensor, other: Tensor) -> Tensor:
        """Both columns' values → this column's half of a fully-connected layer's sums."""
        weight, bias = self.own(name)
        values = [mine, other] if self.which == 0 else [other, mine]
        at = values[0].flatten(1).shape[1]
        return values[0].flatten(1) @ weight[:, :at].T + values[1].flatten(1) @ weight[:, at:].T + bias

    @staticmethod
    def normalized_and_pooled(maps: Tensor) -> Tensor:
        return F.max_pool2d(torch.from_numpy(normalized_by_loops(maps.numpy())), 3, 2)


def test_two_columns_of_the_paper_equal_two_half_networks_wired_by_hand() -> None:
    model = create_model("paper", seed=5).double().eval()
    state = model.state_dict()
    left, right = Half(state, 0), Half(state, 1)
    images = pictures(1, 224)
    acts = model.taps(images)

    def agree(tap: str, halves: list[Tensor]) -> None:
        torch.testing.assert_close(acts[tap], torch.cat(halves, 1), rtol=1e-10, atol=1e-12, msg=lambda m: f"{tap}: {m}")

    a, b = left.first(images), right.first(images)
    agree("pool1", [a, b])
    a, b = left.second(a), right.second(b)
    agree("pool2", [a, b])
    a, b = left.third(a, b), right.third(b, a)
    agree("relu3", [a, b])
    a, b = left.last_maps(a), right.last_maps(b)
    agree("pool5", [a, b])
    for name in ("fc6", "fc7"):
        a, b = F.relu(left.units(name, a, b)), F.relu(right.units(name, b, a))
        agree(name.replace("fc", "relu"), [a, b])
    a, b = left.units("fc8", a, b), right.units("fc8", b, a)
    agree("fc8", [a, b])
    torch.testing.assert_close(model(images), torch.cat([a, b], 1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("changed", "reached"), [("conv1", {"pool1", "norm1", "conv2", "pool2"}), ("conv4", {"conv5", "pool5"})]
)
def test_what_one_column_computes_stays_in_it_until_the_next_exchange(changed: str, reached: set[str]) -> None:
    model = create_model("tiny-64")
    images = pictures(1, 56).float()
    before = model.taps(images)
    with torch.no_grad():
        weight = model.get_submodule(changed).weight
        weight[: len(weight) // 2] *= 1.5
    after = model.taps(images)
    for tap in reached:
        half = before[tap].shape[1] // 2
        assert not torch.equal(before[tap][:, :half], after[tap][:, :half]), tap
        assert torch.equal(before[tap][:, half:], after[tap][:, half:]), tap
    crossing = {"conv1": "conv3", "conv4": "fc6"}[changed]
    half = before[crossing].shape[1] // 2
    assert not torch.equal(before[crossing][:, half:], after[crossing][:, half:])


@pytest.fixture(scope="module")
def digits() -> AlexNet:
    return create_model("digits", seed=1)  # type: ignore[return-value]


def test_the_seed_decides_the_initial_weights(digits: AlexNet) -> None:
    torch.manual_seed(99)
    same, other = create_model("digits", seed=1), create_model("digits", seed=2)
    for name, value in digits.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    assert not torch.equal(digits.state_dict()["conv1.weight"], other.state_dict()["conv1.weight"])


def test_taps_are_copies(digits: AlexNet) -> None:
    images = pictures(2, 14).float()
    acts = digits.taps(images)
    kept = {name: act.clone() for name, act in acts.items()}
    for act in acts.values():
        act.fill_(math.nan)
    again = digits.taps(images)
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    assert len({act.untyped_storage().data_ptr() for act in again.values()}) == len(again)


def test_a_tap_before_a_relu_keeps_its_negative_values(digits: AlexNet) -> None:
    acts = digits.taps(pictures(2, 14).float())
    assert acts["conv1"].min() < 0
    assert torch.equal(acts["relu1"], acts["conv1"].clamp(min=0))


def test_taps_are_the_network_at_test_time_and_leave_its_mode(digits: AlexNet) -> None:
    images = pictures(3, 14).float()
    digits.eval()
    logits = digits(images)
    digits.train()
    acts = digits.taps(images)
    assert torch.equal(acts["fc5"], logits)
    assert torch.equal(acts["drop4"], acts["relu4"])
    assert all(module.training for module in digits.modules())
    digits.eval()
    digits.taps(images)
    assert not any(module.training for module in digits.modules())


def test_taps_see_both_a_convolution_and_the_relu_that_is_computed_with_it(digits: AlexNet) -> None:
    digits.eval()
    together = [group for group in digits.fused_layers if len(group) == 2]
    assert [[entry.name for entry in group] for group in together] == [[f"conv{i}", f"relu{i}"] for i in (1, 2, 3)]
    images = pictures(2, 14).float()
    acts = digits.taps(images)
    alone = {name: digits.taps(images, [name])[name] for name in acts}
    assert all(torch.equal(alone[name], acts[name]) for name in acts)
    x = images
    for group in digits.fused_layers:
        x = digits.apply_layers(group, x)
        assert torch.equal(x, acts[group[-1].name]), group[-1].name


def test_a_convolution_is_not_fused_with_a_tanh_nor_apart_from_its_relu() -> None:
    tanh = create_model("digits", activation="tanh")
    assert all(len(group) == 1 for group in tanh.fused_layers)  # type: ignore[attr-defined]
    layers = (Conv("conv1", 2, 3), Pool("pool1"), Activation("relu1"), Activation("relu2"))
    apart = AlexNet(Network("apart", image=9, classes=2, columns=1, layers=layers))
    assert all(len(group) == 1 for group in apart.fused_layers)


def test_several_threads_may_call_taps_and_forward_at_once(digits: AlexNet) -> None:
    digits.eval()
    batches = [pictures(3, 14, seed).float() for seed in range(8)]
    logits = [digits(images) for images in batches]

    def work(i: int) -> bool:
        same = True
        for _ in range(15):
            acts = digits.taps(batches[i], ["conv1", "relu1", "fc5"])
            same &= torch.equal(acts["fc5"], logits[i]) and torch.equal(acts["conv1"].relu(), acts["relu1"])
            with torch.no_grad():
                same &= torch.equal(digits(batches[i]), logits[i])
        return same

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_taps_fail_without_a_trace(digits: AlexNet) -> None:
    digits.train()
    with pytest.raises((RuntimeError, ValueError)):
        digits.taps(pictures(1, 14))  # float64 images, float32 weights
    assert all(module.training for module in digits.modules())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_gradient_with_respect_to_the_images_is_that_of_float64(precision: torch.dtype) -> None:
    model = create_model("tiny-64", num_classes=5).eval()
    exact = create_model("tiny-64", num_classes=5).double().eval()
    images = pictures(2, 56)
    x, wide = images.float().requires_grad_(), images.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out = model(x)
    (ours,) = torch.autograd.grad(out[:, 1].float().sum(), x)
    (theirs,) = torch.autograd.grad(exact(wide)[:, 1].sum(), wide)
    cosine = float(F.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0))
    assert cosine > (1 - 1e-9 if precision == torch.float32 else 0.9)


def test_transforms_of_torch_find_the_same_gradient() -> None:
    model = create_model("tiny-64", num_classes=5).double().eval()
    x = pictures(2, 56).requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    own = torch.func.vmap(torch.func.grad(lambda image: model(image[None])[0, 1]))(x.detach())
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-14)


def test_logits_are_float32_outside_training(digits: AlexNet) -> None:
    images = pictures(64, 14).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, taps = digits.eval()(images), digits.taps(images)
        assert logits.dtype == taps["fc5"].dtype == torch.float32 and torch.equal(logits, taps["fc5"])
        assert taps["relu4"].dtype == digits.train()(images).dtype == torch.bfloat16
    last = digits.get_submodule("fc5")
    exact = F.linear(taps["relu4"].double(), last.weight.double(), last.bias.double())
    assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()


def test_taps_keep_no_graph(digits: AlexNet) -> None:
    assert not any(act.requires_grad for act in digits.taps(pictures(1, 14).float()).values())


def test_named_taps_alone_are_returned(digits: AlexNet) -> None:
    images = pictures(2, 14).float()
    some = digits.taps(images, ["pool2", "relu1"])
    everything = digits.taps(images)
    assert set(some) == {"pool2", "relu1"}
    assert all(torch.equal(some[name], everything[name]) for name in some)


def test_taps_do_not_change_the_images(digits: AlexNet) -> None:
    images = pictures(2, 14).float()
    before = images.clone()
    digits.taps(images)
    assert torch.equal(images, before)


def test_an_unknown_tap_is_named_with_the_ones_there_are(digits: AlexNet) -> None:
    with pytest.raises(ValueError, match="relu9.*relu1.*fc5"):
        digits.taps(pictures(1, 14).float(), ["conv1", "relu9"])


@pytest.mark.parametrize("shape", [(3, 14, 14), (1, 1, 14, 14), (1, 14, 14, 3), (1, 3, 14, 15), (1, 3, 28, 28)])
def test_images_of_another_shape_are_refused_with_the_one_expected(digits: AlexNet, shape: tuple[int, ...]) -> None:
    for call in (digits, digits.taps):
        with pytest.raises(ValueError) as error:
            call(torch.zeros(shape))
        assert "(N, 3, 14, 14)" in str(error.value)
        assert str(shape) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_images_of_whole_numbers_are_refused(digits: AlexNet, dtype: torch.dtype) -> None:
    for call in (digits, digits.taps):
        with pytest.raises(ValueError, match=f"{dtype}.*float"):
            call(torch.zeros(2, 3, 14, 14, dtype=dtype))


def test_dropout_halves_the_hidden_values_in_training_and_scales_the_rest_up() -> None:
    model = single(Dropout("drop"), 16).train()
    torch.manual_seed(0)
    out = model(torch.ones(4, 3, 16, 16, dtype=torch.float64))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert float(out.mean()) == pytest.approx(1, abs=0.1)
    model.eval()
    assert torch.equal(model(torch.ones(1, 3, 16, 16).double()), torch.ones(1, 3, 16, 16).double())


@pytest.mark.parametrize(
    ("activation", "expected"), [("relu", [0.0, 0.0, 0.5]), ("tanh", [math.tanh(-2), 0.0, math.tanh(0.5)])]
)
def test_the_nonlinearity_is_the_one_described(activation: str, expected: list[float]) -> None:
    network = dataclasses.replace(
        Network("n", image=1, columns=1, layers=(Activation("relu1"),)), activation=activation
    )  # type: ignore[arg-type]
    x = torch.tensor([-2.0, 0.0, 0.5], dtype=torch.float64).reshape(1, 3, 1, 1)
    torch.testing.assert_close(AlexNet(network)(x).flatten(), torch.tensor(expected, dtype=torch.float64))


def test_images_in_any_memory_layout_give_the_same_logits(digits: AlexNet) -> None:
    digits.eval()
    images = pictures(2, 14).float()
    torch.testing.assert_close(
        digits(images), digits(images.contiguous(memory_format=torch.channels_last)), rtol=1e-5, atol=1e-5
    )


def test_an_image_has_the_same_logits_alone_as_in_a_batch() -> None:
    model = create_model("digits").double().eval()
    images = pictures(5, 14)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-11, atol=1e-12)


def test_the_last_hidden_layer_feeds_the_last_layer() -> None:
    model = create_model("digits").double().eval()
    acts = model.taps(pictures(2, 14))
    last = model.get_submodule("fc5")
    torch.testing.assert_close(acts["fc5"], F.linear(acts[hidden_layer(model.network)], last.weight, last.bias))


def test_a_layer_that_does_not_fit_is_named_when_built() -> None:
    layers = (Conv("conv1", 4, 5), Pool("pool1"), Conv("conv2", 4, 5), Full("fc3"))
    with pytest.raises(ValueError, match="conv2"):
        AlexNet(Network("small", image=9, classes=2, columns=1, layers=layers))
