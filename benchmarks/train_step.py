"""How fast is a training step? Ours beside the reference network and torchvision's, taking turns in one run.

A step is forward, loss, backward and update on images that are already there. The reference network has the same
layers as torch.nn writes them (`LocalResponseNorm` on each column), in float32 and contiguous, with torch.optim.SGD.
Every contender works in a process of its own, where ours keeps freed memory as `alexnet train` does and the others run
as they are; what the reference network gains from kept memory, and from channels-last, is measured too. They take turns
of one untimed step and a timed one. The reference rate is that of a product of square matrices measured in the same
turns, torch's or in float32 also NumPy's, the faster of them (2048² on a CPU, 8192² on CUDA, `--side` chooses; in
float32 for bfloat16 too where the processor has no products of it): at it the step's multiplications and additions (two
per connection and image, forward, backward to the maps, backward to the weights; the first layer needs no gradient of
its input) would take so long. Peak memory is the most that a process held, less what its imports hold.

On CUDA nothing is timed before `benchmarks.device` has found the device's numbers to be the CPU's; then ours step as
they are, compiled, and replayed from a CUDA graph, the peers are the reference network with TF32 too and torchvision's
compiled in bfloat16, and a training's wait for batches is measured.

`--layers` asks instead where the time of a step goes: the forward and backward pass of each layer alone, on the maps
that reach it, beside its operations at the same rate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import architecture, presets
from alexnet.architecture import LayerShape
from alexnet.config import Config
from alexnet.device import choose_device
from alexnet.engine.memory import keep_freed_memory
from alexnet.errors import AlexnetError, UsageError
from alexnet.model.alexnet import AlexNet
from alexnet.training.sgd import SGD, parameter_groups
from benchmarks.device import check, waiting
from benchmarks.processes import child_environment, python
from benchmarks.products import multiplied_as, side_argument, side_of
from benchmarks.records import Result
from benchmarks.steps import Step, ours, reference, theirs, trained
from benchmarks.timing import Call, compare_times, rounded, seconds_of, take_turns

TURN = 0.5  # seconds a contender works in its turn at least: short steps are repeated
LR = 1e-4  # small, so that random labels do not end in NaN
REFERENCE, REFERENCE_LAST, REFERENCE_KEPT = (
    "reference net float32",
    "reference net float32, channels-last",
    "reference net float32, freed memory kept",
)
REFERENCE_TF32 = "reference net float32 in TF32"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
PRODUCTS = {precision: (f"product {precision}, torch", f"product {precision}, NumPy") for precision in DTYPES}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this question."""
    parser.add_argument("--preset", default="paper", help="the network")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--turns", type=int, default=7, help="timed steps of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the steps are made")
    parser.add_argument("--layers", action="store_true", help="where the time of our step goes, layer by layer")
    side_argument(parser)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count this process's processor seconds: for one thread on a shared machine",
    )


