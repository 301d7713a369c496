"""Between torch and the engine: which tensors it takes, in which layout, and with whose threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.engine.library import Dtype, library, share_threads

DTYPES = {torch.float32: Dtype.FLOAT32, torch.bfloat16: Dtype.BFLOAT16, torch.float16: Dtype.FLOAT16}

share_threads(Path(torch.__file__).parent)


def is_available() -> bool:
    """Whether there is a compiled library."""
    return library() is not None


def is_eager(x: Tensor) -> bool:
    """Whether `x` is a plain tensor in CPU memory, not being compiled, traced or transformed."""
    return not (x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed())


def is_transformed() -> bool:
    """Whether a transform of `torch.func` (grad, vmap) is at work, which autograd functions of ours do not follow."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def arithmetic(x: Tensor) -> torch.dtype:
    """The dtype in which a product with `x` is computed: autocast's where it is on, else its own."""
    if torch.is_autocast_enabled("cpu") and x.dtype in DTYPES:
        return torch.get_autocast_dtype("cpu")
    return x.dtype


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 numbers, as far as torch says."""
    if os.environ.get("ALEXNET_ENGINE") in ("avx512", "avx2", "plain"):
        return False
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def emulates_bfloat16(x: Tensor) -> bool:
    """Whether bfloat16 products with `x` are best computed as float32 and rounded.

    So where the processor has no bfloat16 products: torch's take about ten times as long there. Numbers rounded to
    bfloat16, multiplied and added up in float32, and rounded once, are bfloat16 arithmetic too.
    """
    return arithmetic(x) == torch.bfloat16 and is_eager(x) and not multiplies_bfloat16()


def emulate_bfloat16(product: Callable[..., Tensor], *factors: Tensor | None) -> Tensor:
    """`product(*factors)` as `emulates_bfloat16` says: of rounded factors, in float32, rounded once."""
    with torch.autocast("cpu", enabled=False):
        return product(*(x if x is None else x.bfloat16().float() for x in factors)).bfloat16()


def layout(x: Tensor) -> torch.memory_format:
    """The memory format that `dense` gives (N, C, H, W): channels-last where `x` is in it alone, else contiguous."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """`x` (N, C, H, W) contiguous or channels-last, a copy where it is in neither."""
    return x.contiguous(memory_format=layout(x))
