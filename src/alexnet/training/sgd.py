"""The paper's update rule (§5) by torch's fused one, and the parameter groups it works on.

v ← m·v − decay·lr·w − lr·∂L/∂w,   w ← w + v

torch keeps lr outside (b ← m·b + decay·w + ∂L/∂w, w ← w − lr·b): v is −lr·b, and the two agree as long as lr stays.
Where it changes to lr', the paper's velocity fades by m and torch's jumps by lr'/lr; so the buffer is multiplied by
lr/lr' before the first step with lr', which makes them equal again up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from alexnet.architecture import Conv, Full, Local, Network
from alexnet.config import Optimizer
from alexnet.errors import CheckpointError, UsageError
from alexnet.training.parallel import unwrap


class SGD(torch.optim.SGD):
    """SGD with momentum and decay as the paper writes it; groups may differ in `lr`, `momentum` and `weight_decay`.

    A group whose `lr` is 0 is frozen: neither its weights nor its velocities change. With `capturable` the learning
    rates lie on the weights' device too, as float32, so that a CUDA graph of `update` follows them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        capturable: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        self.capturable = capturable
        self._lrs: dict[int, tuple[Tensor, float]] = {}  # on the device, and what it holds, by the place of the group

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; gradients of frozen groups are dropped."""
        self.follow()
        self.update()

    @torch.no_grad()
    def follow(self) -> None:
        """Bring velocities, and the learning rates on the device, to the `lr` of the update to come."""
        for place, group in enumerate(self.param_groups):
            lr, weights = group["lr"], group["params"]
            if lr == 0:
                continue
            for weight in weights:
                state = self.state[weight]
                if state.get("momentum_buffer") is not None and state["lr"] != lr:
                    state["momentum_buffer"].mul_(state["lr"] / lr)
                state["lr"] = lr
            if self.capturable:
                held, value = self._lrs.get(place) or (torch.empty((), device=weights[0].device), 0.0)
                self._lrs[place] = held if value == lr else held.fill_(lr), lr

    @torch.no_grad()
    def update(self) -> None:
        """The update after `follow`: all of it is work of the weights' device, in the same memory each time."""
        for place, group in enumerate(self.param_groups):
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["lr"] == 0:
                for weight in weights:
                    weight.grad = None
                continue
            buffers = [self.state[weight].get("momentum_buffer") for weight in weights] if group["momentum"] else []
            sgd(
                weights,
                [like(weight.grad, weight) for weight in weights],
                buffers,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=self._lrs[place][0] if self.capturable else group["lr"],
                dampening=0,
                nesterov=False,
                maximize=False,
                fused=True,
            )
            for weight, buffer in zip(weights, buffers, strict=False):
                self.state[weight]["momentum_buffer"] = buffer

    def velocities(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """By parameter name: buffers b, the paper's velocity divided by −lr, and the lr each of them stands for."""
        buffers, lrs = {}, {}
        for group in self.param_groups:
            state = self.state.get(group["params"][0], {})
            if state.get("momentum_buffer") is not None:
                buffers[group["name"]], lrs[group["name"]] = state["momentum_buffer"], state["lr"]
        return buffers, lrs

    def load_velocities(self, buffers: dict[str, Tensor], lrs: dict[str, float], origin: str) -> None:
        """Continue from what `velocities` returned.

        Raises CheckpointError naming the first that fits no parameter in name, shape and dtype or is not finite.
        """
        weights = {group["name"]: group["params"][0] for group in self.param_groups}
        for name in sorted(buffers.keys() | lrs.keys()):
            if name not in weights:
                raise CheckpointError(f"{origin} has a velocity of {name}, which this network does not have")
            if name not in buffers or name not in lrs:
                raise CheckpointError(
                    f"{origin} has no {'velocity' if name not in buffers else 'velocity_lr'} of {name}"
                )
            if lrs[name] <= 0:
                raise CheckpointError(f"{origin}: velocity_lr.{name} {lrs[name]} should be above 0")
            ours = weights[name]
            for what, has, needs in (
                ("shape", tuple(buffers[name].shape), tuple(ours.shape)),
                ("dtype", buffers[name].dtype, ours.dtype),
            ):
                if has != needs:
                    raise CheckpointError(f"{origin}: the velocity of {name} has {what} {has}, its weights {needs}")
            if not buffers[name].isfinite().all():
                raise CheckpointError(f"{origin}: the velocity of {name} has values that are not finite")
        for name, buffer in buffers.items():
            weight = weights[name]
            self.state[weight] = {
                "momentum_buffer": torch.empty_like(weight).copy_(buffer).detach(),
                "lr": lrs[name],
            }


def layer_of(parameter: str) -> str:
    """The layer, or the module of another library's network, that a parameter is called after."""
    return parameter.removeprefix("body.").rpartition(".")[0]


def like(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient with its elements in the weight's order of memory, which the fused update takes for granted."""
    if _order(grad) == _order(weight):
        return grad
    return torch.empty_like(weight).copy_(grad)


def _order(t: Tensor) -> list[int]:
    return [stride for stride, length in zip(t.stride(), t.shape, strict=True) if length > 1]


def parameter_groups(model: nn.Module, network: Network, settings: Optimizer) -> list[dict[str, Any]]:
    """One group per tensor, with its layer, kind (weight or bias), momentum and decay; LRSchedule sets its `lr`.

    Names are those of the model without its wrappers. Raises UsageError where they are not those of the network, so
    that no layer's decay or learning rate is lost.
    """
    decays = {layer.name: layer.decay for layer in network.layers if isinstance(layer, Conv | Local | Full)}
    parameters = dict(unwrap(model).named_parameters())
    wanted = {f"{layer}.{kind}" for layer in decays for kind in ("weight", "bias")}
    if not network.library and wanted != parameters.keys():
        name = min(wanted ^ parameters.keys())
        raise UsageError(f"the model's parameters are not those of {network.name}: {name} is in only one of them")
    groups = []
    for name, parameter in parameters.items():
        layer = layer_of(name)
        bias = name.endswith("bias")
        own = decays.get(layer)
        decay = settings.weight_decay if own is None else own
        groups.append(
            {
                "params": [parameter],
                "name": name,
                "layer": layer,
                "kind": "bias" if bias else "weight",
                "momentum": settings.momentum,
                "weight_decay": decay * (settings.bias_decay if bias else 1.0),
            }
        )
    return groups
