"""How fast is a training step? Ours beside the textbook's network and torchvision's, taking turns in one run.

A step is forward, loss, backward and update on images that are already there. The textbook's network has the same
layers as torch.nn writes them (`LocalResponseNorm` on each column), in float32 and contiguous, with torch.optim.SGD.
Every contender works in a process of its own, where ours keeps freed memory as `alexnet train` does and the others run
as they are; what the textbook gains from kept memory, and from channels-last, is measured too. They take turns of
one untimed step and a timed one. The limit is the step's multiplications and additions (two for each connection and
image, forward, backward to the maps, backward to the weights; the first layer needs no gradient of its input) at the
rate of a 2048² product (8192² on CUDA) measured in the same turns. Peak memory is what a process held at most beside
its imports.

`--layers` asks instead where the time of a step goes: forward and backward of each layer alone, on the maps that reach
it, beside its operations at the same rate.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import architecture, presets
from alexnet.architecture import LayerShape
from alexnet.config import Config
from alexnet.engine import keep_freed_memory
from alexnet.model.alexnet import AlexNet
from alexnet.training.sgd import SGD, parameter_groups
from benchmarks.records import Figure, figure, rounded, take_turns
from benchmarks.steps import HALF, Step, ours, textbook, theirs

TURN = 0.3  # seconds a contender works in its turn at least: short steps are repeated
RATE = 1e-4  # of learning: small, so that random labels do not end in NaN
BOOK, BOOK_LAST, BOOK_KEPT = (
    "textbook float32",
    "textbook float32, channels-last",
    "textbook float32, freed memory kept",
)
KINDS = {"bfloat16": HALF, "float32": torch.float32}
Call = Callable[[], object]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this question."""
    parser.add_argument("--preset", default="paper", help="the network")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--turns", type=int, default=7, help="timed steps of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--layers", action="store_true", help="where the time of our step goes, layer by layer")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count this process's processor seconds: for one thread on a shared machine",
    )


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    """Step times and peak memory by precision, or the layers' times.

    Raises ValueError where there is no such device.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here")
    torch.manual_seed(0)
    config = presets.preset(options.preset)
    if options.layers:
        keep_freed_memory()
        for precision in KINDS:
            yield from layers(config, options, precision)
        return
    yield from steps(config, options)


def contenders(config: Config, device: str) -> dict[str, Callable[[], Step]]:
    """Name → how to build it; names say the arithmetic, and ours come first."""
    found: dict[str, Callable[[], Step]] = {}
    for precision, kind in KINDS.items():
        found[f"ours {precision}"] = lambda kind=kind: ours(config, device, kind == HALF, RATE)  # type: ignore[misc]
    if any(isinstance(layer, architecture.LRN) for layer in config.network.layers):
        for precision, kind in KINDS.items():
            found[f"ours {precision} without LRN"] = lambda kind=kind: ours(
                config, device, kind == HALF, RATE, norm=False
            )  # type: ignore[misc]
    if device == "cuda":
        found["ours bfloat16 compiled"] = lambda: ours(config, device, True, RATE, compiled=True)
    if _textbook_has_it(config):
        found[BOOK] = lambda: theirs(textbook(config.network), config, device, RATE)
        found[BOOK_LAST] = lambda: theirs(textbook(config.network), config, device, RATE, True)
        if device == "cpu":
            found[BOOK_KEPT] = found[BOOK]
    if config.network.image == 224:
        from torchvision.models import alexnet

        found["torchvision alexnet float32"] = lambda: theirs(
            alexnet(num_classes=config.network.classes), config, device, RATE
        )
    return found


def inputs(config: Config, options: argparse.Namespace, name: str) -> tuple[Tensor, Tensor]:
    """Random images in the layout the contender works in, and random labels."""
    generator = torch.Generator().manual_seed(1)
    side = config.network.image
    images = torch.randn(options.batch, 3, side, side, generator=generator) * 60
    labels = torch.randint(config.network.classes, (options.batch,), generator=generator)
    last = "ours" in name or "channels-last" in name
    layout = torch.channels_last if last else torch.contiguous_format
    return images.contiguous(memory_format=layout).to(options.device), labels.to(options.device)


def operations(entries: list[LayerShape], batch: int) -> int:
    """Multiplications and additions of a step in these layers of a network; the first has no backward to its input."""
    return 2 * batch * sum((2 if entry.inputs[0] == 3 else 3) * entry.connections for entry in entries)


def steps(config: Config, options: argparse.Namespace) -> Iterator[Figure]:
    """All contenders and the matrix products in turns, after an untimed round; then their peak memory."""
    names = list(contenders(config, options.device))
    products = [f"product {precision}" for precision in KINDS]
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, options)) for name in (*names, *products)}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for turn in range(options.turns + 1):
            for name, worker in workers.items():
                took = worker.step()
                if turn:
                    seconds[name].append(took)
        peaks = {name: worker.peak() for name, worker in workers.items()}
    total = operations(architecture.infer_shapes(config.network), options.batch)
    peers = [name for name in names if not name.startswith("ours")]
    for precision in KINDS:
        own = f"ours {precision}"
        rate = 2 * _side(options) ** 3 / statistics.median(seconds[f"product {precision}"])
        name = f"training step, {config.preset}, batch {options.batch}, {precision}"
        ways = [way for way in (own, f"{own} compiled") if way in names]
        made = min(ways, key=lambda way: statistics.median(seconds[way]))
        yield figure(
            name,
            seconds,
            made,
            peers,
            work=options.batch,
            unit="images/s",
            limit=rate / total * options.batch,
            limited_by=f"{total / 1e9:.0f} G operations at {rate / 1e9:.0f} G/s",
        )
        if f"{own} without LRN" in names:
            yield figure(
                f"{name}, beside itself without LRN",
                seconds,
                own,
                [f"{own} without LRN"],
                work=options.batch,
                unit="images/s",
            )
        others = {peer: rounded(peaks[peer]) for peer in peers}
        yield {
            "name": f"peak memory, {config.preset}, batch {options.batch}, {precision}",
            "by": made,
            "value": rounded(peaks[made]),
            "unit": "MiB",
            "spread": None,
            "n": 1,
            "peers": others,
            "ratio": round(next(iter(others.values())) / peaks[made], 3) if others else None,
            "limit": None,
            "limit_fraction": None,
            "limited_by": "",
        }


class Worker:
    """A contender in a process of its own, which makes one step each time it is asked."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", __name__, json.dumps({**vars(options), "contender": name})]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = name

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def step(self) -> float:
        """Seconds of one step. Raises RuntimeError where the process has ended."""
        return self._ask("step")

    def peak(self) -> float:
        """MiB held at most, less what the imports hold."""
        return self._ask("peak")

    def _ask(self, what: str) -> float:
        assert self.process.stdin and self.process.stdout
        try:
            print(what, file=self.process.stdin, flush=True)
            return float(self.process.stdout.readline())
        except (OSError, ValueError):
            code = self.process.wait()
            raise RuntimeError(f"the process of {self.name!r} ended with code {code}") from None


