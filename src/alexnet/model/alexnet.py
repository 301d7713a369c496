"""The one builder: a description becomes a torch module with named taps.

Shapes: `N` batch, `C` kernel maps, `H W` rows and columns, `K` values under a kernel, `L` positions, `U` units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import architecture
from alexnet.architecture import LayerShape, Network
from alexnet.model import conv
from alexnet.model.lrn import LRN, MapNorm
from alexnet.model.pool import MaxPool2d


class Conv2d(nn.Conv2d):
    """A convolution; with `ceil` zeros past the right and bottom edges complete its last window (2012 source)."""

    def __init__(self, maps: int, kernels: int, size: int, stride: int, pad: int, groups: int, ceil: bool) -> None:
        super().__init__(maps, kernels, size, stride, pad, groups=groups)
        self.size, self.step, self.pad, self.ceil = size, stride, pad, ceil

    def forward(self, maps: Tensor, relu: bool = False) -> Tensor:
        """(N, C, H, W) → (N, kernels, 1+ceil((2·pad+H−size)/stride), …), rectified where `relu`."""
        down, right = ((-(side + 2 * self.pad - self.size) % self.step if self.ceil else 0) for side in maps.shape[2:])
        if conv.suits(maps, self.weight):
            window = conv.Window(self.size, self.step, (self.pad, self.pad + down, self.pad, self.pad + right))
            return conv.conv2d(maps, self.weight, self.get_parameter("bias"), window, self.groups, relu)
        if down or right:
            maps = F.pad(maps, (0, right, 0, down))
        out = super().forward(maps)
        return F.relu(out, inplace=True) if relu else out


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
        patches = F.unfold(maps, self.size, padding=self.pad)  # (N, K, L)
        weight = self.weight.to(patches.dtype)
        out = torch.bmm(patches.permute(2, 0, 1), weight) + self.bias.to(patches.dtype)[:, None]  # (L, N, kernels)
        return out.permute(1, 2, 0).reshape(-1, self.kernels, *self.sides)


class AlexNet(nn.Module):
    """The network that a description says, layer by layer, each a submodule under its own name.

    Input: float (N, 3, image, image), centred RGB in 0..255 units. Output: logits (N, classes).
    """

    def __init__(self, network: Network, seed: int | None = 0) -> None:
        """Build, and initialise unless `seed` is None: then the weights are undefined until some are loaded.

        Raises ValueError naming the layer that does not fit its input.
        """
        super().__init__()
        self.network = network
        self.shapes = architecture.infer_shapes(network)
        self._follows = {
            one.layer.name: two.layer.name
            for one, two in pairwise(self.shapes)
            if isinstance(one.layer, architecture.Conv) and isinstance(two.layer, architecture.Activation)
        }
        with torch.device("meta"):  # no weights are drawn twice
            for entry in self.shapes:
                self.add_module(entry.layer.name, _module(network, entry))
        _allocate(self)
        if seed is not None:
            initialise(self, seed)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) → logits (N, classes). Raises ValueError for another shape or a whole-number dtype."""
        check_images(images, self.network.image)
        x = images
        for part in self.parts():
            x = self.compute(part, x)
        return x

    def parts(self) -> list[tuple[LayerShape, ...]]:
        """The layers as `forward` computes them: each alone, but a convolution with the ReLU that follows it.

        They are computed apart where a hook watches between them.
        """
        parts: list[tuple[LayerShape, ...]] = []
        for entry in self.shapes:
            if parts and self._rectifies(parts[-1], entry):
                parts[-1] = (*parts[-1], entry)
            else:
                parts.append((entry,))
        return parts

    def compute(self, part: tuple[LayerShape, ...], x: Tensor) -> Tensor:
        """Forward through one of `parts()`."""
        if len(part) == 1:
            return self._step(part[0], x)
        return self.get_submodule(part[0].layer.name)(x, relu=True)

    def _rectifies(self, part: tuple[LayerShape, ...], entry: LayerShape) -> bool:
        """Whether `entry` is the ReLU that the convolution before it can do in its own pass."""
        if len(part) != 1 or self._follows.get(part[0].layer.name) != entry.layer.name:
            return False
        first, second = self.get_submodule(part[0].layer.name), self.get_submodule(entry.layer.name)
        watched = first._forward_hooks or first._backward_hooks or second._forward_hooks or second._forward_pre_hooks
        return isinstance(second, nn.ReLU) and not watched and not second._backward_hooks

    def _step(self, entry: LayerShape, x: Tensor) -> Tensor:
        if x.dim() == 4 and len(entry.shape) == 1:
            x = x.flatten(1)  # column by column, then map, row, column of the map
        return self.get_submodule(entry.layer.name)(x)

    @torch.no_grad()
    def taps(self, images: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Every named activation for a batch, as copies, computed as at test time (dropout off).

        images: float (N, 3, image, image). Returns name → (N, C, H, W) or (N, units); `names` limits what is kept.
        Raises ValueError for a wrong input or a name the network does not have.
        """
        check_images(images, self.network.image)
        wanted = known_taps(names, [entry.name for entry in self.shapes])
        out: dict[str, Tensor] = {}
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            x = images
            for entry in self.shapes:
                x = self._step(entry, x)
                if entry.name in wanted:
                    out[entry.name] = x.clone()
                if len(out) == len(wanted):
                    break
        finally:
            for module, mode in modes.items():
                module.training = mode
        return out


def known_taps(names: Iterable[str] | None, known: list[str]) -> set[str]:
    """The names wanted, all when None. Raises ValueError for one that does not exist."""
    wanted = set(known if names is None else names)
    if unknown := wanted - set(known):
        raise ValueError(f"the network has no tap {sorted(unknown)[0]!r}; it has {', '.join(known)}")
    return wanted


def check_images(images: Tensor, side: int) -> None:
    """Raise ValueError unless `images` is float (N, 3, side, side)."""
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] != side or images.shape[3] != side:
        raise ValueError(f"images of shape {tuple(images.shape)} should be (N, 3, {side}, {side})")
    if not images.is_floating_point():
        raise ValueError(f"images of dtype {images.dtype} should be floating: centred RGB in 0..255 units")


def _module(network: Network, entry: LayerShape) -> nn.Module:
    layer, inputs = entry.layer, entry.inputs
    match layer:
        case architecture.Conv():
            return Conv2d(
                inputs[0],
                layer.kernels,
                layer.size,
                layer.stride,
                layer.pad,
                architecture.groups(network, layer),
                layer.ceil,
            )
        case architecture.Local():
            return Local2d(inputs[0], layer.kernels, layer.size, layer.pad, (entry.shape[1], entry.shape[2]))
        case architecture.Full():
            return nn.Linear(math.prod(inputs), entry.shape[0])
        case architecture.Activation():
            return nn.ReLU(inplace=True) if network.activation == "relu" else nn.Tanh()
        case architecture.LRN():
            return LRN(layer.size, layer.alpha, layer.beta, layer.k, architecture.groups(network, layer), layer.divide)
        case architecture.MapNorm():
            return MapNorm(layer.size, layer.alpha, layer.beta, layer.k, layer.divide)
        case architecture.Pool(kind="max"):
            return MaxPool2d(layer.size, layer.stride, ceil_mode=layer.ceil)
        case architecture.Pool():
            return nn.AvgPool2d(layer.size, layer.stride, ceil_mode=layer.ceil, count_include_pad=False)
        case architecture.Dropout():
            return nn.Dropout(layer.rate)


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
