"""What computes a network's logits and taps: the engine on the CPU, or torch, and the choice between them.

The torch model is the specification, and all there is on a GPU and for the networks of torchvision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet.data.views import View
from alexnet.device import check_device, choose_device, has_gpu_driver
from alexnet.errors import MissingLibrary, UsageError, suggestion

BACKENDS = {"engine": ("float32", "bfloat16", "int8"), "torch": ("float32", "bfloat16")}
PRECISIONS = BACKENDS["engine"]


class Backend(Protocol):
    """A network's logits and taps at test time, of uint8 squares (N, S, S, 3). Safe to use from several threads."""

    def logits(self, squares: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        """Of each view of each square: (views, N, classes)."""

    def taps(
        self, squares: NDArray[np.uint8], view: View, names: Iterable[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Named activations of one view, (N, C, H, W) or (N, units). Raises UsageError for a name that is not known."""


def choose(backend: str | None, precision: str, device: str = "auto", library: bool = False) -> str:
    """The backend to use, `engine` or `torch`: the one asked for, or else the engine wherever it can compute.

    `library` says that torchvision builds the network. With `auto` as the device torch is taken where there is a GPU;
    it is imported only to look for one, and only where there is a driver. Raises UsageError for a name, precision or
    device that does not fit, MissingLibrary where torch is not installed.
    """
    check_device(device)
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} should be one of {', '.join(PRECISIONS)}")
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend {backend!r} should be engine or torch{suggestion(backend, BACKENDS)}")
    gpu = device.startswith("cuda")
    if backend == "engine" and (gpu or library):
        what = f"computes on the CPU; leave --device {device} out" if gpu else "does not compute torchvision's networks"
        raise UsageError(f"the engine {what}, or choose the backend torch")
    if backend is None:
        backend = "torch" if gpu or library or (device == "auto" and precision != "int8" and _has_gpu()) else "engine"
    if precision not in BACKENDS[backend]:
        raise UsageError(f"torch does not compute {precision}; choose the backend engine, float32 or bfloat16")
    if backend == "torch" and not find_spec("torch"):
        raise MissingLibrary("the backend torch needs torch; pip install 'alexnet[train]'")
    if gpu:
        choose_device(device)
    return backend


def _has_gpu() -> bool:
    """Whether torch finds a GPU here."""
    if not has_gpu_driver() or not find_spec("torch"):
        return False
    import torch

    return torch.cuda.is_available()
