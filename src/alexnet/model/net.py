"""What every network has, whoever builds it: its description, logits, named activations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from alexnet.architecture import Network
from alexnet.errors import UsageError


class Net(nn.Module):
    """A network for images: float (N, 3, image, image), centred RGB in 0..255 units → logits (N, classes)."""

    network: Network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) → logits (N, classes). Raises UsageError for another shape or a whole-number dtype."""
        raise NotImplementedError

    def taps(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Every named activation for a batch, as copies, computed as at test time (dropout off); N first.

        `names` limits what is kept. The network is left as it is, so that several threads may call this at once.
        Raises UsageError for a wrong input or a name the network does not have.
        """
        raise NotImplementedError

    def check_images(self, images: Tensor) -> None:
        """Raise UsageError unless `images` is float (N, 3, image, image)."""
        side = self.network.image
        if images.dim() != 4 or images.shape[1:] != torch.Size((3, side, side)):
            raise UsageError(f"images of shape {tuple(images.shape)} should be (N, 3, {side}, {side})")
        if not images.is_floating_point():
            raise UsageError(f"images of dtype {images.dtype} should be floating: centred RGB in 0..255 units")


def known_taps(names: Iterable[str] | None, known: list[str]) -> set[str]:
    """The names wanted, all when None. Raises UsageError for one that does not exist."""
    wanted = set(known if names is None else names)
    if unknown := wanted - set(known):
        raise UsageError(f"the network has no tap {sorted(unknown)[0]!r}; it has {', '.join(known)}")
    return wanted