def measure(options: argparse.Namespace) -> Iterator[Result]:
    """Step times and peak memory by precision, or the layers' times.

    Raises UsageError where there is no such device.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here")
    torch.manual_seed(0)
    config, chosen = presets.preset(options.preset), choose_device(options.device)
    if options.device == "cuda":
        yield from check(chosen)
        yield waiting(config, chosen, "bfloat16", options.batch, options.turns)
        torch.cuda.empty_cache()  # before the contenders' processes take theirs
    if options.layers:
        keep_freed_memory()
        for precision in DTYPES:
            yield from layers(config, options, precision)
        return
    yield from steps(config, options)


def contenders(config: Config, device: str) -> dict[str, Callable[[], Step]]:
    """Name → how to build it; names say the arithmetic, and ours come first."""
    if device == "cuda":
        return contenders_on_cuda(config, device)
    builders: dict[str, Callable[[], Step]] = {}
    for precision in DTYPES:
        builders[f"ours {precision}"] = partial(ours, config, device, precision == "bfloat16", LR)
    if any(isinstance(layer, architecture.LRN) for layer in config.network.layers):
        for precision in DTYPES:
            plain = partial(ours, config, device, precision == "bfloat16", LR, norm=False)
            builders[f"ours {precision} without LRN"] = plain
    if _has_reference(config):
        builders[REFERENCE] = lambda: theirs(reference(config.network), config, device, LR)
        builders[REFERENCE_LAST] = lambda: theirs(reference(config.network), config, device, LR, True)
        builders[REFERENCE_KEPT] = builders[REFERENCE]
    if config.network.image == 224:
        from torchvision.models import alexnet

        builders["torchvision alexnet float32"] = lambda: theirs(
            alexnet(num_classes=config.network.classes), config, device, LR
        )
    return builders


def contenders_on_cuda(config: Config, device: str) -> dict[str, Callable[[], Step]]:
    """Ours in both precisions, as they are, compiled and replayed; the peers eager in float32, or in their fastest."""
    builders: dict[str, Callable[[], Step]] = {}
    for precision in DTYPES:
        for words in ("", ", graph", ", compiled", ", compiled, graph"):
            builders[f"ours {precision}{words}"] = partial(
                trained, config, device, precision, LR, compiled="compiled" in words, graph="graph" in words
            )
    if _has_reference(config):
        for name in (REFERENCE, REFERENCE_TF32):
            builders[name] = lambda: theirs(reference(config.network), config, device, LR)
    if config.network.image == 224:
        from torchvision.models import alexnet

        builders["torchvision alexnet bfloat16, channels-last, compiled"] = lambda: theirs(
            alexnet(num_classes=config.network.classes), config, device, LR, True, bfloat16=True, compiled=True
        )
    return builders


def inputs(config: Config, options: argparse.Namespace, name: str) -> tuple[Tensor, Tensor]:
    """Random images in the layout the contender works in, and random labels."""
    generator = torch.Generator().manual_seed(1)
    side = config.network.image
    images = torch.randn(options.batch, 3, side, side, generator=generator) * 60
    labels = torch.randint(config.network.classes, (options.batch,), generator=generator)
    last = "ours" in name or "channels-last" in name
    layout = torch.channels_last if last else torch.contiguous_format
    return images.contiguous(memory_format=layout).to(options.device), labels.to(options.device)


def operations(entries: Sequence[LayerShape], batch: int) -> int:
    """Multiplications and additions of a step in these layers; the first has no backward pass to its input."""
    return 2 * batch * sum((2 if entry.inputs[0] == 3 else 3) * entry.connections for entry in entries)


def steps(config: Config, options: argparse.Namespace) -> Iterator[Result]:
    """All contenders and the matrix products in turns, after an untimed round; then their peak memory."""
    names = list(contenders(config, options.device))
    products = list(_products(options))
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, options)) for name in (*names, *products)}
        seconds = take_turns(workers, options.turns, measure=Worker.step)
        peaks = {name: worker.peak() for name, worker in workers.items()}
    for precision in DTYPES:
        own = min(
            (name for name in names if name.startswith(f"ours {precision}") and "without" not in name),
            key=lambda name: statistics.median(seconds[name]),
        )
        yield from _step_results(config, options, precision, own, seconds)
        yield _memory_result(config, options, precision, own, peaks)


def _step_results(
    config: Config, options: argparse.Namespace, precision: str, own: str, seconds: Mapping[str, list[float]]
) -> Iterator[Result]:
    """The step beside its peers, and beside itself without normalization."""
    total = operations(architecture.infer_shapes(config.network), options.batch)
    rate, whose = _rate(options, precision, seconds)
    name = f"training step, {config.preset}, batch {options.batch}, {precision}"
    result = compare_times(
        name,
        seconds,
        own,
        _peers(seconds),
        work=options.batch,
        unit="images/s",
        reference_rate=rate / total * options.batch,
        reference_basis=f"{total / 1e9:.0f} G operations at {rate / 1e9:.0f} G/s, {whose}'s product",
    )
    others = [key for key in seconds if key.startswith(f"ours {precision}") and key != own and "without" not in key]
    yield dataclasses.replace(
        result, also={f"{key}, images/s": rounded(options.batch / statistics.median(seconds[key])) for key in others}
    )
    plain = f"ours {precision} without LRN"
    if plain in seconds:
        name += ", beside itself without LRN"
        yield compare_times(name, seconds, f"ours {precision}", [plain], work=options.batch, unit="images/s")


def _memory_result(
    config: Config, options: argparse.Namespace, precision: str, own: str, peaks: Mapping[str, float]
) -> Result:
    peers = {peer: rounded(peaks[peer]) for peer in _peers(peaks)}
    return Result(
        f"peak memory, {config.preset}, batch {options.batch}, {precision}",
        rounded(peaks[own]),
        "MiB",
        by=own,
        peers=peers,
        ratio=round(next(iter(peers.values())) / peaks[own], 3) if peers else None,
    )


def _peers(names: Mapping[str, object]) -> list[str]:
    return [name for name in names if not name.startswith(("ours", "product"))]


class Worker:
    """A contender in a process of its own, which makes one step each time it is asked."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        facts = {key: value for key, value in vars(options).items() if key != "records"}
        command = python("benchmarks.train_step", json.dumps({**facts, "contender": name}))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=child_environment(), stdin=pipe, stdout=pipe, text=True)
        self.name = name

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def step(self) -> float:
        """Seconds of one step. Raises AlexnetError where the process has ended."""
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
            raise AlexnetError(f"the process of {self.name!r} ended with code {code}") from None


