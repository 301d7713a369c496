"""Models by name: the presets, and any torchvision classifier as `torchvision:NAME`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from alexnet import presets
from alexnet.architecture import Network, hidden_layer
from alexnet.errors import nearest
from alexnet.model.alexnet import AlexNet, check_images, known_taps


def create_model(name: str, num_classes: int | None = None, activation: str | None = None, seed: int = 0) -> nn.Module:
    """A fresh, initialised network: `create_model("paper", num_classes=1000)`.

    The model takes float (N, 3, image, image), centred RGB in 0..255 units, and returns logits (N, num_classes).
    Raises ValueError for an unknown name (naming the nearest), class count or activation.
    """
    return build(presets.preset(name, num_classes, activation).network, seed)


def build(network: Network, seed: int | None = 0) -> AlexNet | LibraryNet:
    """The model of a description; its initial weights are a pure function of the seed.

    With None, for a model whose weights are loaded next, none may be drawn and they are undefined.
    """
    return LibraryNet(network, seed or 0) if network.library else AlexNet(network, seed)


class LibraryNet(nn.Module):
    """A torchvision classifier with the interface of `AlexNet`; its taps are its leaf modules, by dotted names."""

    def __init__(self, network: Network, seed: int = 0) -> None:
        """Raises ValueError for a name torchvision does not have as a classifier."""
        super().__init__()
        from torchvision import models

        self.network = network
        library, _, name = network.name.partition(":")
        known = models.list_models(module=models)
        if library != "torchvision" or name not in known:
            raise ValueError(f"torchvision has no classifier {name!r}{nearest(name, known)}")
        extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if extra:
            extra["aux_logits"] = False
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = models.get_model(name, weights=None, num_classes=network.classes, **extra)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) → logits (N, classes). Raises ValueError for another shape or a whole-number dtype."""
        check_images(images, self.network.image)
        return self.body(images)

    @torch.no_grad()
    def taps(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The output of each leaf module (and `hidden`, the last one's input) at test time, as copies; N first."""
        leaves = {name: module for name, module in self.body.named_modules() if not list(module.children())}
        wanted = known_taps(names, [*leaves, "hidden"])
        out: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                out[name] = output.clone()

            return hook

        def keep_input(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            out["hidden"] = inputs[0].clone()

        handles = [module.register_forward_hook(keep(name)) for name, module in leaves.items() if name in wanted]
        if "hidden" in wanted:
            last = [module for module in leaves.values() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
            handles.append(last.register_forward_hook(keep_input))
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            self(images)
        finally:
            for module, mode in modes.items():
                module.training = mode
            for handle in handles:
                handle.remove()
        return out


def hidden_tap(model: AlexNet | LibraryNet) -> str:
    """The tap of the last hidden layer, whose activations make the paper's image search (§6.1)."""
    return "hidden" if isinstance(model, LibraryNet) else hidden_layer(model.network)


Net = AlexNet | LibraryNet
