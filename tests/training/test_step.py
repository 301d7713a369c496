"""One update: repeated from a recording as step by step, and without the host reading from the device.

No GPU is needed: `Tape` records a step's operations with their addresses and numbers and repeats them as they were, as
a CUDA graph does. What a recording must not bake in, a learning rate, an epoch, a batch, then shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexnet import presets
from alexnet.config import Config
from alexnet.data.augment import Augmentation
from alexnet.data.batch import Batch
from alexnet.data.run_data import open_run_data
from alexnet.data.statistics import Statistics
from alexnet.device import to_device
from alexnet.model import conv, dropout, linear, pool
from alexnet.model.zoo import build
from alexnet.progress import quiet
from alexnet.run import Run
from alexnet.training import sgd as training_sgd
from alexnet.training.batches import Batches
from alexnet.training.loop import Trainer, measure_validation
from alexnet.training.parallel import World
from alexnet.training.schedule import LRSchedule
from alexnet.training.sgd import SGD, like, parameter_groups
from alexnet.training.state import StepLog
from alexnet.training.step import WARM, Step
from alexnet.training.task import Hinge, Softmax, task_of
from alexnet.training.trackers import Trackers


class Recorder(TorchDispatchMode):
    """Keeps every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out


class Tape:
    """What a CUDA graph does, on the CPU: the same operations, on the same memory, with the same numbers."""

    made = 0
    kept: tuple[Tensor, ...] = ()  # what a recording must leave as it was: a capture computes nothing

    def __init__(self, work: Callable[[], Tensor], stream: Any) -> None:
        Tape.made += 1
        before = [tensor.detach().clone() for tensor in Tape.kept]
        with Recorder() as recorder:
            self.result = work()
        self.operations = recorder.operations
        with torch.no_grad():
            for tensor, value in zip(Tape.kept, before, strict=True):
                tensor.copy_(value)
        self.result.fill_(float("nan"))

    def replay(self) -> Tensor:
        with torch.no_grad():
            for func, args, kwargs, out in self.operations:
                new = func(*args, **kwargs)
                for held, value in zip(tree_leaves(out), tree_leaves(new), strict=True):
                    if isinstance(held, Tensor) and held.data_ptr() != value.data_ptr():
                        held.copy_(value)
        return self.result.clone()


