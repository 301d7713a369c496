"""How fast are the normalizations and the fused update? Ours beside torch's, taking turns in one run.

Forward and backward passes on the shapes of conv1 (across maps) and conv2 (within maps) of the paper's network, both
memory layouts, float32 and bfloat16; the update on as many weights as the network has. The reference moves each tensor
once at the copy bandwidth measured in the same turns: five tensors for the two passes, 20 bytes per
weight for the update.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from alexnet.engine.memory import keep_freed_memory
from alexnet.model.lrn import LRN, MapNorm
from alexnet.model.lrn_reference import reference_lrn, reference_map_norm
from alexnet.training.sgd import SGD
from benchmarks.records import Result
from benchmarks.timing import Call, compare_times, take_turns

WEIGHTS = 60_965_224
KINDS = ("across", "within", "update")
Norm = Callable[[Tensor], Tensor]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this question."""
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--turns", type=int, default=7, help="timed calls of each contender")
    parser.add_argument("--compiled", action="store_true", help="also the formula through torch.compile")
    parser.add_argument("--only", choices=KINDS, help="one kind of measurement")
    parser.add_argument(
        "--page-faults",
        action="store_true",
        help="give freed memory back to the system, as processes do that never train",
    )


def measure(options: argparse.Namespace) -> Iterator[Result]:
    """Across maps, within maps, and the update."""
    if not options.page_faults:
        keep_freed_memory()
    torch.manual_seed(0)
    forms = [(t, m) for t in (torch.float32, torch.bfloat16) for m in (torch.channels_last, torch.contiguous_format)]
    measures: list[tuple[str, Callable[[], Result]]] = []
    measures += [("across", partial(across, options, *form)) for form in forms]
    measures += [("within", partial(within, options, *form)) for form in forms]
    measures.append(("update", partial(update, options)))
    for kind, ask in measures:
        if options.only in (None, kind):
            yield ask()


def across(options: argparse.Namespace, dtype: torch.dtype, layout: torch.memory_format) -> Result:
    """LRN after conv1: (N, 96, 55, 55), two columns. Torch's has one column, divides alpha, and knows no bfloat16."""

    def formula(a: Tensor) -> Tensor:
        return reference_lrn(a, 5, 1e-4, 0.75, 2.0, 2)

    def torchs(a: Tensor) -> Tensor:
        return torch.nn.functional.local_response_norm(a.float(), 5, 5e-4, 0.75, 2.0).to(a.dtype)

    ours = LRN(5, 1e-4, 0.75, 2.0, columns=2)
    norms: dict[str, Norm] = {"ours": ours, "torch in float32": torchs, "composed": formula}
    return _both_ways("LRN", norms, (options.batch, 96, 55, 55), dtype, layout, options)


def within(options: argparse.Namespace, dtype: torch.dtype, layout: torch.memory_format) -> Result:
    """The within-map normalization after conv2 in the 2012 source: (N, 256, 27, 27)."""

    def formula(a: Tensor) -> Tensor:
        return reference_map_norm(a, 5, 1e-3 / 25, 0.75, 1.0)

    norms: dict[str, Norm] = {"ours": MapNorm(), "composed": formula}
    return _both_ways("within-map normalization", norms, (options.batch, 256, 27, 27), dtype, layout, options)


def update(options: argparse.Namespace) -> Result:
    """The paper's rule on all weights, beside torch's SGD."""
    values, grad = torch.randn(WEIGHTS) * 0.01, torch.randn(WEIGHTS) * 0.01

    def weights() -> list[torch.nn.Parameter]:
        parameter = torch.nn.Parameter(values.clone())
        parameter.grad = grad
        return [parameter]

    contenders: dict[str, Call] = {"ours": SGD(weights(), 0.01, weight_decay=0.0005).step}
    for name, how in (("torch SGD, fused", {"fused": True}), ("torch SGD, foreach", {"foreach": True})):
        contenders[name] = torch.optim.SGD(weights(), 0.01, 0.9, weight_decay=0.0005, **how).step
    return _beside_a_copy(f"update of {WEIGHTS:,} weights", contenders, options.turns, 20 * WEIGHTS, values)


def _both_ways(
    name: str,
    norms: dict[str, Norm],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    options: argparse.Namespace,
) -> Result:
    """Forward and backward of each normalization on one random input."""
    x, grad = ((torch.randn(shape) * 40).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    x.requires_grad_()
    if options.compiled:
        norms["composed, compiled"] = torch.compile(norms["composed"])
    contenders: dict[str, Call] = {key: partial(_forward_backward, norm, x, grad) for key, norm in norms.items()}
    kind = f"{str(dtype).split('.')[1]} {'channels-last' if layout == torch.channels_last else 'contiguous'}"
    return _beside_a_copy(f"{name}, forward and backward, {kind}, {shape}", contenders, options.turns, 5 * x.nbytes, x)


def _forward_backward(norm: Norm, x: Tensor, grad: Tensor) -> object:
    return torch.autograd.grad(norm(x), x, grad)


def _beside_a_copy(name: str, contenders: dict[str, Call], turns: int, moved: int, like: Tensor) -> Result:
    """Time all contenders and a copy of `like`; the reference is `moved` bytes at the copy's bandwidth."""
    source, target = like.detach(), torch.empty_like(like)
    seconds = take_turns({**contenders, "copy": lambda: target.copy_(source)}, turns)
    bandwidth = 2 * source.nbytes / statistics.median(seconds["copy"])
    own, *peers = contenders
    return compare_times(
        name,
        seconds,
        own,
        peers,
        reference_rate=moved / bandwidth * 1e3,
        reference_basis=f"{moved / 1e6:.0f} MB at a copy's {bandwidth / 1e9:.1f} GB/s",
    )
