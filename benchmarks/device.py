"""What must hold before a device is timed, and whether it waits: its numbers beside those of the CPU in float32.

Both have the same weights, batches and dropout masks. The CPU's float32 is the specification; the device computes in
float32 (TF32 off) and bfloat16: the normalization on its own, then logits, loss, gradients and one update of whole
networks, and the losses of 20 steps, most of which are replayed from a CUDA graph. A gap is the largest difference as a
share of the largest value; for gradients and updates the norm of a tensor's difference as a share of its norm, the
worst tensor's. The bounds are about three times what bfloat16 on a CPU, or float32 after weights moved by a rounding,
makes of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import presets
from alexnet.config import Config
from alexnet.data.augment import Augmentation
from alexnet.data.batch import Batch
from alexnet.data.dataset import ArraySplit
from alexnet.data.loader import BatchLoader
from alexnet.data.statistics import Statistics
from alexnet.device import autocast, to_device
from alexnet.errors import AlexnetError
from alexnet.model.dropout import set_dropout_keys
from alexnet.model.lrn import lrn
from alexnet.model.zoo import build
from alexnet.training.feed import Feed
from alexnet.training.sgd import SGD, parameter_groups
from alexnet.training.step import Step
from alexnet.training.task import Softmax
from benchmarks.parity import pattern
from benchmarks.records import Result
from benchmarks.timing import rounded, summarize

LR = 1e-4  # at the presets' own, rounding alone makes losses part within ten steps
STEPS = 20
EPOCHS = 5  # of four batches, in a turn of waiting
NETS = (("tiny-64", 16), ("paper", 8))  # and images in a batch
BOUNDS = {
    "float32": {"LRN": 1e-5, "logits": 2e-5, "loss": 1e-5, "gradients": 0.015, "update": 0.015, "losses": 5e-4},
    "bfloat16": {"LRN": 2.0**-7, "logits": 0.015, "loss": 5e-3, "gradients": 0.75, "update": 0.75, "losses": 0.01},
}
Numbers = dict[str, list[Tensor]]


def check(device: torch.device, nets: Sequence[tuple[str, int]] = NETS, steps: int = STEPS) -> Iterator[Result]:
    """Every gap beside its bound. Raises AlexnetError, after the last, naming those that are beyond."""
    beyond: list[str] = []
    for name, batch in (("", 0), *nets):
        truth = numbers(name, batch, torch.device("cpu"), "float32", steps)
        for precision in BOUNDS:
            found = numbers(name, batch, device, precision, steps)
            for what, value in _gaps(found, truth).items():
                where = f"{what} of {name}, batch {batch}" if name else what
                bound = BOUNDS[precision][what]
                yield Result(
                    f"{device.type} beside the CPU's float32, {precision}: {where}",
                    rounded(value),
                    "",
                    reference_rate=rounded(bound),
                    reference_basis="allowed",
                )
                if not value <= bound:  # NaN is beyond
                    beyond.append(f"{precision} {where} {value:.2g} where {bound:.2g} is allowed")
    if beyond:
        raise AlexnetError(f"nothing is timed: {device.type} differs from the CPU's float32: {'; '.join(beyond)}")


def numbers(name: str, batch: int, device: torch.device, precision: str, steps: int) -> Numbers:
    """What one device makes of a preset's network, in float32 on the CPU; of the normalization alone without a name."""
    if not name:
        return {"LRN": _normalized(device, precision)}
    config = presets.preset(name)
    words = argparse.Namespace(batch=batch, device=device)
    positions = to_device(torch.arange(batch), device)
    images, labels = pattern(config, words, 0, 0)
    model, step = _prepared(config, device, precision, 1.0)  # an lr with which no update is lost in rounding
    set_dropout_keys(model, 0, 1, positions)
    with autocast(precision, device):
        logits = model(images)
    loss = F.cross_entropy(logits.float(), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    step(images, labels, positions, 1, 0)
    updates = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    _, step = _prepared(config, device, precision, LR)
    losses = []
    for number in range(steps):
        losses.append(step(*pattern(config, words, 0, number), positions + batch * number, 1, number)[:1] / batch)
    found = {"logits": [logits], "loss": [loss], "gradients": gradients, "update": updates, "losses": losses}
    return {what: [t.detach().float().cpu() for t in tensors] for what, tensors in found.items()}


def _prepared(config: Config, device: torch.device, precision: str, lr: float) -> tuple[nn.Module, Step]:
    """A network with its first weights and the step of a training: on CUDA captured after some steps."""
    model = build(config.network, 0).to(device).train()
    groups = parameter_groups(model, config.network, config.optimizer)
    optimizer = SGD(groups, lr, capturable=device.type == "cuda")
    return model, Step(model, Softmax(), optimizer, 0, precision)


def _normalized(device: torch.device, precision: str) -> list[Tensor]:
    """LRN after the paper's conv2, forward and backward, in both layouts."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(4, 256, 27, 27, generator=generator).bfloat16() * 60 for _ in range(2))
    out = []
    for layout in (torch.contiguous_format, torch.channels_last):
        dtype = getattr(torch, precision)
        a, g = (t.to(device, dtype).contiguous(memory_format=layout) for t in (x, grad))
        y = lrn(a.requires_grad_(), 5, 1e-4, 0.75, 2.0, 2)
        out += [y, *torch.autograd.grad(y, a, g)]
    return [t.detach().float().cpu() for t in out]


def _gaps(found: Numbers, truth: Numbers) -> dict[str, float]:
    def gap(what: str, ours: Tensor, right: Tensor) -> Tensor:
        if what in ("gradients", "update"):
            return (ours - right).norm() / right.norm()
        return (ours - right).abs().max() / right.abs().max()

    return {
        what: float(torch.stack([gap(what, *pair) for pair in zip(found[what], tensors, strict=True)]).max())
        for what, tensors in truth.items()
    }


def waiting(config: Config, device: torch.device, precision: str, batch: int, turns: int) -> Result:
    """The share of the time that steps wait for their batches: cut from squares in memory, brought as in a training."""
    size, count = config.data.size, 4 * batch
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    split = ArraySplit("train", pixels, np.arange(count) % config.network.classes, [str(i) for i in range(count)])
    statistics = Statistics(np.zeros((size, size, 3), np.float32), np.ones(3), np.eye(3), np.ones(3), np.eye(3), count)
    augmentation, pin = Augmentation(config, statistics, device), device.type == "cuda"
    loader = BatchLoader(split, size, batch, 0, crop=augmentation.crop, draws=augmentation.draws, pin=pin)
    (_, step), feed = _prepared(config, device, precision, LR), Feed(device)

    def turn(number: int) -> tuple[float, float]:
        """Seconds of `EPOCHS` epochs, and those waited."""
        waited, began = 0.0, time.perf_counter()
        for epoch in range(EPOCHS * number, EPOCHS * (number + 1)):
            for batch in loader.epoch(epoch):
                inputs, targets, positions = feed.bring(partial(bring, batch))
                step(inputs, targets, positions, epoch, batch.step)
                waited += batch.wait_seconds
        if pin:
            torch.cuda.synchronize()
        return time.perf_counter() - began, waited

    def bring(batch: Batch) -> tuple[Tensor, ...]:
        rest = (batch.labels, torch.from_numpy(batch.positions))
        return augmentation.training(batch), *(to_device(tensor, device) for tensor in rest)

    measured = [turn(number) for number in range(turns + 1)][1:]
    return summarize(
        f"waiting for batches, {config.preset}, batch {batch}, {precision}",
        [100 * waited / seconds for seconds, waited in measured],
        "%",
        reference_rate=5.0,
        reference_basis="the aim",
        also={"images_per_second": rounded(EPOCHS * count / median([seconds for seconds, _ in measured]))},
    )