@pytest.fixture(autouse=True)
def operations_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, all work is torch's operations: the engine's functions would not be seen."""
    for module in (conv, linear, pool):
        monkeypatch.setattr(module, "supports", lambda *_: False)
    monkeypatch.setattr(dropout, "is_available", lambda: False)
    monkeypatch.setattr(Tape, "made", 0)


def prepared(config: Config, capturable: bool) -> tuple[nn.Module, SGD, LRSchedule]:
    model = build(config.network, 1).train()
    optimizer = SGD(parameter_groups(model, config.network, config.optimizer), 0.01, capturable=capturable)
    return model, optimizer, LRSchedule(config.schedule, config.optimizer)


def batch(config: Config, number: int, count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    side = config.network.image
    images = torch.randn(count, 3, side, side, generator=generator) * 60
    labels = torch.randint(config.network.classes, (count,), generator=generator)
    positions = torch.randint(1000, (count,), generator=generator)
    return images.contiguous(memory_format=torch.channels_last), labels, positions


def trajectory(config: Config, capture: Any, epochs: list[list[int]], task: Any = None) -> tuple[Any, list[Any]]:
    """Weights, velocities and what each step measured, for epochs of batches of so many images."""
    model, optimizer, schedule = prepared(config, capturable=True)
    step = Step(model, task or Softmax(), optimizer, 5, config.train.precision, capture)
    sums, number = [], 0
    for epoch, counts in enumerate(epochs, 1):
        schedule.apply(optimizer.param_groups, epoch)
        for place, count in enumerate(counts):
            velocities = [s["momentum_buffer"] for s in optimizer.state.values() if "momentum_buffer" in s]
            Tape.kept = (*model.parameters(), *velocities)
            sums.append(step(*batch(config, number, count), epoch, place).tolist())
            number += 1
        schedule.after_epoch(epoch, None, number)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return (weights, optimizer.velocities()), sums


def settings(preset: str = "digits", **changes: Any) -> Config:
    config = presets.preset(preset)
    schedule = replace(config.schedule, kind="epochs", milestones=(2,), layers=("conv1@3=0",))
    return replace(config, schedule=schedule, train=replace(config.train, **{"precision": "float32", **changes}))


EPOCHS = [
    [6] * 6 + [2],
    [6] * 3 + [2],
    [6] * 5,
    [6] * 6,
]  # the rate drops after the second, conv1 freezes after the third


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("task", [Softmax(), Hinge()])
def test_steps_repeated_from_a_recording_are_the_steps_to_the_bit(task: Any, precision: str) -> None:
    config = settings(precision=precision)
    (weights, velocities), sums = trajectory(config, Tape, EPOCHS, task)
    assert Tape.made == 2  # once more for the frozen layer
    (plain_weights, plain_velocities), plain_sums = trajectory(config, None, EPOCHS, task)
    assert sums == plain_sums
    for name, value in plain_weights.items():
        assert torch.equal(weights[name], value), name
    for ours, theirs in zip(velocities, plain_velocities, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert (
                ours[name] == theirs[name] if isinstance(ours[name], float) else torch.equal(ours[name], theirs[name])
            )


def test_uneven_batches_and_the_first_steps_go_without_a_recording() -> None:
    config = settings()
    trajectory(config, Tape, [[6] * WARM + [2], [6] * WARM, [5, 6] * 4])
    assert Tape.made == 0
    trajectory(config, Tape, [[6] * (WARM + 1) + [2], [6], [2] * WARM])
    assert Tape.made == 1


def test_each_replay_draws_its_own_masks() -> None:
    """The same images with other positions, or in another epoch, lose other units."""
    config = settings()
    model, optimizer, schedule = prepared(config, capturable=True)
    schedule.apply(optimizer.param_groups, 1)
    for group in optimizer.param_groups:
        group["lr"] = 1e-30  # the weights stay
    step = Step(model, Softmax(), optimizer, 5, "float32", Tape)
    Tape.kept = tuple(model.parameters())
    images, labels, positions = batch(config, 0)
    for _ in range(WARM + 1):
        first = step(images, labels, positions, 1, 0).tolist()
    assert Tape.made == 1
    assert step(images, labels, positions, 1, 1).tolist() == first
    assert step(images, labels, positions + 1, 1, 1).tolist() != first
    assert step(images, labels, positions, 2, 1).tolist() != first
    assert step(images, labels, positions, 1, 1).tolist() == first


def test_a_rate_on_the_device_is_that_of_the_host_but_for_a_rounding() -> None:
    config = settings()
    models = []
    for capturable in (False, True):
        model, optimizer, schedule = prepared(config, capturable)
        step = Step(model, Softmax(), optimizer, 5, "float32")
        for epoch in (1, 2, 3, 4):
            schedule.apply(optimizer.param_groups, epoch)
            step(*batch(config, epoch), epoch, 0)
            schedule.after_epoch(epoch, None, epoch)
        models.append(model)
    for (name, ours), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=name)


def test_work_that_cannot_be_captured_goes_on_step_by_step_and_it_is_said() -> None:
    def refuse(work: Callable[[], Tensor], stream: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.warns(UserWarning, match="without a CUDA graph.*not permitted when stream is capturing\\)") as warned:
        state, sums = trajectory(settings(), refuse, EPOCHS)
    assert len(warned) == 1
    assert sums == trajectory(settings(), None, EPOCHS)[1]


class HostReads(TorchDispatchMode):
    """Counts what makes a host wait for a GPU: numbers and truth read from a tensor, and copies to other memory."""

    READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "item", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        indices = args[1] if name in ("index", "index_put_") else ()
        by_mask = any(t is not None and t.dtype == torch.bool for t in indices)
        out = func(*args, **(kwargs or {}))
        devices = [{t.device.type for t in tree_leaves(tree) if isinstance(t, Tensor)} for tree in (args, out)]
        to_host = "cuda" in devices[0] and devices[1] == {"cpu"}
        if name in self.READING or by_mask or to_host:
            self.reads.append(name)
        return out


def test_the_counter_sees_what_waits() -> None:
    x = torch.arange(4.0)
    for look in (
        lambda: x.sum().item(),
        lambda: float(x[0]),
        lambda: bool((x > 0).any()),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: torch.equal(x, x),
        lambda: torch.bincount(x.long()),
    ):
        with HostReads() as seen:
            look()
        assert seen.reads, look


class AsOnCuda(StepLog):
    """Reads as late as on a GPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.limit = self.KEEP


