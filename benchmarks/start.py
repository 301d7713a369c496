"""How soon a fresh process predicts: what `benchmarks.predict` starts, once for each turn and way.

    python -m benchmarks.start engine runs/first

Nothing is imported here that the way does not need itself: the engine predicts without torch.
"""

from __future__ import annotations

import time

entered = time.perf_counter()

import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks.timing import Call  # noqa: E402

STAGES = ("import and load", "first call", "warm call")


def one_start(way: str, run: str) -> dict[str, float]:
    """Load, call and call again in this process; `way` is a backend or torchvision's network."""
    began = time.perf_counter()
    call = torchvisions(way) if way.startswith("torchvision") else ours(way, run)
    loaded = time.perf_counter()
    call()
    first = time.perf_counter()
    for _ in range(5):
        call()
    warm = statistics.median(_timed(call) for _ in range(7))
    return dict(zip(STAGES, (loaded - began, first - loaded, warm), strict=True))


def ours(backend: str, run: str) -> Call:
    """A run's predictor, called with one square."""
    from alexnet.inference.load import load

    net = load(run, backend=backend)
    square = np.zeros((1, net.size, net.size, 3), np.uint8)
    return lambda: net.probabilities(square, 1)


def torchvisions(way: str) -> Call:
    """torchvision's network with random weights, called with one view."""
    import torch
    from torchvision.models import alexnet

    net = alexnet(weights=None).eval()
    model, view = torch.compile(net) if way.endswith("compiled") else net, torch.zeros(1, 3, 224, 224)

    def call() -> object:
        with torch.inference_mode():
            return model(view)

    return call


def _timed(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    answer = one_start(sys.argv[1], sys.argv[2])
    print(json.dumps({**answer, "inside": time.perf_counter() - entered}))
