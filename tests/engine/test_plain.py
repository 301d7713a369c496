"""The operations in NumPy against torch's, and every compiled one against them, for every target and odd sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.engine import forward, library, plain
from alexnet.engine.build import LIBRARY
from alexnet.engine.library import Dtype
from alexnet.engine.pooling import Pooling

Floats = NDArray[np.float32]
WINDOWS = [(3, 2, True), (3, 2, False), (2, 3, True), (5, 4, True), (1, 1, True)]  # size, stride, ceil
FOUND = library.library()
TARGETS = FOUND.targets if FOUND else (None,)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the targets that this processor can run, in use."""
    if request.param is None:
        pytest.skip("no compiled library here, or switched off")
    monkeypatch.setattr(library, "_loaded", [library.Library(LIBRARY, request.param)])
    return str(request.param)


@pytest.fixture(params=[Dtype.FLOAT32, Dtype.BFLOAT16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Dtype:
    return Dtype(request.param)


def numbers(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng((*shape, seed)).normal(0, 2, shape).astype(np.float32)


def stored(x: Floats, dtype: Dtype) -> NDArray[Any]:
    """As the engine keeps it."""
    return plain.to_bfloat16(x) if dtype == Dtype.BFLOAT16 else np.ascontiguousarray(x)


def read(x: NDArray[Any]) -> Floats:
    return plain.from_bfloat16(x) if x.dtype == np.uint16 else x


def held(x: Floats, dtype: Dtype) -> Floats:
    """The numbers that the engine keeps of these."""
    return read(stored(x, dtype))


def near(ours: NDArray[Any], theirs: Floats, dtype: Dtype) -> bool:
    """Equal but for the rounding of the last operation."""
    share = 2**-8 if dtype == Dtype.BFLOAT16 else 2e-6
    return bool((np.abs(read(ours) - theirs) <= share * np.abs(theirs) + share * 1e-3).all())


def first(x: Floats) -> torch.Tensor:
    """(N, H, W, C) → a tensor (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("shape", [(2, 9, 7, 3), (1, 8, 11, 18)])
@pytest.mark.parametrize(
    ("size", "stride", "ceil"), [(3, 2, True), (3, 2, False), (2, 3, True), (5, 4, True), (1, 1, True)]
)
def test_pooling_is_torchs(shape: tuple[int, ...], size: int, stride: int, ceil: bool) -> None:
    x = numbers(*shape)
    best = F.max_pool2d(first(x), size, stride, ceil_mode=ceil)
    average = F.avg_pool2d(first(x), size, stride, ceil_mode=ceil, count_include_pad=False)
    for kind, theirs in (("max", best), ("avg", average)):
        ours = plain.pool(x, size, stride, ceil, kind).transpose(0, 3, 1, 2)
        assert np.allclose(ours, theirs.numpy(), atol=1e-6), kind


def test_convolution_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = numbers(3, 11, 9, 4), numbers(6, 2, 3, 3), numbers(6)
    theirs = F.conv2d(F.pad(first(x), (1, 2, 1, 3)), torch.from_numpy(weight), torch.from_numpy(bias), 3, groups=2)
    whole = plain.convolve(x, weight, bias, stride=3, pad=1, groups=2)
    assert np.allclose(whole.transpose(0, 3, 1, 2), theirs.numpy(), atol=1e-4)
    monkeypatch.setattr(plain, "PATCHES", 500)  # two rows
    assert np.allclose(plain.convolve(x, weight, bias, stride=3, pad=1, groups=2), whole, atol=1e-5)


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    x = np.append(numbers(1000), np.float32([0, -0.0, np.inf, -np.inf, 3.4e38, 1e-40, 1.00390625, 1.01171875]))
    theirs = torch.from_numpy(x).bfloat16()
    assert np.array_equal(plain.rounded(x), theirs.float().numpy())
    assert np.isnan(plain.rounded(np.float32([np.nan]))).all()


def test_softmax_sums_to_one_however_large_the_logits() -> None:
    out = plain.softmax(np.float32([[1e4, 1e4 - 1, -1e4], [0, 0, 0]]))
    assert np.allclose(out, [[0.7310586, 0.2689414, 0], [1 / 3] * 3])


@pytest.mark.parametrize("mirror", [False, True], ids=["as it is", "mirrored"])
@pytest.mark.parametrize(
    "rest", [(), ("mean",), ("mean", "scale"), ("scale",)], ids=lambda rest: "+".join(rest) or "raw"
)
def test_compiled_crops_are_equal(target: str, dtype: Dtype, mirror: bool, rest: tuple[str, ...]) -> None:
    squares = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), np.uint8)
    mean = np.abs(numbers(40, 40, 3)) * 60 if "mean" in rest else None
    scale = np.abs(numbers(3)) if "scale" in rest else None
    for view, side in (((2, 5, mirror), 35), ((0, 3, mirror), 16), ((39, 0, mirror), 1)):
        theirs = plain.crop(squares, view, side, mean, scale)
        out = np.zeros(theirs.shape, stored(theirs, dtype).dtype)
        addresses = [None if values is None else values.ctypes.data for values in (mean, scale)]
        forward.crop(squares.ctypes.data, (3, 40), view, side, *addresses, out.ctypes.data, dtype, 2)
        assert np.array_equal(out, stored(theirs, dtype))


@pytest.mark.parametrize("shape", [(2, 9, 7, 3), (1, 8, 11, 18), (3, 5, 5, 35)])
@pytest.mark.parametrize(("size", "stride", "ceil"), [(3, 2, True), (3, 2, False), (2, 3, True), (5, 4, True)])
def test_compiled_pooling(
    target: str, dtype: Dtype, shape: tuple[int, ...], size: int, stride: int, ceil: bool
) -> None:
    x = held(numbers(*shape), dtype)
    made, given = Pooling(shape, size, stride, ceil, dtype), stored(x, dtype)
    best, average = (np.zeros(made.out, given.dtype) for _ in range(2))
    made.forward(given.ctypes.data, best.ctypes.data, None, 2)
    made.average(given.ctypes.data, average.ctypes.data, 2)
    assert np.array_equal(read(best), plain.pool(x, size, stride, ceil, "max"))
    assert near(average, plain.pool(x, size, stride, ceil, "avg"), dtype)


@pytest.mark.parametrize(
    ("shape", "kernels", "size", "pad"), [((2, 5, 4, 3), 7, 3, 1), ((21, 4, 4, 20), 32, 3, 0), ((1, 3, 3, 5), 35, 2, 1)]
)
@pytest.mark.parametrize("relu", [False, True], ids=["as it is", "rectified"])
def test_compiled_local(
    target: str, dtype: Dtype, shape: tuple[int, ...], kernels: int, size: int, pad: int, relu: bool
) -> None:
    p, q = (side + 2 * pad - size + 1 for side in shape[1:3])
    x = held(numbers(*shape), dtype)
    weight, bias = held(numbers(p * q, shape[3] * size**2, kernels), dtype), numbers(p * q, kernels)
    theirs = plain.local(x, weight, bias, size, pad)
    theirs = plain.relu(theirs) if relu else theirs
    turned = weight.reshape(p * q, shape[3], size**2, kernels).transpose(0, 2, 1, 3)
    given, factors = stored(x, dtype), stored(turned, dtype)
    out = np.zeros(theirs.shape, given.dtype)
    made = forward.Local(shape, kernels, size, pad, (p, q), dtype)
    made.forward(given.ctypes.data, factors.ctypes.data, bias.ctypes.data, out.ctypes.data, relu, 2)
    assert np.abs(read(out) - theirs).max() < (2**-8 if dtype == Dtype.BFLOAT16 else 1e-6) * np.abs(theirs).max()


@pytest.mark.parametrize("element", [np.uint8, np.uint16, np.uint32])
def test_compiled_flatten(target: str, element: type) -> None:
    x = np.random.default_rng(3).integers(0, 256, (3, 5, 4, 37)).astype(element)
    out = np.zeros((3, 37 * 20), element)
    forward.flatten(x.ctypes.data, out.ctypes.data, x.itemsize, x.shape, 2)
    assert np.array_equal(out, plain.flatten(x))


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("count", [1, 37, 5000])
def test_compiled_nonlinearities(target: str, dtype: Dtype, name: str, count: int) -> None:
    x = held(np.append(numbers(count)[1:], np.float32(-40)), dtype)
    ours = stored(x, dtype).copy()
    getattr(forward, name)(ours.ctypes.data, dtype, count, 2)
    work: Callable[[Floats], Floats] = getattr(plain, name)
    assert near(ours, work(x), dtype)


def test_compiled_nonlinearities_keep_what_is_not_a_number(target: str) -> None:
    for name in ("relu", "tanh"):
        x = np.full(20, np.nan, np.float32)
        getattr(forward, name)(x.ctypes.data, Dtype.FLOAT32, len(x), 1)
        assert np.isnan(x).all()


@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_compiled_softmax(target: str, classes: int) -> None:
    x = numbers(3, classes) * 10
    ours = x.copy()
    forward.softmax(ours.ctypes.data, 3, classes, 2)
    assert np.allclose(ours, plain.softmax(x), rtol=1e-5, atol=1e-9)
    assert np.allclose(ours.sum(1), 1)
