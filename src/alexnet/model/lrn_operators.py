"""The operators `torch.ops.alexnet.lrn` and `map_norm`: kernels by device, shapes, and gradients.

Each takes the already divided `alpha`, and `relu` to rectify its input first. The gradients save the input alone and
recompute the scale. Shapes: `N` batch, `C` maps, `H W` rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alexnet.engine import cpu
from alexnet.model import lrn_composed as composed

_RULE = "SymInt size, float alpha, float beta, float k"
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
_library = torch.library.Library("alexnet", "DEF")
_library.define(f"lrn(Tensor x, {_RULE}, SymInt columns, bool relu) -> Tensor", tags=_TAGS)
_library.define(f"lrn_backward(Tensor grad, Tensor x, {_RULE}, SymInt columns, bool relu) -> Tensor", tags=_TAGS)
_library.define(f"map_norm(Tensor x, {_RULE}, bool relu) -> Tensor", tags=_TAGS)
_library.define(f"map_norm_backward(Tensor grad, Tensor x, {_RULE}, bool relu) -> Tensor", tags=_TAGS)


def _lrn_any(x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool) -> Tensor:
    return cpu.dense(composed.forward(cpu.dense(x), composed.across_window(size, columns), alpha, beta, k, relu))


def _lrn_backward_any(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool
) -> Tensor:
    window = composed.across_window(size, columns)
    return _like(composed.backward(grad, x, window, alpha, beta, k, relu), x)


def _map_norm_any(x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    return _like(composed.forward(x, composed.within_window(size), alpha, beta, k, relu), x)


def _map_norm_backward_any(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool
) -> Tensor:
    return _like(composed.backward(grad, x, composed.within_window(size), alpha, beta, k, relu), x)


def _like(out: Tensor, x: Tensor) -> Tensor:
    return out.contiguous(memory_format=cpu.layout(x))


def _lrn_cpu(x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool) -> Tensor:
    out = cpu.across(cpu.dense(x), None, size, alpha, beta, k, columns, relu)
    return _lrn_any(x, size, alpha, beta, k, columns, relu) if out is None else out


def _lrn_backward_cpu(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool
) -> Tensor:
    out = cpu.across(cpu.dense(x), _like(grad, x).to(x.dtype), size, alpha, beta, k, columns, relu)
    return _lrn_backward_any(grad, x, size, alpha, beta, k, columns, relu) if out is None else out


def _map_norm_cpu(x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    out = cpu.within(cpu.dense(x), None, size, alpha, beta, k, relu)
    return _map_norm_any(x, size, alpha, beta, k, relu) if out is None else out


def _map_norm_backward_cpu(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool
) -> Tensor:
    out = cpu.within(cpu.dense(x), _like(grad, x).to(x.dtype), size, alpha, beta, k, relu)
    return _map_norm_backward_any(grad, x, size, alpha, beta, k, relu) if out is None else out


def _lrn_cuda(x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool) -> Tensor:
    from alexnet.model import lrn_cuda as cuda

    out = cuda.across(cpu.dense(x), None, size, alpha, beta, k, columns, relu)
    return _lrn_any(x, size, alpha, beta, k, columns, relu) if out is None else out


def _lrn_backward_cuda(
    grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool
) -> Tensor:
    from alexnet.model import lrn_cuda as cuda

    out = cuda.across(cpu.dense(x), _like(grad, x).to(x.dtype), size, alpha, beta, k, columns, relu)
    return _lrn_backward_any(grad, x, size, alpha, beta, k, columns, relu) if out is None else out


def _same(x: Tensor, *rule: Any) -> Tensor:
    return torch.empty_like(cpu.dense(x))


def _same_backward(grad: Tensor, x: Tensor, *rule: Any) -> Tensor:
    return torch.empty_like(cpu.dense(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.rule = inputs[1:]


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.rule = inputs[2:]


def _lrn_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (torch.ops.alexnet.lrn_backward(grad, *ctx.saved_tensors, *ctx.rule), *(None for _ in ctx.rule))


def _map_norm_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (torch.ops.alexnet.map_norm_backward(grad, *ctx.saved_tensors, *ctx.rule), *(None for _ in ctx.rule))


def _second(backward: Any) -> Any:
    """The gradient of a gradient, through the composed operations."""

    def gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        with torch.enable_grad():
            out = backward(*inputs, *ctx.rule)
        return (*torch.autograd.grad(out, inputs, grad), *(None for _ in ctx.rule))

    return gradient


for _name, _cpu, _cuda, _any in (
    ("lrn", _lrn_cpu, _lrn_cuda, _lrn_any),
    ("lrn_backward", _lrn_backward_cpu, _lrn_backward_cuda, _lrn_backward_any),
    ("map_norm", _map_norm_cpu, _map_norm_any, _map_norm_any),
    ("map_norm_backward", _map_norm_backward_cpu, _map_norm_backward_any, _map_norm_backward_any),
):
    _library.impl(_name, _cpu, "CPU")
    _library.impl(_name, _cuda, "CUDA")
    _library.impl(_name, _any, "CompositeExplicitAutograd")
    torch.library.register_fake(
        f"alexnet::{_name}", _same_backward if _name.endswith("backward") else _same, lib=_library
    )

torch.library.register_autograd("alexnet::lrn", _lrn_gradient, setup_context=_save, lib=_library)
torch.library.register_autograd("alexnet::map_norm", _map_norm_gradient, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "alexnet::lrn_backward", _second(_lrn_backward_any), setup_context=_save_backward, lib=_library
)
torch.library.register_autograd(
    "alexnet::map_norm_backward", _second(_map_norm_backward_any), setup_context=_save_backward, lib=_library
)
