"""Convolution on the CPU: both arithmetics and both means against the library's in float64."""

import pytest
import torch
import torch.nn.functional as F

from alexnet.engine import convolution
from alexnet.model import conv

# maps, kernels, kernel side, stride, padding, zeros past right and bottom, groups, side, images
SHAPES = {
    "the paper's conv1": (3, 96, 11, 4, 0, 3, 1, 64, 3),
    "the paper's conv2": (96, 256, 5, 1, 2, 0, 2, 13, 3),
    "3x3 over both columns": (64, 80, 3, 1, 1, 0, 1, 7, 4),
    "odd maps in groups": (9, 15, 3, 1, 1, 0, 3, 6, 5),
    "stride that leaves a row unread": (6, 10, 3, 2, 1, 0, 2, 8, 2),
    "padding wider than the kernel": (4, 7, 2, 1, 3, 1, 1, 5, 1),
    "one position": (20, 70, 4, 1, 0, 0, 1, 4, 2),
}
MEANS = [torch.float32, torch.bfloat16]


@pytest.fixture(params=["native", "tensor operations"])
def means(request, monkeypatch):
    if request.param == "tensor operations":
        monkeypatch.setattr(convolution, "served", frozenset)
    return request.param


def case(shape, dtype, layout=torch.channels_last):
    maps, kernels, size, stride, pad, ceil, groups, side, images = SHAPES[shape]
    torch.manual_seed(0)
    x = torch.randn(images, maps, side, side).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(kernels, maps // groups, size, size).to(dtype).float().requires_grad_()
    bias = torch.randn(kernels).to(dtype).float().requires_grad_()
    return x, weight, bias, conv.Window(size, stride, (pad, pad + ceil, pad, pad + ceil)), groups


def computed(x, weight, bias, window, groups, relu):
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        return conv.conv2d(x, weight, bias, window, groups, relu)


def expected(x, weight, bias, window, groups):
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    top, bottom, left, right = window.pad
    out = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, window.stride, groups=groups)
    return out, (x, weight, bias)


def error(found, true):
    return ((found.double() - true).norm() / true.norm()).item()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", MEANS)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_the_library_s(shape, dtype, relu, means):
    x, weight, bias, window, groups = case(shape, dtype)
    out = computed(x, weight, bias, window, groups, relu)
    true, leaves = expected(x, weight, bias, window, groups)
    grad = torch.randn(out.shape).to(dtype)
    close = 5e-3 if dtype == torch.bfloat16 else 1e-5
    assert out.dtype == dtype
    assert error(out, true.relu() if relu else true) < close
    out.backward(grad)
    true.backward(grad.double() * (out > 0) if relu else grad.double())
    for leaf, reference in zip((x, weight, bias), leaves, strict=True):
        assert leaf.grad.dtype == leaf.dtype
        assert error(leaf.grad, reference.grad) < close


@pytest.mark.parametrize("dtype", MEANS)
def test_contiguous_maps_give_the_same(dtype):
    layouts = (torch.channels_last, torch.contiguous_format)
    first, second = (case("the paper's conv2", dtype, layout) for layout in layouts)
    outs = [computed(*each, True) for each in (first, second)]
    for out in outs:
        out.square().sum().backward()
    assert torch.equal(*outs)
    assert torch.equal(first[0].grad, second[0].grad) and torch.equal(first[1].grad, second[1].grad)


@pytest.mark.parametrize("dtype", MEANS)
def test_any_number_of_threads_gives_the_same_bits(dtype):
    if dtype not in convolution.served():
        pytest.skip("the native kernels do not serve this arithmetic here")
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            x, weight, bias, window, groups = case("the paper's conv2", dtype)
            out = computed(x, weight, bias, window, groups, True)
            out.float().square().sum().backward()
            found.append((out, x.grad, weight.grad, bias.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))


def test_gradients_of_gradients_are_the_library_s():
    x, weight, bias, window, groups = case("odd maps in groups", torch.float32)
    out = conv.conv2d(x, weight, bias, window, groups)
    true, leaves = expected(x, weight, bias, window, groups)
    seconds = []
    for value, (a, w, _) in ((out, (x, weight, bias)), (true, leaves)):
        (first,) = torch.autograd.grad(value.tanh().sum(), a, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), w)[0])
    assert error(*seconds) < 1e-5


def test_only_what_is_asked_for_is_computed():
    x, weight, bias, window, groups = case("odd maps in groups", torch.float32)
    out = conv.conv2d(x.detach(), weight.detach(), bias, window, groups)
    (grad,) = torch.autograd.grad(out.sum(), bias)
    assert torch.allclose(grad, torch.full_like(grad, out[:, 0].numel()))


def test_an_empty_batch_has_an_empty_output():
    x, weight, bias, window, groups = case("odd maps in groups", torch.float32)
    assert conv.conv2d(x[:0], weight, bias, window, groups, True).shape == (0, 15, 6, 6)


@pytest.mark.parametrize("change", ["float64", "tracing", "vmap"])
def test_the_library_does_what_does_not_suit(change):
    x, weight, *_ = case("odd maps in groups", torch.float32)
    if change == "float64":
        assert not conv.suits(x.double(), weight.double())
    elif change == "tracing":
        asked = []
        torch.jit.trace(lambda a: (asked.append(conv.suits(a, weight)), a)[1], x.detach())
        assert asked[0] is False
    else:
        asked = []
        torch.vmap(lambda a: (asked.append(conv.suits(a, weight)), a)[1])(x.detach())
        assert asked == [False]


@pytest.mark.parametrize("dtype", MEANS)
def test_what_an_earlier_call_left_in_memory_changes_nothing(dtype):
    x, weight, bias, window, groups = case("the paper's conv1", dtype)
    small = x.detach()[:, :, :40, :41]
    first = computed(small, weight.detach(), bias.detach(), window, groups, False)
    computed(torch.full_like(x, float("nan")), weight.detach(), bias.detach(), window, groups, False)
    assert torch.equal(computed(small, weight.detach(), bias.detach(), window, groups, False), first)