def test_no_step_of_a_training_reads_from_the_device(
    seven: Path, short: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short(seven, train__log_every="4", augment__colour="0.1", train__batch_size="8")
    run = Run(tmp_path / "run")
    data = open_run_data(config)
    model = build(data.config.network, 0)
    trainer = Trainer(run, data, model, task_of(config), Trackers((), quiet), quiet)
    trainer.step_log = AsOnCuda(trainer.device)
    counts: list[int] = []
    whole = trainer._step

    def counted(*given: Any) -> None:
        with HostReads() as seen:
            whole(*given)
        counts.append(len(seen.reads))

    monkeypatch.setattr(trainer, "_step", counted)
    with run.begun(data.config, None, data.describe()):
        trainer.fit(Batches(run, data, trainer.device, quiet, trainer.world))
    assert len(counts) == 14 and not any(counts)
    lines = [line for line in (run.path / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    assert len(lines) == 3  # what was measured is read here


@pytest.mark.parametrize("task", ["softmax", "hinge"])
def test_no_batch_of_a_validation_reads_from_the_device(
    task: str, seven: Path, short: Callable[..., Config], tmp_path: Path
) -> None:
    reads, results = [], []
    for batch_size in ("21", "2"):  # of 21 images
        data = open_run_data(short(seven, train__batch_size=batch_size, train__task=task))
        run = Run(tmp_path / batch_size)
        with run.begun(data.config, None, data.describe()):
            model, batches = build(data.config.network, 0), Batches(run, data, torch.device("cpu"), quiet, World())
        with HostReads() as seen:
            results.append(measure_validation(model, batches, task_of(data.config), data.config))
        reads.append(len(seen.reads))
    assert reads[0] == reads[1] > 0  # at the end
    assert results[0].count == 21
    assert replace(results[0], loss=0) == replace(results[1], loss=0)


def as_on_a_gpu(model: nn.Module) -> nn.Module:
    """The model with parameters that say they are on a GPU; under `FakeTensorMode`, where tensors have no values."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            like = torch.empty_strided(parameter.shape, parameter.stride(), device="cuda")
            setattr(module, name, nn.Parameter(like))
    return model


@pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning")
@pytest.mark.parametrize("preset", ["digits", "cifar-13", "paper"])
def test_a_step_on_a_gpu_that_is_not_here_meets_no_tensor_elsewhere_and_reads_nothing(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices, dtypes and shapes of everything but the backward pass, which torch does not begin without a GPU."""
    config = presets.preset(preset)
    config = replace(config, augment=replace(config.augment, colour=0.1))
    model = build(config.network, None).train()
    size, crop = config.data.size, config.network.image
    statistics = Statistics(np.zeros((size, size, 3), np.float32), np.ones(3), np.eye(3), np.ones(3), np.eye(3), 9)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)

    def backward(loss: Tensor) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.empty(parameter.shape, device="cuda")  # in another order of memory

    def fused(weights: list[Tensor], grads: list[Tensor], buffers: list[Any], lr: Tensor, **rule: Any) -> None:
        """What torch's fused kernel on CUDA takes for granted, and does not know without values."""
        assert lr.device == device and lr.dtype == torch.float32 and lr.dim() == 0 and rule["fused"]
        for place, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
            assert weight.device == grad.device == device and like(grad, weight) is grad
            buffers[place] = torch.empty_like(grad) if buffers[place] is None else buffers[place]
            assert like(buffers[place], weight) is buffers[place]

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(dropout, "usable", lambda *_: False)  # kernels need values
    monkeypatch.setattr(training_sgd, "sgd", fused)
    rng = np.random.default_rng(0)
    with FakeTensorMode(allow_non_fake_inputs=True), HostReads() as seen:
        as_on_a_gpu(model)
        device = next(model.parameters()).device
        optimizer = SGD(parameter_groups(model, config.network, config.optimizer), 0.01, capturable=True)
        LRSchedule(config.schedule, config.optimizer).apply(optimizer.param_groups, 1)
        monkeypatch.setattr(torch.cuda, "Stream", lambda *_: None)
        step = Step(model, Softmax(), optimizer, 5, "bfloat16")
        augmentation = Augmentation(config, statistics, device)
        draw = augmentation.draws(1, np.arange(6), np.arange(6))
        images = torch.from_numpy(rng.integers(0, 256, (6, crop, crop, 3), np.uint8))
        labels = to_device(torch.zeros(6, dtype=torch.int64), device)
        for _ in range(2):
            inputs = augmentation.training(Batch(images, labels, np.arange(6), draw, 0.0, 0))
            sums = step(inputs, labels, to_device(torch.arange(6), device), 1, 0)
    assert inputs.device.type == sums.device.type == "cuda" and sums.dtype == torch.float64
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert all(state["momentum_buffer"].device.type == "cuda" for state in optimizer.state.values())
    assert not seen.reads
