"""Local response normalization in Triton, for CUDA tensors in either layout.

The kernels were compiled for GPUs, and run in Triton's interpreter on CPU tensors, but never on a GPU: speed is not
known, and `lrn_choice` compares them with the formula on the device before they are used. Each element reads its window
from its neighbours, which the caches serve, so the forward pass moves the input in and the result out. The backward
pass has two steps: what each element sends to the others (a float32 scratch tensor), and the sum of what it receives.
Nothing but the input is saved.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a build of torch without Triton: plain operations serve
    triton = None

BLOCK = 1024

if triton is not None:

    @triton.jit
    def _element(at, total, maps, stride, own):
        inside = at < total
        return inside, (at // stride) % maps % own  # the place of the element's map inside its column

    @triton.jit
    def _operand(x_ptr, at, mask):
        return tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)

    @triton.jit
    def _scale(x_ptr, at, inside, place, stride, own, alpha, k, BEFORE: tl.constexpr, AFTER: tl.constexpr):
        squares = tl.zeros(at.shape, dtype=tl.float32)
        for d in tl.static_range(-BEFORE, AFTER + 1):
            a = _operand(x_ptr, at + d * stride, inside & (place + d >= 0) & (place + d < own))
            squares += a * a
        return k + alpha * squares

    @triton.jit
    def _power(scale, beta, QUARTERS: tl.constexpr):
        return 1.0 / (tl.sqrt(scale) * tl.sqrt(tl.sqrt(scale))) if QUARTERS else tl.exp2(-beta * tl.log2(scale))

    @triton.jit
    def _normalize(x_ptr, y_ptr, total, maps, stride, own, alpha, beta, k, BEFORE: tl.constexpr, AFTER: tl.constexpr,
                   QUARTERS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside, place = _element(at, total, maps, stride, own)
        scale = _scale(x_ptr, at, inside, place, stride, own, alpha, k, BEFORE, AFTER)
        y = _operand(x_ptr, at, inside) * _power(scale, beta, QUARTERS)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)

    @triton.jit
    def _send(x_ptr, g_ptr, t_ptr, total, maps, stride, own, alpha, beta, k, BEFORE: tl.constexpr, AFTER: tl.constexpr,
              QUARTERS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside, place = _element(at, total, maps, stride, own)
        scale = _scale(x_ptr, at, inside, place, stride, own, alpha, k, BEFORE, AFTER)
        u = tl.load(g_ptr + at, mask=inside, other=0.0).to(tl.float32) * _power(scale, beta, QUARTERS)
        tl.store(t_ptr + at, u * (_operand(x_ptr, at, inside) / scale), mask=inside)

    @triton.jit
    def _collect(x_ptr, g_ptr, t_ptr, d_ptr, total, maps, stride, own, alpha, beta, k, BEFORE: tl.constexpr,
                 AFTER: tl.constexpr, QUARTERS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside, place = _element(at, total, maps, stride, own)
        scale = _scale(x_ptr, at, inside, place, stride, own, alpha, k, BEFORE, AFTER)
        a = _operand(x_ptr, at, inside)
        received = tl.zeros(at.shape, dtype=tl.float32)
        for d in tl.static_range(-AFTER, BEFORE + 1):
            mask = inside & (place + d >= 0) & (place + d < own)
            received += tl.load(t_ptr + at + d * stride, mask=mask, other=0.0)
        u = tl.load(g_ptr + at, mask=inside, other=0.0).to(tl.float32) * _power(scale, beta, QUARTERS)
        gradient = u - 2.0 * alpha * beta * a * received
        tl.store(d_ptr + at, gradient.to(d_ptr.dtype.element_ty), mask=inside)


def lrn(x: Tensor, grad: Tensor | None, size: int, alpha: float, beta: float, k: float, columns: int) -> Tensor:
    """Normalize (N, C, H, W) across maps, or with `grad` its gradient; both dense in the same layout.

    float32, bfloat16 and float16. Raises ModuleNotFoundError where there is no Triton.
    """
    if triton is None:
        raise ModuleNotFoundError("Triton is not installed")
    out = torch.empty_like(x)
    total, maps = x.numel(), x.shape[1]
    if total == 0:
        return out
    shape = (total, maps, x.stride(1) if x.is_contiguous() else 1, maps // columns, alpha, beta, k)
    rule: dict[str, Any] = {"BEFORE": size // 2, "AFTER": (size - 1) // 2, "QUARTERS": beta == 0.75}
    grid = (triton.cdiv(total, BLOCK),)
    with torch.cuda.device(x.device if x.is_cuda else -1):
        if grad is None:
            _normalize[grid](x, out, *shape, **rule, BLOCK=BLOCK)
        else:
            sent = torch.empty_like(x, dtype=torch.float32)
            _send[grid](x, grad, sent, *shape, **rule, BLOCK=BLOCK)
            _collect[grid](x, grad, sent, out, *shape, **rule, BLOCK=BLOCK)
    return out
