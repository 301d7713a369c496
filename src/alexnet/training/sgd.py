"""The paper's update rule (§5), with the rate inside the velocity.

v ← m·v − decay·ε·w − ε·∂L/∂w,   w ← w + v

`torch.optim.SGD` keeps ε outside (v ← m·v + g, w ← w − ε·v): after a drop of ε it shrinks the whole velocity at once,
while here the old velocity fades by m. The two agree until ε changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from alexnet.architecture import Conv, Full, Local, Network
from alexnet.config import Optimizer


class SGD(torch.optim.Optimizer):
    """SGD with momentum and decay as the paper writes it; groups may differ in `lr`, `momentum` and `weight_decay`."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("the paper's rule takes no closure; call backward() before step()")
        for group in self.param_groups:
            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            if group.get("frozen"):
                continue
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(weight)
                velocity = state["velocity"]
                velocity.mul_(momentum).add_(weight, alpha=-decay * lr).add_(weight.grad, alpha=-lr)
                weight.add_(velocity)


def parameter_groups(model: nn.Module, network: Network, settings: Optimizer) -> list[dict[str, Any]]:
    """One group a tensor, with its rate and decay; `name` is the parameter's, `kind` weight or bias."""
    decays = {layer.name: layer.decay for layer in network.layers if isinstance(layer, Conv | Local | Full)}
    groups = []
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        bias = name.endswith("bias")
        decay = decays.get(layer)
        decay = settings.weight_decay if decay is None else decay
        groups.append(
            {
                "params": [parameter],
                "name": name,
                "layer": layer,
                "kind": "bias" if bias else "weight",
                "lr": settings.lr * (settings.bias_lr if bias else 1.0),
                "momentum": settings.momentum,
                "weight_decay": decay * (settings.bias_decay if bias else 1.0),
            }
        )
    return groups
