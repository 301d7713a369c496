"""The operators `torch.ops.alexnet.lrn` and `map_norm`: what computes them by device, shapes, and gradients.

Each takes the already divided `alpha`. The gradients save the input alone and recompute the scale; they are not
differentiable themselves. Shapes: `N` batch, `C` maps, `H W` rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet.engine import normalization
from alexnet.model.lrn_choice import BOUNDS, agrees
from alexnet.model.lrn_reference import (
    reference_lrn,
    reference_lrn_backward,
    reference_map_norm,
    reference_map_norm_backward,
)
from alexnet.model.native import DTYPES, dense, is_available, layout

_RULES = {
    "lrn": "SymInt size, float alpha, float beta, float k, SymInt columns",
    "map_norm": "SymInt size, float alpha, float beta, float k",
}
_PLAIN: dict[str, Any] = {
    "lrn": reference_lrn,
    "lrn_backward": reference_lrn_backward,
    "map_norm": reference_map_norm,
    "map_norm_backward": reference_map_norm_backward,
}
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
_operators = torch.library.Library("alexnet", "DEF")


def _like(out: Tensor, x: Tensor) -> Tensor:
    return out.contiguous(memory_format=layout(x))


def _plain(name: str, x: Tensor, grad: Tensor | None, rule: tuple[Any, ...]) -> Tensor:
    inputs = (x,) if grad is None else (grad, x)
    return _like(_PLAIN[name if grad is None else f"{name}_backward"](*inputs, *rule), x)


def _on_cpu(name: str, x: Tensor, grad: Tensor | None, rule: tuple[Any, ...]) -> Tensor:
    dtype = DTYPES.get(x.dtype)
    if dtype is None or not is_available():
        return _plain(name, x, grad, rule)
    x = dense(x)
    out = torch.empty_like(x)
    g = None if grad is None else _like(grad, x).to(x.dtype)
    tensors = (x.data_ptr(), None if g is None else g.data_ptr(), out.data_ptr(), dtype)
    sizes = (x.shape, not x.is_contiguous(), rule[:4])
    if name == "lrn":
        normalization.lrn(*tensors, *sizes, rule[4], torch.get_num_threads())
    else:
        normalization.map_norm(*tensors, *sizes, torch.get_num_threads())
    return out


def _on_cuda(name: str, x: Tensor, grad: Tensor | None, rule: tuple[Any, ...]) -> Tensor:
    from alexnet.model import lrn_triton

    if name != "lrn" or x.dtype not in BOUNDS or not agrees(lrn_triton.lrn, x, rule):
        return _plain(name, x, grad, rule)
    x = dense(x)
    return lrn_triton.lrn(x, None if grad is None else _like(grad, x).to(x.dtype), *rule)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.rule = inputs[1:]


def _register(name: str) -> None:
    """Define the operator `name` and its gradient `name_backward`."""
    _operators.define(f"{name}(Tensor x, {_RULES[name]}) -> Tensor", tags=_tags)
    _operators.define(f"{name}_backward(Tensor grad, Tensor x, {_RULES[name]}) -> Tensor", tags=_tags)
    for key, compute in (("CPU", _on_cpu), ("CUDA", _on_cuda), ("CompositeExplicitAutograd", _plain)):
        _operators.impl(name, lambda x, *rule, do=compute: do(name, x, None, rule), key)
        _operators.impl(f"{name}_backward", lambda grad, x, *rule, do=compute: do(name, x, grad, rule), key)
    torch.library.register_fake(f"alexnet::{name}", lambda x, *rule: torch.empty_like(dense(x)), lib=_operators)
    torch.library.register_fake(
        f"alexnet::{name}_backward", lambda grad, x, *rule: torch.empty_like(dense(x)), lib=_operators
    )

    @once_differentiable
    def gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        backward = getattr(torch.ops.alexnet, f"{name}_backward")
        return (backward(grad, *ctx.saved_tensors, *ctx.rule), *(None for _ in ctx.rule))

    torch.library.register_autograd(f"alexnet::{name}", gradient, setup_context=_save, lib=_operators)


for _name in _RULES:
    _register(_name)
