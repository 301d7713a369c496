"""Models by name: the presets, and any torchvision classifier as `torchvision:NAME`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from alexnet import presets
from alexnet.architecture import Network
from alexnet.errors import UsageError, suggestion
from alexnet.model.alexnet import AlexNet, Linear
from alexnet.model.dropout import KeyedDropout
from alexnet.model.native import emulate_bfloat16, emulates_bfloat16
from alexnet.model.net import Net, known_taps


def create_model(name: str, num_classes: int | None = None, activation: str | None = None, seed: int = 0) -> Net:
    """A fresh, initialised network: `create_model("paper", num_classes=1000)`.

    The model takes float (N, 3, image, image), centred RGB in 0..255 units, and returns logits (N, num_classes).
    Raises UsageError for an unknown name (naming the nearest), class count or activation.
    """
    return build(presets.preset(name, num_classes, activation).network, seed)


def build(network: Network, seed: int | None = 0) -> Net:
    """The model of a description; its initial weights are a pure function of the seed.

    With None, for a model whose weights are loaded next, none may be drawn and they are undefined.
    """
    return LibraryNet(network, seed or 0) if network.library else AlexNet(network, seed)


def blank(network: Network) -> Net:
    """The model of a description without values, on the device `meta`: for its names and shapes, at no cost.

    Raises UsageError for one that no memory holds.
    """
    try:
        with torch.device("meta"):
            return build(network, None)
    except (RuntimeError, OverflowError, TypeError):  # as torch says it of sizes beyond 64 bits
        raise UsageError(f"the network {network.name} is too large for any memory") from None


class LibraryConv2d(nn.Conv2d):
    """A torchvision network's convolution."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if emulates_bfloat16(input):
            return emulate_bfloat16(super()._conv_forward, input, weight, bias)
        return super()._conv_forward(input, weight, bias)


class LibraryNet(Net):
    """A torchvision classifier; its taps are its leaf modules, by dotted names, and `hidden`, the last one's input."""

    def __init__(self, network: Network, seed: int = 0) -> None:
        """Raises UsageError for a name torchvision does not have as a classifier."""
        super().__init__()
        from torchvision import models

        self.network = network
        library, _, name = network.name.partition(":")
        known = models.list_models(module=models)
        if library != "torchvision" or name not in known:
            raise UsageError(f"torchvision has no classifier {name!r}{suggestion(name, known)}")
        extra = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = models.get_model(name, weights=None, num_classes=network.classes, **extra)
        for path, module in list(self.body.named_modules()):
            if type(module) is nn.Dropout:
                self.body.set_submodule(path, KeyedDropout(module.p, path))
            elif type(module) in (nn.Conv2d, nn.Linear):  # the same, fast in bfloat16 where it has to be emulated
                module.__class__ = LibraryConv2d if type(module) is nn.Conv2d else Linear
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) → logits (N, classes). Raises UsageError for another shape or a whole-number dtype."""
        self.check_images(images)
        return self.body(images)

    @torch.no_grad()
    def taps(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The output of each leaf module and `hidden`, the last one's input; see `Net.taps`."""
        self.check_images(images)
        tensors = itertools.chain(self.body.parameters(), self.body.buffers())
        twin = copy.deepcopy(self.body, {id(tensor): tensor for tensor in tensors}).eval()  # of the same tensors
        leaves = {name: module for name, module in twin.named_modules() if not list(module.children())}
        wanted = known_taps(names, [*leaves, "hidden"])
        out: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                out[name] = output.clone()

            return hook

        def keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            out["hidden"] = inputs[0].clone()

        for name in wanted & leaves.keys():
            leaves[name].register_forward_hook(keep(name))
        if "hidden" in wanted:
            last = [module for module in leaves.values() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
            last.register_forward_pre_hook(keep_input)
        twin(images)
        return out
