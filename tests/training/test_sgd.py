"""The update rule against the paper's two equations, written out in float64, and where it parts from torch's."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet import presets
from alexnet.model.zoo import create_model
from alexnet.training.schedule import RateSchedule
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


def test_torchs_rule_agrees_again_if_its_buffer_is_enlarged_as_the_rate_shrinks() -> None:
    grads = gradients(DROP + 5)
    mine, theirs = start(), start()
    ours = trajectory(SGD([mine], lr=START, momentum=0.9, weight_decay=0.0005), mine, grads)
    optimizer = torch.optim.SGD([theirs], lr=START, momentum=0.9, weight_decay=0.0005)
    torchs = []
    for step, gradient in enumerate(grads):
        if step == DROP:
            optimizer.state[theirs]["momentum_buffer"].mul_(START / LATER)
        optimizer.param_groups[0]["lr"] = rate(step)
        theirs.grad = torch.from_numpy(gradient)
        optimizer.step()
        torchs.append(theirs.detach().clone())
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


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


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="backward"):
        SGD([start()], lr=0.1).step(lambda: 0.0)


def groups_of(name: str) -> dict[str, dict[str, Any]]:
    config = presets.preset(name)
    return {g["name"]: g for g in parameter_groups(create_model(name), config.network, config.optimizer)}


def figures(group: dict[str, Any]) -> tuple[float, float, float]:
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
        assert figures(groups[f"{layer}.weight"]) == pytest.approx((0.001, 0.9, decay))
        assert figures(groups[f"{layer}.bias"]) == pytest.approx((0.002, 0.9, 0))


def scaled_down(name: str) -> dict[str, dict[str, Any]]:
    """The groups of a recipe on the small two-column net, which has the same kinds of layers."""
    network, optimizer = presets.preset("tiny-64").network, presets.preset(name).optimizer
    return {g["name"]: g for g in parameter_groups(create_model("tiny-64"), network, optimizer)}


def test_the_biases_of_the_2012_source_learn_twice_as_fast_without_decay() -> None:
    for key, group in scaled_down("code-145").items():
        assert figures(group) == pytest.approx((0.02, 0.9, 0) if key.endswith("bias") else (0.01, 0.9, 0.0005))


def test_in_the_paper_weights_and_biases_learn_alike() -> None:
    for group in scaled_down("paper").values():
        assert figures(group) == pytest.approx((0.01, 0.9, 0.0005))


def test_a_frozen_layer_does_not_move_any_more() -> None:
    config = presets.preset("code-145")
    model = create_model("digits")
    groups = parameter_groups(model, presets.preset("digits").network, config.optimizer)
    optimizer, schedule = SGD(groups, lr=0.01), RateSchedule(config.schedule, config.optimizer)
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
