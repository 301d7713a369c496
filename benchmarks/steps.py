"""Training steps to compare: ours, and the reference, written with torch.nn and torch.optim alone."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import architecture
from alexnet.architecture import Network
from alexnet.config import Config
from alexnet.errors import UsageError
from alexnet.model.zoo import build
from alexnet.training import step as training
from alexnet.training.sgd import SGD, parameter_groups
from alexnet.training.task import Softmax

Step = Callable[[Tensor, Tensor], Tensor]


class Columns(nn.Module):
    """`nn.LocalResponseNorm` on each column's maps; torch divides alpha by the size, the paper does not."""

    def __init__(self, layer: architecture.LRN, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.norm = nn.LocalResponseNorm(
            layer.size, layer.alpha * (1 if layer.divide else layer.size), layer.beta, layer.k
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) → the same."""
        return torch.cat([self.norm(part) for part in maps.chunk(self.columns, 1)], 1)


def reference(network: Network) -> nn.Sequential:
    """The described network in layers of torch.nn, under our names, so that our weights load.

    Raises UsageError for a layer that torch.nn does not have (locally connected, normalization within maps).
    """
    layers: dict[str, nn.Module] = {}
    for entry in architecture.infer_shapes(network):
        layer = entry.layer
        if isinstance(layer, architecture.Conv):
            past = -(entry.inputs[1] + 2 * layer.pad - layer.size) % layer.stride
            if layer.ceil and past:
                layers[f"{layer.name}_edges"] = nn.ZeroPad2d((0, past, 0, past))
            layers[layer.name] = nn.Conv2d(
                entry.inputs[0],
                layer.kernels,
                layer.size,
                layer.stride,
                layer.pad,
                groups=architecture.groups(network, layer),
            )
        elif isinstance(layer, architecture.Full):
            if len(entry.inputs) == 3:
                layers["flat"] = nn.Flatten()
            units = entry.inputs[0] * (entry.inputs[1] * entry.inputs[2] if len(entry.inputs) == 3 else 1)
            layers[layer.name] = nn.Linear(units, entry.shape[0])
        elif isinstance(layer, architecture.Activation):
            layers[layer.name] = nn.ReLU(inplace=True)
        elif isinstance(layer, architecture.LRN):
            layers[layer.name] = Columns(layer, architecture.groups(network, layer))
        elif isinstance(layer, architecture.Pool):
            kind = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
            layers[layer.name] = kind(layer.size, layer.stride, ceil_mode=layer.ceil)
        elif isinstance(layer, architecture.Dropout):
            layers[layer.name] = nn.Dropout(layer.rate)
        else:
            raise UsageError(f"torch.nn has no layer like {layer.name} of {network.name}")
    return nn.Sequential(OrderedDict(layers))


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, device: str, bfloat16: bool = False) -> Step:
    """One update as the training loop does it: forward, loss, backward, update. Returns the loss."""

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def ours(config: Config, device: str, bfloat16: bool, lr: float, norm: bool = True) -> Step:
    """Our step at a fixed learning rate; without `norm` the LRN layers are left out."""
    network = config.network
    if not norm:
        kept = tuple(layer for layer in network.layers if not isinstance(layer, architecture.LRN))
        network = dataclasses.replace(network, layers=kept)
    model = build(network, config.train.seed).to(device)
    optimizer = SGD(parameter_groups(model, network, config.optimizer), lr)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return make_step(model, optimizer, device, bfloat16)


def trained(
    config: Config, device: str, precision: str, lr: float, compiled: bool = False, graph: bool = False
) -> Step:
    """The step of `alexnet train` on a batch of the same images again and again; with `graph` a CUDA graph of it."""
    model = build(config.network, config.train.seed).to(device).train()
    optimizer = SGD(parameter_groups(model, config.network, config.optimizer), lr, capturable=graph)
    module = torch.compile(model) if compiled else model
    step = training.Step(module, Softmax(), optimizer, config.train.seed, precision)  # type: ignore[arg-type]
    positions: dict[int, Tensor] = {}

    def again(images: Tensor, labels: Tensor) -> Tensor:
        held = positions.setdefault(len(labels), torch.arange(len(labels), device=device))
        return step(images, labels, held, 1, 0)

    return again


def theirs(
    model: nn.Module,
    config: Config,
    device: str,
    lr: float,
    channels_last: bool = False,
    bfloat16: bool = False,
    compiled: bool = False,
) -> Step:
    """A step with torch.optim.SGD, on CUDA its fused one."""
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    settings = config.optimizer
    rule = torch.optim.SGD(
        model.to(device).parameters(),
        lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        fused=device == "cuda" or None,
    )
    return make_step(torch.compile(model) if compiled else model, rule, device, bfloat16)  # type: ignore[arg-type]