def work(options: argparse.Namespace) -> None:
    """What a worker does: a step or its peak memory for each line on standard input, answered on standard output."""
    config, name = presets.preset(options.preset), options.contender
    torch.manual_seed(0)
    before = _held()
    if name.startswith("ours") or name == BOOK_KEPT:
        keep_freed_memory()
    if name.startswith("product"):
        call = _products(options)[name]
    else:
        step = contenders(config, options.device)[name]()
        call = _synchronized(partial(step, *inputs(config, options, name)), options)
    clock = time.process_time if options.processor_time else time.perf_counter
    repeats = 1
    for line in sys.stdin:
        if line.strip() == "step":
            call()  # what slept through the others' turns wakes up: threads, and memory the system may have put aside
            began = clock()
            for _ in range(repeats):
                call()
            took = (clock() - began) / repeats
            repeats = max(repeats, math.ceil(TURN / took))
            print(took, flush=True)
        else:
            on_device = options.device == "cuda"
            print(torch.cuda.max_memory_allocated() / 2**20 if on_device else _held() - before, flush=True)


def layers(config: Config, options: argparse.Namespace, precision: str) -> Iterator[Figure]:
    """Each layer's forward and backward alone, the loss, the update, and what a whole step takes beside their sum."""
    network, kind, batch = config.network, KINDS[precision], options.batch
    model = AlexNet(network, config.train.seed).to(options.device)
    images, labels = inputs(config, options, "ours")
    calls: dict[str, Call] = {}
    entries: dict[str, list[LayerShape]] = {}
    x = images
    for part in model.fused_layers:
        name = " ".join(entry.layer.name for entry in part)
        call, x = _layer(model, part, x, options.device, kind)
        calls[name] = _synchronized(call, options)
        entries[name] = list(part)
    logits = x.float().requires_grad_()
    calls["loss"] = _synchronized(lambda: torch.autograd.grad(F.cross_entropy(logits, labels), logits), options)
    optimizer = SGD(parameter_groups(model, network, config.optimizer), RATE)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    calls["update"] = _synchronized(optimizer.step, options)
    step = ours(config, options.device, kind == HALF, RATE)
    calls["step"] = _synchronized(lambda: step(images, labels), options)
    products = _products(options)
    clock = time.process_time if options.processor_time else time.perf_counter
    seconds = take_turns({**calls, **products}, options.turns, 2, clock)
    rate = 2 * _side(options) ** 3 / statistics.median(seconds[f"product {precision}"])
    what = f"{config.preset}, batch {batch}, {precision}"
    parts = [name for name in calls if name != "step"]
    seconds["layers, loss and update"] = [sum(times) for times in zip(*(seconds[name] for name in parts), strict=True)]
    for name in parts:
        work = operations(entries.get(name, []), batch)
        entry = figure(
            f"{name} of {what}",
            seconds,
            name,
            ["step"],
            limit=work / rate * 1e3 or None,
            limited_by=f"{work / 1e9:.1f} G operations at {rate / 1e9:.0f} G/s" if work else "",
        )
        yield {**entry, "ratio": None}  # a part of the step is not faster than it
    yield figure(
        f"step of {what}",
        seconds,
        "step",
        ["layers, loss and update"],
        limit=operations(architecture.infer_shapes(network), batch) / rate * 1e3,
    )