def make_call(name: str, options: argparse.Namespace) -> Call:
    """A contender's step or a matrix product, ready to be called."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = "TF32" in name
    if name.startswith("product"):
        return _products(options)[name]
    config = presets.preset(options.preset)
    step = contenders(config, options.device)[name]()
    return partial(step, *inputs(config, options, name))


def work(options: argparse.Namespace) -> None:
    """What a worker does: a step or its peak memory for each line on standard input, answered on standard output."""
    before = _held()
    if options.contender.startswith("ours") or options.contender == REFERENCE_KEPT:
        keep_freed_memory()
    call = make_call(options.contender, options)
    seconds = seconds_of(_clock(options))
    repeats = 1
    for line in sys.stdin:
        if line.strip() == "step":
            turn = _synchronized(partial(_repeat, call, repeats), options)  # a device is waited for once a turn
            turn()  # what slept through the others' turns wakes up: threads, and memory the system may have put aside
            elapsed = seconds(turn) / repeats
            repeats = max(repeats, math.ceil(TURN / elapsed))
            print(elapsed, flush=True)
        else:
            on_device = options.device == "cuda"
            print(torch.cuda.max_memory_allocated() / 2**20 if on_device else _held() - before, flush=True)


def _repeat(call: Call, times: int) -> None:
    for _ in range(times):
        call()


def layers(config: Config, options: argparse.Namespace, precision: str) -> Iterator[Result]:
    """Each layer's forward and backward alone, the loss, the update, and what a whole step takes beside their sum."""
    calls, shapes = _layer_calls(config, options, precision)
    # Not NumPy's product, whose threads stay awake for a while and would take time from what comes after it.
    products = {name: _synchronized(call, options) for name, call in _products(options).items() if "NumPy" not in name}
    seconds = take_turns({**calls, **products}, options.turns, 2, seconds_of(_clock(options)))
    rate, _ = _rate(options, precision, seconds)
    what = f"{config.preset}, batch {options.batch}, {precision}"
    parts = [name for name in calls if name != "step"]
    seconds["layers, loss and update"] = [sum(times) for times in zip(*(seconds[name] for name in parts), strict=True)]
    for name in parts:
        count = operations(shapes.get(name, []), options.batch)
        result = compare_times(
            f"{name} of {what}",
            seconds,
            name,
            ["step"],
            reference_rate=count / rate * 1e3 or None,
            reference_basis=f"{count / 1e9:.1f} G operations at {rate / 1e9:.0f} G/s" if count else "",
        )
        yield dataclasses.replace(result, ratio=None)  # a part of the step is not faster than it
    total = operations(architecture.infer_shapes(config.network), options.batch)
    whole = f"step of {what}"
    yield compare_times(whole, seconds, "step", ["layers, loss and update"], reference_rate=total / rate * 1e3)


