"""Whether Triton's kernels may compute a normalization: only where they agree with the composed one, here and now.

They are compared once for each device, dtype, layout and rule, on a small tensor, when they are first wanted: before
the first step of a training, at the first prediction. Where they differ or cannot be compiled, the composed operations
serve, and a warning says by how much.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alexnet.model.lrn_reference import reference_lrn, reference_lrn_backward
from alexnet.model.native import layout

# The largest difference allowed, as a share of the largest value: some roundings of the result's dtype.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}

Kernels = Callable[..., Tensor]  # as `lrn_triton.lrn`: x, grad or None, and the rule
_chosen: dict[tuple[Any, ...], bool] = {}


def agrees(kernels: Kernels, x: Tensor, rule: tuple[Any, ...]) -> bool:
    """Whether `kernels` may normalize tensors like `x` (N, C, H, W) by `rule`; warns of the first that may not."""
    key = (kernels, x.device, x.dtype, layout(x), rule)
    if key not in _chosen:
        why = disagreement(kernels, x.device, x.dtype, layout(x), rule)
        if why and all(_chosen.values()):
            warnings.warn(f"local response normalization goes without Triton, slower: {why}", RuntimeWarning, 2)
        _chosen[key] = why is None
    return _chosen[key]


def disagreement(
    kernels: Kernels,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    rule: tuple[Any, ...],
) -> str | None:
    """How far `kernels` are from the composed float32 operations, where it is too far; None where they agree."""
    size, alpha, _, k, columns = rule
    generator = torch.Generator().manual_seed(0)
    spread = min((k / (size * alpha)) ** 0.5, 1e3) if alpha else 1.0  # so that the sums of squares weigh as much as k
    x, grad = (
        (torch.randn(3, 7 * columns, 9, 11, generator=generator) * scale)
        .to(device, dtype)
        .contiguous(memory_format=memory_format)
        for scale in (spread, 1.0)
    )
    truths = reference_lrn(x.float(), *rule), reference_lrn_backward(grad.float(), x.float(), *rule)
    try:
        values = kernels(x, None, *rule), kernels(x, grad, *rule)
        gaps = [float((v.double() - t).abs().max() / t.abs().max()) for v, t in zip(values, truths, strict=True)]
    except Exception as error:  # whatever a compiler or a driver raises
        line = next(iter(str(error).strip().splitlines()), "")
        return f"its kernels do not run here ({type(error).__name__}: {line})"
    for what, gap in zip(("results", "gradients"), gaps, strict=True):
        if not gap <= BOUNDS[dtype]:  # NaN is no agreement
            return (
                f"its {what} in {str(dtype).removeprefix('torch.')} differ from the formula's by {gap:.1e} of the "
                f"largest, where {BOUNDS[dtype]:.1e} is allowed"
            )
    return None