def _layer(
    model: AlexNet, part: tuple[LayerShape, ...], x: Tensor, device: str, kind: torch.dtype
) -> tuple[Call, Tensor]:
    """Forward and backward of one part, and what it passes on; the images themselves need no gradient."""
    given = x.detach()
    if part[0].inputs[0] != 3:
        given = given.requires_grad_()

    inplace = isinstance(model.get_submodule(part[0].layer.name), torch.nn.ReLU)

    def forward() -> Tensor:
        with torch.autocast(device, HALF, enabled=kind == HALF):
            return model.apply_layers(part, given.clone() if inplace else given)

    out = forward()
    grad = torch.randn_like(out)
    wanted: list[Tensor] = [p for entry in part for p in model.get_submodule(entry.layer.name).parameters()]
    if given.requires_grad:
        wanted.append(given)
    return lambda: torch.autograd.grad(forward(), wanted, grad), out.detach()


def _side(options: argparse.Namespace) -> int:
    """Rows and columns of the matrices whose product is the limit."""
    return 2048 if options.device == "cpu" else 8192


def _products(options: argparse.Namespace) -> dict[str, Call]:
    """A product of square matrices in each precision."""
    side = _side(options)
    calls: dict[str, Call] = {}
    for precision, kind in KINDS.items():
        matrix = torch.randn(side, side).to(kind).to(options.device)
        calls[f"product {precision}"] = _synchronized(partial(torch.matmul, matrix, matrix), options)
    return calls


def _synchronized(call: Call, options: argparse.Namespace) -> Call:
    """The call, which on CUDA returns when the device is done."""
    if options.device == "cpu":
        return call

    def waited() -> None:
        call()
        torch.cuda.synchronize()

    return waited


def _textbook_has_it(config: Config) -> bool:
    try:
        textbook(config.network)
    except ValueError:
        return False
    return True


def _held() -> float:
    """The most MiB this process has held so far; `getrusage` alone would count what it was forked from."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    work(argparse.Namespace(**json.loads(sys.argv[1])))
