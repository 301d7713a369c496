"""A network in torch: the specification of what prediction computes, on the CPU or a GPU.

Shapes: `N` images, `S` side of a square, `V` of a view.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.data.views import View
from alexnet.device import autocast
from alexnet.model.net import Net

VIEWS_AT_ONCE = 64  # beyond this a larger batch is no faster, only larger


class TorchBackend:
    """See `backends.Backend`; bfloat16 is the arithmetic of a training run of that precision."""

    def __init__(
        self,
        model: Net,
        mean: NDArray[np.float32] | None = None,
        scale: NDArray[np.float32] | None = None,
        precision: str = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        """mean: (S, S, 3), subtracted from squares; scale: (3,), what the difference is multiplied by."""
        self.device, self.precision = torch.device(device), precision
        self.model = model.to(self.device).eval()
        self.side = model.network.image
        self.rounded = _rounded(self.model) if precision == "bfloat16" else self.model
        self.mean, self.scale = (
            None if value is None else torch.from_numpy(np.array(value, np.float32)).to(self.device)
            for value in (mean, scale)
        )

    def logits(self, squares: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        """See `Backend.logits`; several views of few images go through the network together."""
        images = self._images(squares)
        n, out = len(images), []
        together = max(1, VIEWS_AT_ONCE // max(1, n))
        with torch.inference_mode(), autocast(self.precision, self.device):
            for first in range(0, len(views) if n else 0, together):
                some = torch.cat([self.view(images, *place) for place in views[first : first + together]])
                out.append(self.rounded(some).float().cpu().numpy())
        shape = (len(views), n, self.model.network.classes)
        return np.concatenate(out).reshape(shape) if out else np.empty(shape, np.float32)

    def taps(
        self, squares: NDArray[np.uint8], view: View, names: Iterable[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """See `Backend.taps`."""
        with autocast(self.precision, self.device):
            taps = self.rounded.taps(self.view(self._images(squares), *view), names)
        return {name: np.ascontiguousarray(value.float().cpu().numpy()) for name, value in taps.items()}

    def view(self, images: Tensor, top: int, left: int, mirror: bool) -> Tensor:
        """uint8 (N, S, S, 3) on the device → a view as the network takes it, float (N, 3, V, V)."""
        place = slice(top, top + self.side), slice(left, left + self.side)
        pixels = images[:, place[0], place[1]].float()
        pixels = pixels if self.mean is None else pixels - self.mean[place]
        pixels = pixels if self.scale is None else pixels * self.scale
        return (pixels.flip(2) if mirror else pixels).permute(0, 3, 1, 2)  # the layout stays channels-last

    def _images(self, squares: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.require(squares, requirements=["C", "W"])).to(self.device)


def _rounded(model: Net) -> Net:
    """A copy whose kernels are bfloat16 already: autocast would round all of them again for every batch.

    The last one's are not: its outputs are computed in float32.
    """
    model = copy.deepcopy(model)
    *layers, _ = (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    for module in layers:  # their biases stay: the engine adds them unrounded
        module.weight.data = module.weight.data.bfloat16()
    return model
