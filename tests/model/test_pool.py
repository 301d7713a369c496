"""Native pooling is torch's, value for value and gradient for gradient, on every shape, type and odd input."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.architecture import pooled_side
from alexnet.engine.library import library
from alexnet.model.pool import AvgPool2d, MaxPool2d, supports

native = pytest.mark.skipif(library() is None, reason="no compiled library here, or switched off")
# Images, maps, rows, columns, side of a window, stride, whether sized by ceil, and the type.
any_pooling = given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(3, 14),
    st.integers(3, 14),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)


def maps_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def loops(x: np.ndarray, size: int, stride: int, ceil: bool) -> np.ndarray:
    """The plain definition: (N, C, H, W) float64 → the largest of each window."""
    sides = [pooled_side(length, size, stride, ceil) for length in x.shape[2:]]
    out = np.empty((*x.shape[:2], *sides))
    for p in range(sides[0]):
        for q in range(sides[1]):
            window = x[:, :, p * stride : p * stride + size, q * stride : q * stride + size]
            out[:, :, p, q] = window.max(axis=(2, 3))
    return out


@native
@settings(max_examples=80, deadline=None)
@any_pooling
def test_values_and_gradients_are_torchs(
    n: int, c: int, h: int, w: int, size: int, stride: int, ceil: bool, dtype: torch.dtype
) -> None:
    size = min(size, h, w)
    x, y = maps_of((n, c, h, w), dtype), maps_of((n, c, h, w), dtype)
    mine = MaxPool2d(size, stride, ceil_mode=ceil)(x)
    theirs = F.max_pool2d(y, size, stride, ceil_mode=ceil)
    assert torch.equal(mine, theirs)
    assert np.array_equal(mine.detach().double().numpy(), loops(x.detach().double().numpy(), size, stride, ceil))
    # Whole numbers, so that the order of adding up does not matter.
    grad = torch.randint(-8, 9, theirs.shape).to(dtype)
    (a,), (b,) = torch.autograd.grad(mine, x, grad), torch.autograd.grad(theirs, y, grad)
    assert torch.equal(a, b) and a.is_contiguous(memory_format=torch.channels_last)


@native
@settings(max_examples=80, deadline=None)
@any_pooling
def test_averages_and_their_gradients_are_torchs(
    n: int, c: int, h: int, w: int, size: int, stride: int, ceil: bool, dtype: torch.dtype
) -> None:
    size = min(size, h, w)
    x = maps_of((n, c, h, w), dtype)
    y = x.detach().float().requires_grad_()
    mine = AvgPool2d(size, stride, ceil_mode=ceil)(x)
    theirs = F.avg_pool2d(y, size, stride, ceil_mode=ceil, count_include_pad=False)
    once = {"rtol": 4e-3 if dtype == torch.bfloat16 else 1e-6, "atol": 1e-6}  # rounded once, from float32
    torch.testing.assert_close(mine.float(), theirs, **once)
    grad = torch.randn(theirs.shape).to(dtype)
    (a,), (b,) = torch.autograd.grad(mine, x, grad), torch.autograd.grad(theirs, y, grad.float())
    torch.testing.assert_close(a.float(), b, **once)
    assert a.dtype == dtype and a.is_contiguous(memory_format=torch.channels_last)


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_nan_and_infinities_go_as_in_torch(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf])
    drawn = values[torch.randint(6, (2, 33, 9, 9), generator=torch.Generator().manual_seed(1))].to(dtype)
    x = drawn.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = drawn.clone(memory_format=torch.contiguous_format).requires_grad_()
    mine, theirs = MaxPool2d(3, 2, ceil_mode=True)(x), F.max_pool2d(y, 3, 2, ceil_mode=True)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    (a,), (b,) = (torch.autograd.grad(out, into, torch.ones_like(out)) for out, into in ((mine, x), (theirs, y)))
    assert torch.equal(a, b)


@native
def test_a_gradient_of_the_gradient_is_refused() -> None:
    x = maps_of((1, 16, 7, 7))
    (first,) = torch.autograd.grad((MaxPool2d(3, 2)(x) ** 3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_other_tensors_are_left_to_torch() -> None:
    x = maps_of((1, 16, 7, 7))
    assert not supports(x.double()) and not supports(x.contiguous()) and not supports(x[:0])
    pool = MaxPool2d(3, 2, ceil_mode=True)
    assert torch.equal(pool(x), pool(x.contiguous()))
    assert torch.autograd.gradcheck(pool, maps_of((1, 3, 5, 5), torch.float64))


@native
def test_channels_last_maps_are_the_engines() -> None:
    assert supports(maps_of((1, 16, 7, 7))) and supports(maps_of((1, 16, 7, 7), torch.bfloat16))


@native
def test_one_thread_and_many_give_the_same() -> None:
    x = maps_of((8, 96, 27, 27))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            out = MaxPool2d(3, 2)(x)
            found.append((out, torch.autograd.grad(out.square().sum(), x)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@native
def test_what_follows_may_work_in_place() -> None:
    x, y = maps_of((2, 16, 8, 8)), maps_of((2, 16, 8, 8))
    mine, theirs = F.relu(MaxPool2d(2, 2)(x), inplace=True), F.relu(F.max_pool2d(y, 2, 2))
    (a,), (b,) = (torch.autograd.grad(out.sum(), into) for out, into in ((mine, x), (theirs, y)))
    assert torch.equal(mine, theirs) and torch.equal(a, b)
