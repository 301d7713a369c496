"""The update rule against the paper's two equations, written out in float64, and where it parts from torch's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet import presets
from alexnet.errors import CheckpointError, UsageError
from alexnet.model.zoo import create_model
from alexnet.training.schedule import LRSchedule
from alexnet.training.sgd import SGD, parameter_groups

START, LATER = 0.01, 0.001
DROP = 6  # the step from which the lower rate holds


def gradients(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, 3, 4))


def rate(step: int) -> float:
    return START if step < DROP else LATER


def by_the_equations(
    w: np.ndarray, grads: np.ndarray, momentum: float = 0.9, decay: float = 0.0005
) -> Iterator[np.ndarray]:
    """v ← 0.9·v − 0.0005·ε·w − ε·∂L/∂w, w ← w + v (§5), with ε divided by ten at `DROP`."""
    v = np.zeros_like(w)
    for step, gradient in enumerate(grads):
        v = momentum * v - decay * rate(step) * w - rate(step) * gradient
        w = w + v
        yield w


def trajectory(optimizer: torch.optim.Optimizer, weight: nn.Parameter, grads: np.ndarray) -> list[Tensor]:
    """The weights after each step, for given gradients and the rates of `rate`."""
    out = []
    for step, gradient in enumerate(grads):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        out.append(weight.detach().clone())
    return out


def start() -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.random.default_rng(9).normal(size=(3, 4))))


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0005), (0.9, 0.0), (0.0, 0.0005), (0.5, 1.0)])
def test_each_step_follows_the_equations_through_a_drop_of_the_rate(momentum: float, decay: float) -> None:
    weight, grads = start(), gradients(14)
    expected = by_the_equations(weight.detach().numpy().copy(), grads, momentum, decay)
    optimizer = SGD([weight], lr=START, momentum=momentum, weight_decay=decay)
    for step, (ours, theirs) in enumerate(zip(trajectory(optimizer, weight, grads), expected, strict=True)):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-13, atol=1e-15, err_msg=f"step {step}")


def test_torchs_rule_agrees_until_the_rate_drops_and_parts_there() -> None:
    grads = gradients(DROP + 3)
    mine, theirs = start(), start()
    ours = trajectory(SGD([mine], lr=START, momentum=0.9, weight_decay=0.0005), mine, grads)
    torchs = trajectory(torch.optim.SGD([theirs], lr=START, momentum=0.9, weight_decay=0.0005), theirs, grads)
    for step in range(DROP):
        torch.testing.assert_close(ours[step], torchs[step], rtol=1e-12, atol=1e-14)
    for step in range(DROP, len(grads)):
        assert (ours[step] - torchs[step]).abs().max() > 1e-3


def test_at_the_drop_torch_shrinks_the_whole_velocity_and_the_paper_keeps_it() -> None:
    grads = gradients(DROP + 1)
    mine, theirs = start(), start()
    ours = trajectory(SGD([mine], lr=START, momentum=0.9, weight_decay=0.0005), mine, grads)
    torchs = trajectory(torch.optim.SGD([theirs], lr=START, momentum=0.9, weight_decay=0.0005), theirs, grads)
    last_update = ours[DROP - 1] - ours[DROP - 2]
    missing = 0.9 * (1 - LATER / START) * last_update
    torch.testing.assert_close(ours[DROP] - torchs[DROP], missing, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("changes", [(0.01, 0.02, 0.0004), (0.01, 0.0, 0.001), (0.01, 0.01, 1.0), (0.0, 0.01, 0.003)])
def test_any_change_of_rate_follows_the_equations_and_a_rate_of_0_freezes(changes: tuple[float, ...]) -> None:
    weight, grads = start(), gradients(3 * len(changes))
    optimizer = SGD([weight], lr=1.0, momentum=0.9, weight_decay=0.0005)
    w = weight.detach().numpy().copy()
    v = np.zeros_like(w)
    for step, gradient in enumerate(grads):
        lr = optimizer.param_groups[0]["lr"] = changes[step // 3]
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        if lr:
            v = 0.9 * v - 0.0005 * lr * w - lr * gradient
            w = w + v
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12, atol=1e-15, err_msg=f"step {step}")


@pytest.mark.parametrize("gradient", ["like the weights", "contiguous", "transposed"])
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (4, 1, 1, 7), (16, 16, 2, 2)])
def test_float32_weights_follow_the_equations_whatever_lies_where_in_memory(
    gradient: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(2)
    w, grads = rng.normal(size=shape), rng.normal(size=(12, *shape))
    weight = nn.Parameter(torch.from_numpy(w).float().contiguous(memory_format=torch.channels_last))
    optimizer = SGD([weight], lr=START, momentum=0.9, weight_decay=0.0005)
    for step, (given, expected) in enumerate(zip(grads, by_the_equations(w, grads), strict=True)):
        optimizer.param_groups[0]["lr"] = rate(step)
        like = torch.from_numpy(given).float()
        if gradient == "like the weights":
            like = like.contiguous(memory_format=torch.channels_last)
        elif gradient == "transposed":
            like = like.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        weight.grad = like
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=2e-5, atol=2e-6, err_msg=f"step {step}")


def test_groups_have_rates_and_decays_of_their_own() -> None:
    a, b = start(), start()
    grads = gradients(5)
    optimizer = SGD(
        [{"params": [a], "lr": 0.02, "weight_decay": 0.0}, {"params": [b], "momentum": 0.5}],
        lr=0.01,
        momentum=0.9,
        weight_decay=0.1,
    )
    wa, wb = a.detach().numpy().copy(), b.detach().numpy().copy()
    va, vb = np.zeros_like(wa), np.zeros_like(wb)
    for gradient in grads:
        a.grad = b.grad = torch.from_numpy(gradient)
        optimizer.step()
        va = 0.9 * va - 0.02 * gradient
        vb = 0.5 * vb - 0.1 * 0.01 * wb - 0.01 * gradient
        wa, wb = wa + va, wb + vb
    np.testing.assert_allclose(a.detach().numpy(), wa, rtol=1e-13)
    np.testing.assert_allclose(b.detach().numpy(), wb, rtol=1e-13)


def test_a_parameter_without_a_gradient_stays() -> None:
    weight = start()
    before = weight.detach().clone()
    SGD([weight], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(weight, before)


def groups_of(name: str, wrap: Callable[[nn.Module], nn.Module] = lambda model: model) -> dict[str, dict[str, Any]]:
    """The groups of a preset's first step, by name."""
    config = presets.preset(name)
    groups = parameter_groups(wrap(create_model(name)), config.network, config.optimizer)
    LRSchedule(config.schedule, config.optimizer).apply(groups, 1)
    return {g["name"]: g for g in groups}


