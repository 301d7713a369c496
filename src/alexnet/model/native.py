"""Between torch and the engine: which tensors its kernels take, in which layout, and with whose threads."""

from __future__ import annotations

from pathlib import Path

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
    return not (
        x.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def layout(x: Tensor) -> torch.memory_format:
    """The memory format that `dense` gives (N, C, H, W): channels-last where `x` is in it alone, else contiguous."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """`x` (N, C, H, W) contiguous or channels-last, a copy where it is in neither."""
    return x.contiguous(memory_format=layout(x))
