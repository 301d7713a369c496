"""Fully-connected layers on the CPU: both arithmetics, by the engine, against torch's in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from alexnet.engine.library import library
from alexnet.model.linear import Linear

needs_library = pytest.mark.skipif(library() is None, reason="no compiled library here, or switched off")
# images, inputs, units: around the widths of vectors, blocks and chunks
SIZES = [(1, 1, 1), (1, 9, 3), (3, 33, 7), (7, 100, 65), (13, 2049, 129), (130, 700, 300), (32, 4097, 50)]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 5e-3}


def layer(inputs: int, units: int) -> Linear:
    torch.manual_seed(0)
    return Linear(inputs, units)


def computed(module: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        return module(x)


def error(found: Tensor, true: Tensor) -> float:
    return ((found.double() - true).norm() / true.norm()).item()


@needs_library
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("size", SIZES)
def test_output_and_gradients_are_torchs(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    images, inputs, units = size
    module = layer(inputs, units)
    x = torch.randn(images, inputs).to(dtype).requires_grad_()
    grad = torch.randn(images, units).to(dtype)
    out = computed(module, x)
    out.backward(grad)
    true = nn.Linear(inputs, units).double()
    rounded = {name: p.detach().to(dtype if name == "weight" else p.dtype) for name, p in module.named_parameters()}
    true.load_state_dict(rounded)
    leaf = x.detach().double().requires_grad_()
    true(leaf).backward(grad.double())
    assert out.dtype == dtype and module.weight.grad is not None and module.bias.grad is not None
    assert error(out, true(leaf)) < CLOSE[dtype]
    assert x.grad is not None and leaf.grad is not None and error(x.grad, leaf.grad) < CLOSE[dtype]
    for own, reference in zip(module.parameters(), true.parameters(), strict=True):
        assert own.grad is not None and reference.grad is not None and error(own.grad, reference.grad) < 1e-5


@needs_library
@pytest.mark.parametrize("dtype", CLOSE)
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype) -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            module, x = layer(1500, 300), torch.ones(70, 1500).mul(0.3).to(dtype).requires_grad_()
            computed(module, x).float().square().sum().backward()
            found.append([x.grad, module.weight.grad, module.bias.grad])
    finally:
        torch.set_num_threads(before)
    for one, many in zip(*found, strict=True):
        assert one is not None and many is not None and torch.equal(one, many)


@needs_library
def test_what_is_not_a_number_stays_in_its_image() -> None:
    x = torch.ones(3, 50)
    x[1, 7] = float("nan")
    out = layer(50, 20)(x)
    assert out[1].isnan().all() and not out[[0, 2]].isnan().any()


@pytest.mark.parametrize("shape", [(2, 5, 30), (30,)], ids=["sequences", "one image"])
def test_other_shapes_are_torchs(shape: tuple[int, ...]) -> None:
    module, x = layer(30, 4), torch.randn(shape)
    assert torch.equal(module(x), nn.functional.linear(x, module.weight, module.bias))


def test_without_biases_it_is_torchs() -> None:
    module, x = Linear(30, 4, bias=False), torch.randn(2, 30)
    assert torch.equal(module(x), x @ module.weight.T)
