"""Every kernel on every target: in the library, by clang, on an emulated ARM processor, in a WebAssembly engine.

The references are torch in float64, and Python's own whole numbers.
"""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.architecture import pooled_side
from alexnet.engine import build, library
from alexnet.engine.library import Dtype
from alexnet.engine.philox import philox
from alexnet.model.lrn_reference import reference_lrn, reference_map_norm
from tests.engine.targets import Target, compiled, missing

PLACES = [("library", name) for name in build.TARGETS.get(build.machine(), build.OTHER_MACHINE)]
PLACES += [(machine, name) for machine in ("x86_64", "arm64", "wasm32") for name in build.TARGETS[machine]]
DTYPES = (Dtype.FLOAT32, Dtype.BFLOAT16)
TORCH = {Dtype.FLOAT32: torch.float32, Dtype.BFLOAT16: torch.bfloat16, Dtype.FLOAT16: torch.float16}
# What a rounding to the type may change; sums in another order add a little to float32.
ROUNDING = {Dtype.FLOAT32: 2e-6, Dtype.BFLOAT16: 2**-8, Dtype.FLOAT16: 2**-10}


@pytest.fixture(scope="module", params=PLACES, ids=[f"{machine}-{name}" for machine, name in PLACES])
def target(request: pytest.FixtureRequest) -> Target:
    machine, name = request.param
    if machine == "library":
        if library.library() is None:
            pytest.skip("no compiled library here, or switched off")
        found = library.Library(build.LIBRARY).targets
        command: tuple[str, ...] = ()
    else:
        if why := missing(machine):
            pytest.skip(why)
        command = compiled(machine, request.config.cache.mkdir("engine"))
        found = Target(name, command).targets()
    if name not in found:
        pytest.skip(f"this processor cannot run {name}")
    return Target(name, command)


def given(seed: int, *shape: int, dtype: Dtype = Dtype.FLOAT32) -> tuple[NDArray[Any], torch.Tensor]:
    """Normal numbers of a type: as the kernels take them, and in float64."""
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(TORCH[dtype])
    return raw(values), values.double()


def raw(values: torch.Tensor) -> NDArray[Any]:
    """Numbers as the kernels take them: 16 bits as whole numbers."""
    return (values if values.dtype == torch.float32 else values.view(torch.uint16)).contiguous().numpy()


def empty(shape: tuple[int, ...], dtype: Dtype) -> NDArray[Any]:
    return np.full(shape, 77, np.float32 if dtype == Dtype.FLOAT32 else np.uint16)


def real(values: NDArray[Any], dtype: Dtype) -> torch.Tensor:
    """What the kernels left, in float64."""
    return torch.from_numpy(values).view(TORCH[dtype]).double()


def check(
    ours: NDArray[Any], dtype: Dtype, wanted: torch.Tensor, scale: torch.Tensor | float, slack: float = 1
) -> None:
    """Equal but for rounding of numbers as large as `scale`."""
    difference = (real(ours, dtype) - wanted).abs()
    worst = (difference / (torch.as_tensor(scale) + wanted.abs() + 1e-30)).max().item()
    assert worst <= slack * ROUNDING[dtype], f"off by {worst / ROUNDING[dtype]:.3g} roundings"


# ---- convolution: images, rows, columns, maps, groups, kernels, side, stride, zeros (top, bottom, left, right) -------

CONVOLUTIONS = {
    "odd": (2, 9, 8, 5, 1, 7, 3, 1, (1, 1, 1, 1)),
    "first layer": (2, 23, 22, 3, 1, 20, 11, 4, (2, 1, 2, 2)),
    "two columns": (3, 7, 6, 2 * 9, 2, 2 * 19, 3, 1, (1, 1, 1, 1)),
    "many kernels": (1, 5, 6, 35, 1, 101, 1, 1, (0, 0, 0, 0)),
    "ceil": (3, 8, 7, 17, 1, 33, 3, 2, (0, 1, 0, 2)),
    "one place": (5, 3, 3, 16, 4, 8, 3, 1, (0, 0, 0, 0)),
}


