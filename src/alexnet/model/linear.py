"""Fully-connected layers on the CPU by the engine, which reads float32 weights as they lie, in bfloat16 arithmetic too.

Elsewhere torch computes them, but bfloat16 by float32 products where the processor has none of bfloat16. Shapes: `N`
images, `K` inputs, `U` units.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alexnet.engine.full import Full
from alexnet.model.conv import supported_dtypes, supports
from alexnet.model.native import DTYPES, arithmetic, emulate_bfloat16, emulates_bfloat16


class Linear(nn.Linear):
    """A fully-connected layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) → (N, U)."""
        kind = arithmetic(x)
        known = x.dim() == 2 and self.bias is not None and kind in supported_dtypes()
        if known and supports(x, self.weight):
            with torch.autocast("cpu", enabled=False):
                return _Full.apply(x, self.weight, self.bias, kind)
        if emulates_bfloat16(x):
            return emulate_bfloat16(F.linear, x, self.weight, self.bias)
        return super().forward(x)


class _Full(torch.autograd.Function):
    """The engine's; saves its inputs and weights."""

    @staticmethod
    def forward(ctx, x, weight, bias, kind) -> Tensor:  # type: ignore[no-untyped-def]
        x, w, b = x.contiguous(), weight.contiguous(), bias.float().contiguous()
        layer = Full(len(x), x.shape[1], len(w), DTYPES[kind])
        out = torch.empty(len(x), len(w), dtype=kind)
        layer.forward(
            x.data_ptr(), DTYPES[x.dtype], w.data_ptr(), DTYPES[w.dtype], b.data_ptr(), out.data_ptr(), DTYPES[kind],
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x, w)
        ctx.layer, ctx.bias_dtype = layer, bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        g, threads = grad.contiguous(), torch.get_num_threads()
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty(x.shape, dtype=g.dtype)
            ctx.layer.grad_input(g.data_ptr(), w.data_ptr(), DTYPES[w.dtype], grad_x.data_ptr(), threads)
            grad_x = grad_x.to(x.dtype)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_weight, grad_bias = torch.empty(w.shape), torch.empty(len(w))
            ctx.layer.grad_weights(
                x.data_ptr(), DTYPES[x.dtype], g.data_ptr(), grad_weight.data_ptr(), grad_bias.data_ptr(), threads
            )
            grad_weight, grad_bias = grad_weight.to(w.dtype), grad_bias.to(ctx.bias_dtype)
        return grad_x, grad_weight, grad_bias, None
