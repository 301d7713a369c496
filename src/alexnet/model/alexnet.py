"""The one builder: a description becomes a torch module with named taps.

Shapes: `N` batch, `C` kernel maps, `H W` rows and columns, `K` values under a kernel, `L` positions, `U` units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import architecture
from alexnet.architecture import LayerShape, Network
from alexnet.model.conv import Conv2d
from alexnet.model.dropout import KeyedDropout
from alexnet.model.linear import Linear
from alexnet.model.lrn import LRN, MapNorm
from alexnet.model.native import emulate_bfloat16, emulates_bfloat16
from alexnet.model.net import Net, known_taps
from alexnet.model.pool import AvgPool2d, MaxPool2d


class Local2d(nn.Module):
    """A locally-connected layer: a convolution whose kernels differ from position to position (stride 1)."""

    def __init__(self, maps: int, kernels: int, size: int, pad: int, sides: tuple[int, int]) -> None:
        super().__init__()
        self.kernels, self.size, self.pad, self.sides = kernels, size, pad, sides
        places = sides[0] * sides[1]
        self.weight = nn.Parameter(torch.empty(places, maps * size * size, kernels))  # (L, K, kernels)
        self.bias = nn.Parameter(torch.empty(places, kernels))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) → (N, kernels, H', W')."""
        if emulates_bfloat16(maps):
            return emulate_bfloat16(self._products, maps, self.weight, self.bias)
        return self._products(maps, self.weight, self.bias)

    def _products(self, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        patches = F.unfold(maps, self.size, padding=self.pad)  # (N, K, L)
        out = torch.bmm(patches.permute(2, 0, 1), weight.to(patches.dtype))  # (L, N, kernels)
        out = out + bias.to(out.dtype)[:, None]
        return out.permute(1, 2, 0).reshape(-1, self.kernels, *self.sides)


class AlexNet(Net):
    """The network that a description says, layer by layer, each a submodule under its own name.

    Activations are read by `taps`: a hook on a convolution sees what it passes on, which is already rectified.
    """

    def __init__(self, network: Network, seed: int | None = 0) -> None:
        """Build, and initialise unless `seed` is None: then the weights are undefined until some are loaded.

        Raises ValueError naming the layer that does not fit its input.
        """
        super().__init__()
        self.network = network
        self.shapes = architecture.infer_shapes(network)
        with torch.device("meta"):  # no weights are drawn twice
            for entry in self.shapes:
                self.add_module(entry.layer.name, _module(network, entry))
        _allocate(self)
        if seed is not None:
            initialise(self, seed)
        self.to(memory_format=torch.channels_last)
        self.fused_layers = _fused(network, self.shapes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) → logits (N, classes). Raises UsageError for another shape or a whole-number dtype."""
        self.check_images(images)
        x = images
        for layers in self.fused_layers:
            x = self.apply_layers(layers, x)
        return x

    def apply_layers(self, layers: tuple[LayerShape, ...], x: Tensor) -> Tensor:
        """Forward through one of `fused_layers`: a layer, or a convolution that does the following ReLU too.

        Outside training the last layer is float32 under autocast too: logits rounded to bfloat16 are often equal, and
        which of several equal ones is the largest is chance.
        """
        if x.dim() == 4 and len(layers[0].shape) == 1:
            x = x.flatten(1)  # column by column, then map, row, column of the map
        module = self.get_submodule(layers[0].layer.name)
        options = {"relu": True} if len(layers) > 1 else {}
        if layers[-1] is self.shapes[-1] and not self.training and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return module(x.float(), **options)
        return module(x, **options)

    @torch.no_grad()
    def taps(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Every named activation, (N, C, H, W) or (N, units); see `Net.taps`."""
        self.check_images(images)
        wanted = known_taps(names, [entry.name for entry in self.shapes])
        out: dict[str, Tensor] = {}
        x = images
        for fused in self.fused_layers:
            apart = fused[0].name in wanted
            for layers in ((layer,) for layer in fused) if apart else (fused,):
                if not isinstance(layers[0].layer, architecture.Dropout):
                    x = self.apply_layers(layers, x)
                if layers[-1].name in wanted:
                    out[layers[-1].name] = x.clone()
            if len(out) == len(wanted):
                break
        return out


def _fused(network: Network, shapes: list[LayerShape]) -> list[tuple[LayerShape, ...]]:
    """The layers as `forward` computes them: each alone, but a convolution together with the ReLU that follows it."""
    groups: list[tuple[LayerShape, ...]] = []
    for entry in shapes:
        rectifies = network.activation == "relu" and isinstance(entry.layer, architecture.Activation)
        if rectifies and groups and isinstance(groups[-1][-1].layer, architecture.Conv):
            groups[-1] = (*groups[-1], entry)
        else:
            groups.append((entry,))
    return groups


def _module(network: Network, entry: LayerShape) -> nn.Module:
    layer, inputs = entry.layer, entry.inputs
    match layer:
        case architecture.Conv():
            groups = architecture.groups(network, layer)
            return Conv2d(inputs[0], layer.kernels, layer.size, layer.stride, layer.pad, groups, layer.ceil)
        case architecture.Local():
            return Local2d(inputs[0], layer.kernels, layer.size, layer.pad, (entry.shape[1], entry.shape[2]))
        case architecture.Full():
            return Linear(math.prod(inputs), entry.shape[0])
        case architecture.Activation():
            return nn.ReLU(inplace=True) if network.activation == "relu" else nn.Tanh()
        case architecture.LRN():
            return LRN(layer.size, layer.alpha, layer.beta, layer.k, architecture.groups(network, layer), layer.divide)
        case architecture.MapNorm():
            return MapNorm(layer.size, layer.alpha, layer.beta, layer.k, layer.divide)
        case architecture.Pool(kind="max"):
            return MaxPool2d(layer.size, layer.stride, ceil_mode=layer.ceil)
        case architecture.Pool():
            return AvgPool2d(layer.size, layer.stride, ceil_mode=layer.ceil)
        case architecture.Dropout():
            return KeyedDropout(layer.rate, layer.name)


def _allocate(model: nn.Module) -> None:
    """Real parameters, undefined, for those without storage; `to_empty` imports a second's worth of torch for it."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape)))


@torch.no_grad()
def initialise(model: AlexNet, seed: int) -> None:
    """Draw the initial weights as described: N(0, std), constant biases. A pure function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    for entry in model.shapes:
        layer = entry.layer
        if not isinstance(layer, architecture.Conv | architecture.Local | architecture.Full):
            continue
        module = model.get_submodule(layer.name)
        weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
        if layer.std is None:
            bound = 1 / math.sqrt(weight[0].numel())
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
            bias.copy_(torch.empty(bias.shape).uniform_(-bound, bound, generator=generator))
        else:
            weight.copy_(torch.empty(weight.shape).normal_(0, layer.std, generator=generator))
            bias.fill_(layer.bias)
