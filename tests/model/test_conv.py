"""Convolution on the CPU: both arithmetics, by the engine and without it, against torch's in float64."""

import pytest
import torch
import torch.nn.functional as F

from alexnet.engine import convolution
from alexnet.engine.convolution import ConvGeometry
from alexnet.engine.library import Dtype
from alexnet.model import conv, native

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
DTYPES = [torch.float32, torch.bfloat16]
ENGINES = {  # the arithmetics that the engine computes on some processors, and whether they multiply bfloat16
    "both": ({Dtype.FLOAT32, Dtype.BFLOAT16}, True),
    "float32 alone": ({Dtype.FLOAT32}, False),
    "none": (set(), False),
}


@pytest.fixture(params=ENGINES)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A processor of another kind, as far as this one can play it."""
    dtypes, multiplies = ENGINES[request.param]
    if missing := dtypes - convolution.supported_dtypes():
        names = ", ".join(sorted(dtype.name.lower() for dtype in missing))
        pytest.skip(f"the engine does not compute {names} convolutions on this processor")
    monkeypatch.setattr(convolution, "supported_dtypes", lambda: frozenset(dtypes))
    monkeypatch.setattr(native, "multiplies_bfloat16", lambda: multiplies)
    return request.param


def needs_engine(dtype: torch.dtype) -> None:
    """Skip where the engine does not compute `dtype` here: torch would be compared with itself."""
    if dtype not in conv.supported_dtypes():
        pytest.skip(f"the engine does not compute {dtype} convolutions on this processor")


def case(shape, dtype, layout=torch.channels_last):
    maps, kernels, size, stride, pad, ceil, groups, side, images = SHAPES[shape]
    torch.manual_seed(0)
    x = torch.randn(images, maps, side, side).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(kernels, maps // groups, size, size).to(dtype).float().requires_grad_()
    bias = torch.randn(kernels).to(dtype).float().requires_grad_()
    return x, weight, bias, ConvGeometry(size, stride, (pad, pad + ceil, pad, pad + ceil)), groups


def computed(x, weight, bias, geometry, groups, relu):
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        return conv.conv2d(x, weight, bias, geometry, groups, relu)


def expected(x, weight, bias, geometry, groups):
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    top, bottom, left, right = geometry.pad
    out = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, geometry.stride, groups=groups)
    return out, (x, weight, bias)


def error(found, true):
    return ((found.double() - true).norm() / true.norm()).item()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_torchs(shape, dtype, relu, processor):
    x, weight, bias, geometry, groups = case(shape, dtype)
    out = computed(x, weight, bias, geometry, groups, relu)
    true, leaves = expected(x, weight, bias, geometry, groups)
    grad = torch.randn(out.shape).to(dtype)
    close = 5e-3 if dtype == torch.bfloat16 else 1e-5
    assert out.dtype == dtype
    assert error(out, true.relu() if relu else true) < close
    out.backward(grad)
    true.backward(grad.double() * (out > 0) if relu else grad.double())
    for leaf, reference in zip((x, weight, bias), leaves, strict=True):
        assert leaf.grad.dtype == leaf.dtype
        assert error(leaf.grad, reference.grad) < close


@pytest.mark.parametrize("dtype", DTYPES)
def test_contiguous_maps_give_the_same(dtype):
    needs_engine(dtype)
    layouts = (torch.channels_last, torch.contiguous_format)
    first, second = (case("the paper's conv2", dtype, layout) for layout in layouts)
    outs = [computed(*each, True) for each in (first, second)]
    for out in outs:
        out.square().sum().backward()
    assert torch.equal(*outs)
    assert torch.equal(first[0].grad, second[0].grad) and torch.equal(first[1].grad, second[1].grad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype):
    needs_engine(dtype)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            x, weight, bias, geometry, groups = case("the paper's conv2", dtype)
            out = computed(x, weight, bias, geometry, groups, True)
            out.float().square().sum().backward()
            found.append((out, x.grad, weight.grad, bias.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))


@pytest.mark.parametrize("shape", ["the paper's conv1", "odd maps in groups"])
def test_a_gradient_of_the_gradient_is_refused(shape):
    needs_engine(torch.float32)
    x, weight, bias, geometry, groups = case(shape, torch.float32)
    out = conv.conv2d(x, weight, bias, geometry, groups)
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_only_what_is_asked_for_is_computed():
    x, weight, bias, geometry, groups = case("odd maps in groups", torch.float32)
    out = conv.conv2d(x.detach(), weight.detach(), bias, geometry, groups)
    (grad,) = torch.autograd.grad(out.sum(), bias)
    assert torch.allclose(grad, torch.full_like(grad, out[:, 0].numel()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_batch_has_an_empty_output(dtype, processor):
    module = conv.Conv2d(9, 15, 3, 1, 1, 3, True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = module(torch.zeros(0, 9, 6, 6, dtype=dtype), relu=True)
    assert out.shape == (0, 15, 6, 6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fused_relu_is_that_of_torch(dtype, processor):
    module = conv.Conv2d(6, 10, 3, 2, 0, 2, True)
    x = torch.randn(2, 6, 8, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(module(x, relu=True), module(x).relu())


def test_bfloat16_is_computed_here_unless_torch_does_it_better(processor):
    x, weight, *_ = case("odd maps in groups", torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.supports(x, weight)
        assert native.arithmetic(x) == torch.bfloat16


def test_float32_is_computed_here_where_the_engine_does(processor):
    x, weight, *_ = case("odd maps in groups", torch.float32)
    assert conv.supports(x, weight) == (processor != "none")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_are_left_to_torch(dtype):
    x, weight, *_ = case("odd maps in groups", torch.float32)
    assert not conv.supports(x.to(dtype), weight.to(dtype))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # jit.trace is deprecated
@pytest.mark.parametrize("transform", ["tracing", "vmap"])
def test_tracing_and_transforms_are_left_to_torch(transform, processor):
    x, weight, *_ = case("odd maps in groups", torch.bfloat16)
    answers = []

    def ask(a):
        with torch.autocast("cpu", torch.bfloat16):
            answers.append(conv.supports(a, weight))
        return a

    ask(x)
    torch.jit.trace(ask, x.detach()) if transform == "tracing" else torch.vmap(ask)(x.detach()[None])
    assert answers[:2] == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_an_earlier_call_left_in_memory_changes_nothing(dtype):
    needs_engine(dtype)
    x, weight, bias, geometry, groups = case("the paper's conv1", dtype)
    small = x.detach()[:, :, :40, :41]
    first = computed(small, weight.detach(), bias.detach(), geometry, groups, False)
    computed(torch.full_like(x, float("nan")), weight.detach(), bias.detach(), geometry, groups, False)
    assert torch.equal(computed(small, weight.detach(), bias.detach(), geometry, groups, False), first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fused_relu_lets_what_is_not_a_number_through(dtype):
    x, weight, bias, geometry, groups = case("3x3 over both columns", dtype)
    spoilt = bias.detach().clone()
    spoilt[3] = float("nan")
    out = computed(x.detach(), weight.detach(), spoilt, geometry, groups, True)
    assert out[:, 3].isnan().all() and not out[:, :3].isnan().any()
