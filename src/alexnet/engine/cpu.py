"""Calls of the native library on CPU tensors; None or False where it cannot serve them.

Shapes: `N` batch, `C` maps, `H W` rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alexnet.engine.build import library

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def dense(x: Tensor) -> Tensor:
    """`x` in one of the two layouts the kernels know: contiguous or channels-last, a copy where it is in neither."""
    return x.contiguous(memory_format=layout(x))


def layout(x: Tensor) -> torch.memory_format:
    """The memory format that `dense` gives `x`."""
    if not x.is_contiguous():
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
        if x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
            return torch.channels_last_3d
    return torch.contiguous_format


def across(
    x: Tensor, grad: Tensor | None, size: int, alpha: float, beta: float, k: float, columns: int, relu: bool
) -> Tensor | None:
    """Normalize (N, C, ...) across maps, or with `grad` its gradient; both dense in the same layout."""
    lib = library() if x.dtype in TYPES else None
    if lib is None:
        return None
    out = torch.empty_like(x)
    images, maps = x.shape[:2]
    failed = lib.alexnet_across(
        x.data_ptr(), None if grad is None else grad.data_ptr(), out.data_ptr(), TYPES[x.dtype],
        images, maps, x[0, 0].numel() if images and maps else 0, not x.is_contiguous(), columns,
        size, alpha, beta, k, relu, torch.get_num_threads(),
    )  # fmt: skip
    return None if failed else out


def within(x: Tensor, grad: Tensor | None, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor | None:
    """Normalize (N, C, H, W) within each map, or with `grad` its gradient; both dense in the same layout."""
    lib = library() if x.dtype in TYPES else None
    if lib is None:
        return None
    out = torch.empty_like(x)
    failed = lib.alexnet_within(
        x.data_ptr(), None if grad is None else grad.data_ptr(), out.data_ptr(), TYPES[x.dtype],
        *x.shape, not x.is_contiguous(), size, alpha, beta, k, relu, torch.get_num_threads(),
    )  # fmt: skip
    return None if failed else out


def sgd_step(
    w: Tensor, v: Tensor, g: Tensor, lr: float, momentum: float, decay: float, copy: Tensor | None = None
) -> bool:
    """Update in place, in one pass over memory: `v <- momentum v - decay lr w - lr g`, `w <- w + v` (section 5).

    `w` and `v` are float32, `g` float32 or bfloat16, `copy` (where given) bfloat16 and filled with the new `w`. All of
    one shape, with elements in the same order of memory. Returns False, with nothing changed, where the native library
    cannot serve these tensors: the caller does the update by other means.
    """
    tensors = [w, v, g] if copy is None else [w, v, g, copy]
    if w.dtype != torch.float32 or v.dtype != torch.float32 or g.dtype not in (torch.float32, torch.bfloat16):
        return False
    if copy is not None and copy.dtype != torch.bfloat16:
        return False
    if any(t.device.type != "cpu" or t.layout != torch.strided for t in tensors):
        return False
    if not _filled(w) or any(t.shape != w.shape or _order(t) != _order(w) for t in tensors[1:]):
        return False
    lib = library()
    if lib is None:
        return False
    failed = lib.alexnet_sgd(
        w.data_ptr(), v.data_ptr(), g.data_ptr(), TYPES[g.dtype], None if copy is None else copy.data_ptr(),
        w.numel(), lr, momentum, decay, torch.get_num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("the update ran out of memory in a worker thread")
    torch.autograd.graph.increment_version([w, v] if copy is None else [w, v, copy])
    return True


def _filled(w: Tensor) -> bool:
    """Whether the elements of `w` fill one piece of memory: contiguous, or channels-last."""
    return w.is_contiguous() or layout(w) != torch.contiguous_format


def _order(t: Tensor) -> list[int]:
    return [stride for stride, length in zip(t.stride(), t.shape, strict=True) if length > 1]