class Convolution:
    """One of the cases with random numbers in a type, its reference with gradients, and the sizes that kernels take."""

    def __init__(self, case: str, dtype: Dtype, relu: bool) -> None:
        n, h, w, c, groups, o, k, stride, (top, bottom, left, right) = CONVOLUTIONS[case]
        p, q = (h + top + bottom - k) // stride + 1, (w + left + right - k) // stride + 1
        self.sizes = np.array((n, h, w, c, groups, o, k, stride, top, left, p, q), np.int64)
        self.out_shape, self.in_shape = (n, p, q, o), (n, h, w, c)
        self.x, x = given(1, n, h, w, c, dtype=dtype)
        self.weights, weights = given(2, o, k, k, c // groups, dtype=dtype)
        self.bias, bias = given(3, o)
        self.grad, grad = given(4, n, p, q, o, dtype=dtype)
        self.gate, gate = given(5, n, p, q, o, dtype=dtype)
        padded = torch.nn.functional.pad(x.movedim(3, 1), (left, right, top, bottom))
        convolve = partial(torch.nn.functional.conv2d, stride=stride, groups=groups)

        def gradients(of: Any, *by: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(convolve(*of), of, by)

        kernels = weights.movedim(3, 1)
        y = convolve(padded, kernels, bias).movedim(1, 3)
        self.y = y.clamp(min=0) if relu else y
        self.y_scale = convolve(padded.abs(), kernels.abs(), bias.abs()).movedim(1, 3)
        gated = (grad * (gate > 0)).movedim(3, 1)
        inside = slice(None), slice(None), slice(top, top + h), slice(left, left + w)
        leaves = [one.clone().requires_grad_() for one in (padded, kernels, bias)]
        self.by_x, self.by_weights, self.by_bias = gradients(leaves, gated)
        leaves = [one.abs().requires_grad_() for one in (padded, kernels, bias)]
        self.x_scale, self.weights_scale, self.bias_scale = gradients(leaves, gated.abs())
        self.by_x, self.x_scale = (one[inside].movedim(1, 3) for one in (self.by_x, self.x_scale))
        self.by_weights, self.weights_scale = (one.movedim(1, 3) for one in (self.by_weights, self.weights_scale))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(target: Target, case: str, dtype: Dtype) -> None:
    relu = case != "odd"
    c = Convolution(case, dtype, relu)
    out = empty(c.out_shape, dtype)
    target("conv_forward", c.sizes, dtype, c.x, dtype, c.weights, dtype, c.bias, out, relu, 1)
    check(out, dtype, c.y, c.y_scale)
    weights, bias = empty(c.weights.shape, Dtype.FLOAT32), empty(c.bias.shape, Dtype.FLOAT32)
    target("conv_grad_weights", c.sizes, dtype, c.x, dtype, c.grad, c.gate, weights, bias, 1)
    check(weights, Dtype.FLOAT32, c.by_weights, c.weights_scale)
    check(bias, Dtype.FLOAT32, c.by_bias, c.bias_scale)
    if c.sizes[7] == 1:
        by_x = empty(c.in_shape, dtype)
        target("conv_grad_input", c.sizes, dtype, c.grad, c.gate, c.weights, dtype, by_x, 1)
        check(by_x, dtype, c.by_x, c.x_scale)


def test_convolution_of_mixed_types(target: Target) -> None:
    """Products in bfloat16 of float32 maps and weights, as where training keeps weights in float32."""
    c = Convolution("two columns", Dtype.FLOAT32, False)
    out = empty(c.out_shape, Dtype.BFLOAT16)
    none = Dtype.FLOAT32
    target("conv_forward", c.sizes, Dtype.BFLOAT16, c.x, none, c.weights, none, None, out, 0, 1)
    check(out, Dtype.BFLOAT16, c.y - torch.from_numpy(c.bias).double(), c.y_scale)


# ---- normalization --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TORCH, ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "planes"])
@pytest.mark.parametrize(
    "size, columns, beta", [(5, 2, 0.75), (3, 1, 0.5), (4, 1, 0.75)], ids=["paper", "three", "even"]
)
def test_lrn(target: Target, size: int, columns: int, beta: float, channels_last: bool, dtype: Dtype) -> None:
    x, real_x = given(1, 2, 22, 3, 7, dtype=dtype)
    grad, real_grad = given(2, 2, 22, 3, 7, dtype=dtype)
    leaf = real_x.requires_grad_()
    y = reference_lrn(leaf, size, 0.3, beta, 2.0, columns)
    (by_x,) = torch.autograd.grad(y, leaf, real_grad)
    if channels_last:
        x, grad = (np.ascontiguousarray(one.transpose(0, 2, 3, 1)) for one in (x, grad))
        y, by_x = y.movedim(1, 3), by_x.movedim(1, 3)
    for given_grad, wanted in ((None, y.detach()), (grad, by_x)):
        out = empty(x.shape, dtype)
        shape = (2, 22, 21, int(channels_last), columns)
        target("lrn", x, given_grad, out, dtype, *shape, size, 0.3, beta, 2.0, 1)
        check(out, dtype, wanted, 1.0)


@pytest.mark.parametrize("dtype", TORCH, ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "planes"])
def test_map_norm(target: Target, channels_last: bool, dtype: Dtype) -> None:
    x, real_x = given(1, 2, 5, 6, 7, dtype=dtype)
    grad, real_grad = given(2, 2, 5, 6, 7, dtype=dtype)
    leaf = real_x.requires_grad_()
    y = reference_map_norm(leaf, 5, 0.1, 0.75, 1.0)
    (by_x,) = torch.autograd.grad(y, leaf, real_grad)
    if channels_last:
        x, grad = (np.ascontiguousarray(one.transpose(0, 2, 3, 1)) for one in (x, grad))
        y, by_x = y.movedim(1, 3), by_x.movedim(1, 3)
    for given_grad, wanted in ((None, y.detach()), (grad, by_x)):
        out = empty(x.shape, dtype)
        target("map_norm", x, given_grad, out, dtype, 2, 5, 6, 7, int(channels_last), 5, 0.1, 0.75, 1.0, 1)
        check(out, dtype, wanted, 1.0)


def test_a_window_wider_than_memory_is_an_error(target: Target) -> None:
    x = np.zeros(16, np.float32)
    with pytest.raises(MemoryError):
        target("lrn", x, None, x.copy(), 0, 1, 4, 4, 0, 1, 1 << 50, 1e-4, 0.75, 2.0, 1)


# ---- pooling, dropout, statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("size, stride, ceil", [(3, 2, True), (2, 2, False), (3, 1, False)])
def test_max_pooling(target: Target, size: int, stride: int, ceil: bool, dtype: Dtype) -> None:
    n, h, w, c = 2, 8, 7, 21
    p, q = (pooled_side(side, size, stride, ceil) for side in (h, w))
    x, real_x = given(1, n, h, w, c, dtype=dtype)
    grad, real_grad = given(2, n, p, q, c, dtype=dtype)
    leaf = real_x.movedim(3, 1).requires_grad_()
    y = torch.nn.functional.max_pool2d(leaf, size, stride, ceil_mode=ceil)
    (by_x,) = torch.autograd.grad(y, leaf, real_grad.movedim(3, 1))
    sizes = np.array((n, h, w, c, size, stride, p, q), np.int64)
    out, places, back = empty((n, p, q, c), dtype), np.zeros((n, p, q, c), np.uint16), empty(x.shape, dtype)
    target("pool_forward", sizes, dtype, x, out, places, 1)
    assert torch.equal(real(out, dtype), y.detach().movedim(1, 3))
    target("pool_backward", sizes, dtype, grad, places, back, 1)
    check(back, dtype, by_x.movedim(1, 3), 4.0)


def test_not_a_number_wins_in_pooling(target: Target) -> None:
    x = np.zeros((1, 2, 2, 17), np.float32)
    x[0, 1, 0, [2, 16]] = np.nan
    out, places = np.zeros((1, 1, 1, 17), np.float32), np.zeros((1, 1, 1, 17), np.uint16)
    target("pool_forward", np.array((1, 2, 2, 17, 2, 2, 1, 1), np.int64), 0, x, out, places, 1)
    assert np.flatnonzero(np.isnan(out)).tolist() == np.flatnonzero(places == 2).tolist() == [2, 16]


@pytest.mark.parametrize("first, units", [(0, 300), (5, 6)])
def test_dropout_masks(target: Target, first: int, units: int) -> None:
    seed, epoch, layer, threshold = (1 << 63) + 12345, 3, 7, 0x90000000
    positions = np.array([0, 5, 1 << 31], np.int64)
    keep = np.full((3, units), 9, np.uint8)
    target("dropout", keep, positions, 3, units, first, seed - (1 << 64), epoch, layer, threshold, 1)
    for image, position in enumerate(positions.tolist()):
        for unit in range(first, first + units):
            words = philox((unit // 4, position, epoch, seed >> 32), (seed & 0xFFFFFFFF, layer))
            assert keep[image, unit - first] == (words[unit % 4] >= threshold)


def test_colour_products(target: Target) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40003, 3), np.uint8)
    sums = np.arange(6)
    target("colour_products", images, len(images), 128, sums)
    v = images.astype(np.int64) - 128
    wanted = [(v[:, a] * v[:, b]).sum() for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    assert sums.tolist() == (np.array(wanted) + np.arange(6)).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
def test_average_pooling(target: Target, dtype: Dtype) -> None:
    x, real_x = given(1, 2, 8, 7, 21, dtype=dtype)
    y = torch.nn.functional.avg_pool2d(real_x.movedim(3, 1), 3, 2, ceil_mode=True, count_include_pad=False)
    out = empty((2, 4, 3, 21), dtype)
    target("pool_average", np.array((2, 8, 7, 21, 3, 2, 4, 3), np.int64), dtype, x, out, 1)
    check(out, dtype, y.movedim(1, 3), 2.0)


# ---- prediction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("groups, pad", [(1, 1), (3, 0)])
def test_convolution_by_packed_weights(target: Target, groups: int, pad: int, dtype: Dtype) -> None:
    n, side, c, o = 2, 7, 9, 21
    x, real_x = given(1, n, side, side, c, dtype=dtype)
    weight, _ = given(2, o, c // groups, 3, 3)
    bias, real_bias = given(3, o)
    out_side = side + 2 * pad - 2
    sizes = np.array((n, side, side, c, groups, o, 3, 1, pad, pad, out_side, out_side), np.int64)
    room, out = np.zeros(1, np.int64), empty((n, out_side, out_side, o), dtype)
    target("conv_pack", sizes, dtype, weight, Dtype.FLOAT32, None, room, 1)
    packed = np.zeros(int(room[0]), np.uint8)
    target("conv_pack", sizes, dtype, weight, Dtype.FLOAT32, packed, room, 1)
    target("conv_packed", sizes, dtype, x, dtype, packed, bias, 0.0, 0.0, None, out, dtype, 1, 1)
    w = torch.from_numpy(weight).to(TORCH[dtype]).double()
    y = torch.nn.functional.conv2d(real_x.movedim(3, 1), w, real_bias, padding=pad, groups=groups).relu()
    check(out, dtype, y.movedim(1, 3), 20.0)


@pytest.mark.parametrize("groups", [1, 3])
def test_int8_convolution_is_exact(target: Target, groups: int) -> None:
    n, side, c, o, zero = 2, 6, 9, 21, 5
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 128, (n, side, side, c))
    weight = rng.integers(-127, 128, (o, c // groups, 3, 3), np.int8)
    sizes = np.array((n, side, side, c, groups, o, 3, 1, 1, 1, side, side), np.int64)
    room, out = np.zeros(1, np.int64), empty((n, side, side, o), Dtype.FLOAT32)
    target("conv_pack", sizes, Dtype.INT8, weight, Dtype.INT8, None, room, 1)
    packed = np.zeros(int(room[0]), np.uint8)
    target("conv_pack", sizes, Dtype.INT8, weight, Dtype.INT8, packed, room, 1)
    x, one = ((levels - zero) / 2).astype(np.float32), np.ones(o, np.float32)
    target("conv_packed", sizes, Dtype.INT8, x, 0, packed, 0 * one, 2.0, float(zero), one, out, 0, 0, 1)
    padded = torch.nn.functional.pad(torch.from_numpy(levels).double().movedim(3, 1), (1, 1, 1, 1), value=zero)
    y = torch.nn.functional.conv2d(padded, torch.from_numpy(weight).double(), groups=groups)
    assert torch.equal(torch.from_numpy(out).double(), y.movedim(1, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("n", [3, 5])  # few images read a layer's weights once, as they lie
def test_fully_connected(target: Target, n: int, dtype: Dtype) -> None:
    k, u = 1037, 19
    sizes = np.array((n, k, u), np.int64)
    x, real_x = given(1, n, k, dtype=dtype)
    grad, real_grad = given(2, n, u, dtype=dtype)
    weight, real_weight = given(3, u, k, dtype=dtype)
    bias, real_bias = given(4, u)
    out, back = empty((n, u), dtype), empty((n, k), dtype)
    by_weight, by_bias = empty((u, k), Dtype.FLOAT32), empty((u,), Dtype.FLOAT32)
    target("full_forward", sizes, dtype, x, dtype, weight, dtype, bias, 0.0, 0.0, None, out, dtype, 0, 1)
    check(out, dtype, real_x @ real_weight.T + real_bias, 120.0)
    target("full_grad_input", sizes, dtype, grad, weight, dtype, back, 1)
    check(back, dtype, real_grad @ real_weight, 20.0)
    target("full_grad_weights", sizes, dtype, x, dtype, grad, by_weight, by_bias, 1)
    check(by_weight, Dtype.FLOAT32, real_grad.T @ real_x, 10.0)
    check(by_bias, Dtype.FLOAT32, real_grad.sum(0), 10.0)


def test_int8_fully_connected_is_exact(target: Target) -> None:
    rng = np.random.default_rng(0)
    levels, weight = rng.integers(0, 128, (3, 1037)), rng.integers(-127, 128, (19, 1037), np.int8)
    x, one, out = (levels / 2).astype(np.float32), np.ones(19, np.float32), empty((3, 19), Dtype.FLOAT32)
    sizes = np.array((3, 1037, 19), np.int64)
    target("full_forward", sizes, Dtype.INT8, x, 0, weight, Dtype.INT8, 0 * one, 2.0, 0.0, one, out, 0, 0, 1)
    assert np.array_equal(out, levels @ weight.T.astype(np.int64))


@pytest.mark.parametrize("mirror", [False, True])
def test_crops(target: Target, mirror: bool) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (2, 25, 25, 3), np.uint8)
    mean, scale = given(1, 25, 25, 3)[0], np.array((1, 0.5, 2), np.float32)
    out = empty((2, 19, 21, 3), Dtype.FLOAT32)
    target("crop", np.array((2, 25, 3, 2, mirror, 19, 21), np.int64), squares, mean, scale, out, 0, 1)
    view = np.s_[3:22, 2:23]
    wanted = (squares[:, view[0], view[1]] - mean[view]) * scale
    assert np.array_equal(out, wanted[:, :, ::-1] if mirror else wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
def test_local_layers(target: Target, dtype: Dtype) -> None:
    x, real_x = given(1, 2, 5, 5, 7, dtype=dtype)
    weight, real_weight = given(2, 25, 9, 7, 10, dtype=dtype)
    bias, real_bias = given(3, 25, 10)
    out = empty((2, 5, 5, 10), dtype)
    target("local", np.array((2, 5, 5, 7, 3, 1, 5, 5, 10), np.int64), dtype, x, weight, bias, out, 0, 1)
    patches = torch.nn.functional.unfold(real_x.movedim(3, 1), 3, padding=1).reshape(2, 7, 9, 25)
    wanted = torch.einsum("nckl,lkco->nlo", patches, real_weight) + real_bias
    check(out, dtype, wanted.reshape(2, 5, 5, 10), 30.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
def test_nonlinearities(target: Target, dtype: Dtype) -> None:
    x, real_x = given(1, 1003, dtype=dtype)
    y = x.copy()
    target("relu", y, dtype, 1003, 1)
    assert torch.equal(real(y, dtype), real_x.relu())
    target("tanh", x, dtype, 1003, 1)
    check(x, dtype, real_x.tanh(), 1.0)


def test_softmax_and_flattening(target: Target) -> None:
    x, real_x = given(1, 5, 37)
    target("softmax", x, 5, 37, 1)
    check(x, Dtype.FLOAT32, real_x.softmax(1), 1.0)
    maps, out = given(2, 3, 20, 17)[0], empty((3, 17, 20), Dtype.FLOAT32)
    target("flatten", maps, out, 4, 3, 20, 17, 1)
    assert np.array_equal(out, maps.transpose(0, 2, 1))


# ---- threads, what is tested, and which targets a processor can run --------------------------------------------------


def test_threads_change_nothing(target: Target) -> None:
    x, _ = given(1, 4, 96, 28, 28)
    one, three = empty(x.shape, Dtype.FLOAT32), empty(x.shape, Dtype.FLOAT32)
    for out, threads in ((one, 1), (three, 3)):
        target("lrn", x, None, out, 0, 4, 96, 28 * 28, 0, 2, 5, 1e-4, 0.75, 2.0, threads)
    assert np.array_equal(one, three)


def test_every_kernel_is_tested_here() -> None:
    elsewhere = {"resize", "ycbcr_crop"}  # in whole numbers, beside their versions in NumPy
    assert set(library.FUNCTIONS) - elsewhere == set(re.findall(r'target\("(\w+)"', Path(__file__).read_text()))


@pytest.mark.parametrize("processor, wanted", [("Nehalem", "plain"), ("Haswell", "avx2 plain")])
def test_an_older_processor_gets_what_it_can_run(processor: str, wanted: str, request: pytest.FixtureRequest) -> None:
    """Played by an emulator, which stops at an instruction that such a processor lacks."""
    if why := missing("x86_64") or ("" if shutil.which("qemu-x86_64") else "not installed: qemu-x86_64"):
        pytest.skip(why)
    cache: Path = request.config.cache.mkdir("engine")
    command = ("qemu-x86_64", "-cpu", processor, *compiled("x86_64", cache))
    assert Target("plain", command).targets() == tuple(wanted.split())
    fastest = Target(wanted.split()[0], command)
    test_convolution(fastest, "odd", Dtype.BFLOAT16)
    test_lrn(fastest, 5, 2, 0.75, True, Dtype.FLOAT16)
    test_max_pooling(fastest, 3, 2, True, Dtype.BFLOAT16)