def _layer_calls(
    config: Config, options: argparse.Namespace, precision: str
) -> tuple[dict[str, Call], dict[str, Sequence[LayerShape]]]:
    """What is timed, by name, and the layers in each; `step` is all of it."""
    bfloat16 = precision == "bfloat16"
    model = AlexNet(config.network, config.train.seed).to(options.device)
    images, labels = inputs(config, options, "ours")
    calls: dict[str, Call] = {}
    shapes: dict[str, Sequence[LayerShape]] = {}
    x = images
    for part in model.fused_layers:
        name = " ".join(entry.layer.name for entry in part)
        calls[name], x = _layer(model, part, x, options.device, bfloat16)
        shapes[name] = part
    logits = x.float().requires_grad_()
    calls["loss"] = lambda: torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    optimizer = SGD(parameter_groups(model, config.network, config.optimizer), LR)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    calls["update"] = optimizer.step
    step = ours(config, options.device, bfloat16, LR)
    calls["step"] = lambda: step(images, labels)
    return {name: _synchronized(call, options) for name, call in calls.items()}, shapes


def _layer(model: AlexNet, part: tuple[LayerShape, ...], x: Tensor, device: str, bfloat16: bool) -> tuple[Call, Tensor]:
    """Forward and backward of one part, and what it passes on; the images themselves need no gradient."""
    maps = x.detach().requires_grad_(part[0].inputs[0] != 3)
    inplace = isinstance(model.get_submodule(part[0].layer.name), torch.nn.ReLU)

    def forward() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            return model.apply_layers(part, maps.clone() if inplace else maps)

    out = forward()
    grad = torch.randn_like(out)
    wanted: list[Tensor] = [p for entry in part for p in model.get_submodule(entry.layer.name).parameters()]
    if maps.requires_grad:
        wanted.append(maps)
    return lambda: torch.autograd.grad(forward(), wanted, grad), out.detach()


def _rate(options: argparse.Namespace, precision: str, seconds: Mapping[str, list[float]]) -> tuple[float, str]:
    """Operations per second of the fastest matrix product, and whose it is."""
    names = [key for key in PRODUCTS[multiplied_as(precision, options.device)] if key in seconds]
    best = min(names, key=lambda key: statistics.median(seconds[key]))
    return 2 * side_of(options) ** 3 / statistics.median(seconds[best]), best.rpartition(" ")[2]


def _products(options: argparse.Namespace) -> dict[str, Call]:
    """Products of square matrices in each precision that is multiplied, in float32 on a CPU by NumPy too."""
    calls: dict[str, Call] = {}
    side = side_of(options)
    for precision in sorted({multiplied_as(precision, options.device) for precision in DTYPES}):
        own, numpys = PRODUCTS[precision]
        matrix = torch.randn(side, side).to(DTYPES[precision]).to(options.device)
        calls[own] = partial(torch.matmul, matrix, matrix)
        if precision == "float32" and options.device == "cpu":
            calls[numpys] = partial(np.matmul, matrix.numpy(), matrix.numpy())
    return calls


def _clock(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.processor_time else time.perf_counter


def _synchronized(call: Call, options: argparse.Namespace) -> Call:
    """The call, which on CUDA returns when the device is done."""
    if options.device == "cpu":
        return call

    def synchronized() -> None:
        call()
        torch.cuda.synchronize()

    return synchronized


def _has_reference(config: Config) -> bool:
    try:
        reference(config.network)
    except UsageError:
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