class Wrapper(nn.Module):
    """What DistributedDataParallel does to a model's names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    "wrap",
    [Wrapper, torch.compile, lambda model: Wrapper(torch.compile(model)), lambda model: torch.compile(Wrapper(model))],
    ids=["DDP", "compile", "DDP of compile", "compile of DDP"],
)
def test_a_wrapped_model_has_the_groups_of_the_model(wrap: Callable[[nn.Module], nn.Module]) -> None:
    plain, wrapped = groups_of("cifar-18"), groups_of("cifar-18", wrap)
    assert wrapped.keys() == plain.keys()
    for name, group in plain.items():
        for key in ("layer", "kind", "lr", "momentum", "weight_decay"):
            assert wrapped[name][key] == group[key], (name, key)
    assert plain["fc4.weight"]["weight_decay"] == 1.0


def test_a_model_with_other_names_than_its_network_is_refused() -> None:
    config = presets.preset("cifar-18")
    model = create_model("cifar-18")
    model.fc5 = model.fc4  # type: ignore[assignment]
    del model.fc4
    with pytest.raises(UsageError, match=r"not those of cifar-18: fc4\.bias"):
        parameter_groups(model, config.network, config.optimizer)
    with pytest.raises(UsageError, match=r"conv1\.bias"):
        parameter_groups(nn.ModuleDict({"other": create_model("cifar-18")}), config.network, config.optimizer)


def test_a_torchvision_network_has_the_layers_of_its_taps() -> None:
    config = presets.preset("torchvision:resnet18")
    layers = {
        g["layer"] for g in parameter_groups(create_model("torchvision:resnet18"), config.network, config.optimizer)
    }
    assert {"conv1", "layer1.0.bn1", "fc"} <= layers


def settings_of(group: dict[str, Any]) -> tuple[float, float, float]:
    """Rate, momentum, and decay as a multiple of the rate (the paper's 0.0005)."""
    return group["lr"], group["momentum"], group["weight_decay"]


@pytest.fixture(scope="module")
def small_groups() -> dict[str, dict[str, dict[str, Any]]]:
    return {name: groups_of(name) for name in ("cifar-26", "cifar-18", "cifar-13", "cifar-11", "tiny-64")}


@pytest.mark.parametrize("name", ["cifar-26", "cifar-18", "cifar-13", "cifar-11", "tiny-64"])
def test_every_parameter_is_in_one_group(name: str, small_groups: dict[str, dict[str, dict[str, Any]]]) -> None:
    names = [key for key, _ in create_model(name).named_parameters()]
    assert sorted(small_groups[name]) == sorted(names)
    assert all(len(group["params"]) == 1 for group in small_groups[name].values())


@pytest.mark.parametrize(
    ("name", "decays"),
    [
        ("cifar-26", {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc4": 0.03, "fc5": 0.03}),
        ("cifar-18", {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc4": 1.0}),
        ("cifar-13", {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004, "fc5": 0.004}),
        ("cifar-11", {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004, "fc5": 0.004}),
    ],
)
def test_rates_and_decays_of_the_cifar_nets(
    name: str, decays: dict[str, float], small_groups: dict[str, dict[str, dict[str, Any]]]
) -> None:
    groups = small_groups[name]
    assert {key.removesuffix(".weight") for key in groups if key.endswith("weight")} == set(decays)
    for layer, decay in decays.items():
        assert settings_of(groups[f"{layer}.weight"]) == pytest.approx((0.001, 0.9, decay))
        assert settings_of(groups[f"{layer}.bias"]) == pytest.approx((0.002, 0.9, 0))


def scaled_down(name: str) -> dict[str, dict[str, Any]]:
    """The groups of a recipe on the small two-column net, which has the same kinds of layers."""
    network, config = presets.preset("tiny-64").network, presets.preset(name)
    groups = parameter_groups(create_model("tiny-64"), network, config.optimizer)
    LRSchedule(config.schedule, config.optimizer).apply(groups, 1)
    return {g["name"]: g for g in groups}


def test_the_biases_of_the_2012_source_learn_twice_as_fast_without_decay() -> None:
    for key, group in scaled_down("code-145").items():
        assert settings_of(group) == pytest.approx((0.02, 0.9, 0) if key.endswith("bias") else (0.01, 0.9, 0.0005))


def test_in_the_paper_weights_and_biases_learn_alike() -> None:
    for group in scaled_down("paper").values():
        assert settings_of(group) == pytest.approx((0.01, 0.9, 0.0005))


def test_a_frozen_layer_does_not_move_any_more() -> None:
    config = presets.preset("code-145")
    model = create_model("digits")
    groups = parameter_groups(model, presets.preset("digits").network, config.optimizer)
    optimizer = SGD(groups, lr=0.01)
    schedule = LRSchedule(replace(config.schedule, layers=("conv1@72=0",)), config.optimizer)
    generator = torch.Generator().manual_seed(0)
    kept: dict[str, Tensor] = {}
    for epoch in (72, 72, 73, 73):
        if epoch == 73 and not kept:
            kept = {key: value.detach().clone() for key, value in model.named_parameters()}
        schedule.apply(optimizer.param_groups, epoch)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    for key, value in model.named_parameters():
        assert torch.equal(value, kept[key]) == key.startswith("conv1"), key


def test_the_state_survives_a_save_and_load() -> None:
    grads = gradients(8)
    mine, other = start(), start()
    whole = trajectory(SGD([mine], lr=START, weight_decay=0.0005), mine, grads)
    first = SGD([other], lr=START, weight_decay=0.0005)
    trajectory(first, other, grads[:4])
    again = SGD([other], lr=START, weight_decay=0.0005)
    again.load_state_dict(first.state_dict())
    for step in range(4, 8):
        again.param_groups[0]["lr"] = rate(step)
        other.grad = torch.from_numpy(grads[step])
        again.step()
    assert torch.equal(other.detach(), whole[-1])


def small() -> tuple[nn.Module, SGD]:
    config = presets.preset("digits")
    model = create_model("digits")
    optimizer = SGD(parameter_groups(model, config.network, config.optimizer), lr=0.01)
    return model, optimizer


def test_velocities_are_given_and_taken_to_the_bit_across_a_drop() -> None:
    generator = torch.Generator().manual_seed(0)
    whole, first = small()
    other, second = small()
    for step in range(8):
        gradients = [torch.randn(p.shape, generator=generator) for p in whole.parameters()]
        if step == 4:
            buffers, rates = first.velocities()
            buffers = {name: value.contiguous().clone() for name, value in buffers.items()}
            second = SGD(second.param_groups, lr=0.5)
            second.load_velocities(buffers, rates, "last")
        for model, optimizer in ((whole, first), (other, second)):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 if step < 4 else 0.0013
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for (name, ours), theirs in zip(whole.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_before_the_first_step_there_are_no_velocities() -> None:
    assert small()[1].velocities() == ({}, {})


def test_velocities_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"here: .*conv1\.bias has shape \(3,\)"):
        small()[1].load_velocities({"conv1.bias": torch.zeros(3)}, {"conv1.bias": 0.1}, "here")
