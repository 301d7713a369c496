"""How fast are the normalizations and the fused update? Ours beside torch's, taking turns in one run.

    python benchmarks/lrn.py [--json] [--batch 128] [--runs 5] [--compiled]
        [--keep-memory] [--only across|within|update]

Forward and backward on the shapes of conv1 (across maps) and conv2 (within maps) of the paper's network, both memory
layouts, float32 and bfloat16; the update on as many weights as the network has. Medians in milliseconds; the spread is
the range over `--runs`. The limit moves each tensor once at the copy bandwidth measured in the same turns: five
tensors for forward and backward, 20 bytes a weight for the update.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.model.lrn import LRN, MapNorm, reference_lrn, reference_map_norm
from alexnet.native import build, keep_freed_memory, sgd_step

WEIGHTS = 60_965_224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--runs", type=int, default=5, help="turns of each contender")
    parser.add_argument("--compiled", action="store_true", help="also the formula through torch.compile")
    parser.add_argument("--only", choices=("across", "within", "update"), help="one kind of figure")
    parser.add_argument("--keep-memory", action="store_true", help="with keep_freed_memory(): no page faults")
    options = parser.parse_args()
    if options.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    forms = [(t, m) for t in (torch.float32, torch.bfloat16) for m in (torch.channels_last, torch.contiguous_format)]
    measures: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    measures += [("across", partial(across, options, *form)) for form in forms]
    measures += [("within", partial(within, options, *form)) for form in forms]
    measures.append(("update", partial(update, options)))
    figures = []
    for kind, measure in measures:
        if options.only in (None, kind):
            figures.append(measure())
            tell(options, figures[-1])
    if options.json:
        print(json.dumps({"hardware": hardware(), "versions": versions(), "figures": figures}))


def across(options: argparse.Namespace, dtype: torch.dtype, layout: torch.memory_format) -> dict[str, Any]:
    """LRN after conv1: (N, 96, 55, 55), two columns. Torch's has one column, divides alpha, and knows no bfloat16."""
    x, grad = pair((options.batch, 96, 55, 55), dtype, layout)
    ours = LRN(5, 1e-4, 0.75, 2.0, columns=2)

    def formula(a: Tensor) -> Tensor:
        return reference_lrn(a, 5, 1e-4, 0.75, 2.0, 2)

    def torchs(a: Tensor) -> Tensor:
        return torch.nn.functional.local_response_norm(a.float(), 5, 5e-4, 0.75, 2.0).to(a.dtype)

    contenders = {
        "ours": both(ours, x, grad),
        "torch in float32": both(torchs, x, grad),
        "formula": both(formula, x, grad),
    }
    if options.compiled:
        contenders["formula compiled"] = both(torch.compile(formula), x, grad)
    return figure(f"LRN forward+backward, {named(dtype, layout)}", contenders, options, 5 * x.nbytes, x)


def within(options: argparse.Namespace, dtype: torch.dtype, layout: torch.memory_format) -> dict[str, Any]:
    """The within-map normalization after conv2 in the 2012 source: (N, 256, 27, 27)."""
    x, grad = pair((options.batch, 256, 27, 27), dtype, layout)

    def formula(a: Tensor) -> Tensor:
        return reference_map_norm(a, 5, 1e-3, 0.75, 1.0, True)

    contenders = {"ours": both(MapNorm(), x, grad), "formula": both(formula, x, grad)}
    if options.compiled:
        contenders["formula compiled"] = both(torch.compile(formula), x, grad)
    return figure(f"within-map forward+backward, {named(dtype, layout)}", contenders, options, 5 * x.nbytes, x)


def update(options: argparse.Namespace) -> dict[str, Any]:
    """The paper's rule on all weights, beside torch's SGD."""
    w, v, g = (torch.randn(WEIGHTS) * 0.01 for _ in range(3))
    contenders: dict[str, Callable[[], object]] = {}
    if build.library() is not None:
        contenders["ours"] = lambda: sgd_step(w, v, g, 0.01, 0.9, 0.0005)
    for name, how in (("SGD fused", {"fused": True}), ("SGD foreach", {"foreach": True})):
        weight = torch.nn.Parameter(w.clone())
        weight.grad = g
        contenders[name] = torch.optim.SGD([weight], 0.01, 0.9, weight_decay=0.0005, **how).step
    return figure(f"update of {WEIGHTS:,} weights", contenders, options, 20 * WEIGHTS, w)


def pair(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    x, grad = ((torch.randn(shape) * 40).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    return x.requires_grad_(), grad


def both(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(x), x, grad)


def named(dtype: torch.dtype, layout: torch.memory_format) -> str:
    return f"{str(dtype).split('.')[1]} {'channels-last' if layout == torch.channels_last else 'contiguous'}"


def figure(
    name: str, contenders: dict[str, Callable[[], object]], options: argparse.Namespace, bytes_moved: int, like: Tensor
) -> dict[str, Any]:
    """Time all contenders and a copy in turns, after one untimed round."""
    source, target = like.detach(), torch.empty_like(like)
    turns = {**contenders, "copy": lambda: target.copy_(source)}
    times: dict[str, list[float]] = {contender: [] for contender in turns}
    for turn in range(options.runs + 1):
        for contender, call in turns.items():
            start = time.perf_counter()
            call()
            if turn:
                times[contender].append((time.perf_counter() - start) * 1e3)
    median = {contender: statistics.median(t) for contender, t in times.items()}
    limit = bytes_moved / (2 * source.nbytes) * median.pop("copy")
    first, *others = contenders
    return {
        "name": name if first == "ours" else f"{name} ({first}; no native library)",
        "value": round(median[first], 2),
        "unit": "ms",
        "spread": [round(min(times[first]), 2), round(max(times[first]), 2)],
        "n": options.runs,
        "peers": {other: round(median[other], 2) for other in others},
        "ratio": round(median[others[0]] / median[first], 2),
        "limit": round(limit, 2),
        "limit_fraction": round(limit / median[first], 3),
    }


def tell(options: argparse.Namespace, entry: dict[str, Any]) -> None:
    peers = "  ".join(f"{peer} {value:.0f}" for peer, value in entry["peers"].items())
    line = f"{entry['name']:52} {entry['value']:8.1f} ms [{entry['spread'][0]:.1f} {entry['spread'][1]:.1f}]"
    line += f"  x{entry['ratio']:.1f}  limit {entry['limit']:.1f} ({entry['limit_fraction']:.0%})  peers: {peers}"
    print(line, file=sys.stderr if options.json else sys.stdout, flush=True)


def hardware() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    return {**found, "native": "yes" if build.library() is not None else "no"}


if __name__ == "__main__":
    main()
