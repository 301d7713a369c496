"""Does the fast step learn what the reference net's learns? Losses from the same weights on the same batches.

Two float32 trajectories part when rounding flips a pooling winner or a ReLU, so the reference net's step with every
weight moved by about one rounding runs beside them: what it differs by is what any float32 step differs by.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import presets
from alexnet.config import Config
from alexnet.model.zoo import build
from benchmarks.records import Result
from benchmarks.steps import Step, ours, reference, theirs
from benchmarks.timing import rounded, summarize

FLOAT32, BFLOAT16, REFERENCE, MOVED = (
    "ours float32",
    "ours bfloat16",
    "reference net",
    "reference net, weights moved by a rounding",
)
FIRST, END = 20, 20  # steps compared one by one; steps whose mean is the end


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this question."""
    parser.add_argument("--preset", default="tiny-64", help="the network")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--steps", type=int, default=200, help="steps of each trajectory")
    parser.add_argument("--seeds", type=int, default=3, help="of weights, batches and dropout")
    parser.add_argument("--lr", type=float, help="learning rate; default: the preset's, in proportion to the batch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the steps are made")


def measure(options: argparse.Namespace) -> Iterator[Result]:
    """The largest relative gap of the first 20 losses in float32, and where 200 steps end in both precisions."""
    config = presets.preset(options.preset)
    curves = trajectories(config, options)
    what = f"{config.preset}, batch {options.batch}" + (f", lr = {options.lr:g}" if options.lr else "")
    yield _compared(f"largest relative gap of the first {FIRST} losses, float32, {what}", curves, FLOAT32, _largest_gap)
    for name in (FLOAT32, BFLOAT16):
        yield _compared(
            f"loss after {options.steps} steps less the reference net's, {name.split()[1]}, {what}",
            curves,
            name,
            _end_gap,
        )


def trajectories(config: Config, options: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Name → for each seed the losses of `options.steps` steps."""
    curves: dict[str, list[list[float]]] = {name: [] for name in (FLOAT32, BFLOAT16, REFERENCE, MOVED)}
    lr = options.lr or config.optimizer.lr * options.batch / config.train.batch_size
    for seed in range(options.seeds):
        seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        start = build(config.network, seed).state_dict()
        for name, losses in curves.items():
            step: Step
            if name in (FLOAT32, BFLOAT16):
                step = ours(seeded, options.device, name == BFLOAT16, lr)
            else:
                peer = reference(config.network)
                peer.load_state_dict(start)
                if name == MOVED:
                    move(peer, seed)
                step = theirs(peer, config, options.device, lr)
            losses.append([])
            for number in range(options.steps):
                images, labels = pattern(config, options, seed, number)
                torch.manual_seed(1000 * seed + number)  # dropout's draws
                losses[-1].append(step(images, labels).item())
    return curves


@torch.no_grad()
def move(model: nn.Module, seed: int) -> None:
    """Change every parameter by about one rounding of float32."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.mul_(1 + 6e-8 * torch.randn(parameter.shape, generator=generator).to(parameter.device))


def pattern(config: Config, options: argparse.Namespace, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """A batch of ten coarse pictures in noise, and which each is: something that can be learned."""
    side = config.network.image
    pictures = torch.randn(10, 3, 7, 7, generator=torch.Generator().manual_seed(seed)) * 60
    generator = torch.Generator().manual_seed(10_000 * seed + number + 1)
    labels = torch.randint(10, (options.batch,), generator=generator)
    images = F.interpolate(pictures, size=side)[labels]
    images = images + torch.randn(images.shape, generator=generator) * 40
    return images.contiguous(memory_format=torch.channels_last).to(options.device), labels.to(options.device)


def _largest_gap(mine: list[float], other: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(mine[:FIRST], other[:FIRST], strict=True))


def _end_gap(mine: list[float], other: list[float]) -> float:
    return statistics.fmean(mine[-END:]) - statistics.fmean(other[-END:])


def _compared(
    name: str, curves: dict[str, list[list[float]]], own: str, gap: Callable[[list[float], list[float]], float]
) -> Result:
    """The median over seeds of a gap to the reference net's losses, beside what moved weights make of it."""

    def gaps(contender: str) -> list[float]:
        return [gap(mine, other) for mine, other in zip(curves[contender], curves[REFERENCE], strict=True)]

    mine, moved = gaps(own), gaps(MOVED)
    peers = {MOVED: rounded(statistics.median(moved))}
    return summarize(name, mine, "", by=own, peers=peers, peer_spread=(rounded(min(moved)), rounded(max(moved))))
