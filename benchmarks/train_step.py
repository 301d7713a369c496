"""How fast is a training step? Ours beside the textbook's network and torchvision's, taking turns in one run.

    python benchmarks/train_step.py [--preset paper|tiny-64|cifar-26] [--batch 128] [--repeats 5] [--json]
        [--device cpu|cuda] [--only TEXT] [--clock wall|cpu] [--keep-memory] [--no-memory]
    python benchmarks/train_step.py --parity [--steps 200] [--rate R] [--preset tiny-64] [--batch 128]

A step is forward, loss, backward and update on images that are already there. The textbook's network has the same
layers as torch.nn writes them (`LocalResponseNorm` on each column), in float32 and contiguous, with torch.optim.SGD.
Medians in milliseconds; the spread is the range over `--repeats`. The limit is the step's multiplications and
additions (two for each connection and image, forward, backward to the maps, backward to the weights; the first layer
needs no gradient of its input) at the rate of a 2048² product (8192² on CUDA) measured in the same turns. Peak memory
is that of a process of its own, above what it holds after importing torch.

`--parity` compares instead the losses of our step with the textbook's, from the same weights on the same batches. Two
float32 trajectories part when rounding flips a pooling winner or a ReLU, so the textbook's step with every weight
moved by about one rounding runs beside them: what it differs by is what any float32 step differs by.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import network as describe
from alexnet import presets
from alexnet.config import Config
from alexnet.model.zoo import build
from alexnet.native import build as native
from alexnet.native import convolution, keep_freed_memory
from alexnet.network import Network
from alexnet.training.sgd import SGD, parameter_groups

Step = Callable[[Tensor, Tensor], Tensor]
HALF = torch.bfloat16
RATE = 1e-4  # of learning: small, so that random labels do not end in NaN


class Columns(nn.Module):
    """`nn.LocalResponseNorm` on each column's maps; torch divides alpha by the size, the paper does not."""

    def __init__(self, layer: describe.LRN, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.norm = nn.LocalResponseNorm(
            layer.size, layer.alpha * (1 if layer.divide else layer.size), layer.beta, layer.k)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self.norm(part) for part in maps.chunk(self.columns, 1)], 1)


def textbook(network: Network) -> nn.Sequential:
    """The described network in layers of torch.nn, under our names, so that our weights load."""
    layers: dict[str, nn.Module] = {}
    for entry in describe.measure(network):
        layer = entry.layer
        if isinstance(layer, describe.Conv):
            past = -(entry.inputs[1] + 2 * layer.pad - layer.size) % layer.stride
            if layer.ceil and past:
                layers[f"{layer.name}_edges"] = nn.ZeroPad2d((0, past, 0, past))
            layers[layer.name] = nn.Conv2d(entry.inputs[0], layer.kernels, layer.size, layer.stride, layer.pad,
                                           groups=describe.groups(network, layer))
        elif isinstance(layer, describe.Full):
            if len(entry.inputs) == 3:
                layers["flat"] = nn.Flatten()
            units = entry.inputs[0] * (entry.inputs[1] * entry.inputs[2] if len(entry.inputs) == 3 else 1)
            layers[layer.name] = nn.Linear(units, entry.shape[0])
        elif isinstance(layer, describe.Activation):
            layers[layer.name] = nn.ReLU(inplace=True)
        elif isinstance(layer, describe.LRN):
            layers[layer.name] = Columns(layer, describe.groups(network, layer))
        elif isinstance(layer, describe.Pool):
            kind = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
            layers[layer.name] = kind(layer.size, layer.stride, ceil_mode=layer.ceil)
        elif isinstance(layer, describe.Dropout):
            layers[layer.name] = nn.Dropout(layer.rate)
    return nn.Sequential(OrderedDict(layers))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, device: str, half: bool = False) -> Step:
    """One update as the training loop does it."""
    def step(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, HALF, enabled=half):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def ours(config: Config, device: str, half: bool, rate: float, norm: bool = True, compiled: bool = False) -> Step:
    network = config.network
    if not norm:
        kept = tuple(layer for layer in network.layers if not isinstance(layer, describe.LRN))
        network = dataclasses.replace(network, layers=kept)
    model = build(network, config.train.seed).to(device)
    optimizer = SGD(parameter_groups(model, network, config.optimizer), rate)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return stepped(torch.compile(model) if compiled else model, optimizer, device, half)  # type: ignore[arg-type]


def theirs(model: nn.Module, config: Config, device: str, rate: float, channels_last: bool = False) -> Step:
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = config.optimizer
    rule = torch.optim.SGD(model.to(device).parameters(), rate, settings.momentum, weight_decay=settings.weight_decay)
    return stepped(model, rule, device)


def contenders(config: Config, device: str) -> dict[str, Callable[[], Step]]:
    """Name → how to build it; names say the arithmetic, and ours come first."""
    found: dict[str, Callable[[], Step]] = {
        "ours bfloat16": lambda: ours(config, device, True, RATE),
        "ours float32": lambda: ours(config, device, False, RATE),
    }
    if any(isinstance(layer, describe.LRN) for layer in config.network.layers):
        found["ours bfloat16 without LRN"] = lambda: ours(config, device, True, RATE, norm=False)
        found["ours float32 without LRN"] = lambda: ours(config, device, False, RATE, norm=False)
    if device == "cuda":
        found["ours bfloat16 compiled"] = lambda: ours(config, device, True, RATE, compiled=True)
    found["textbook float32"] = lambda: theirs(textbook(config.network), config, device, RATE)
    found["textbook float32 channels-last"] = lambda: theirs(textbook(config.network), config, device, RATE, True)
    if config.network.image == 224:
        from torchvision.models import alexnet

        found["torchvision alexnet float32"] = lambda: theirs(
            alexnet(num_classes=config.network.classes), config, device, RATE)
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


def speed(config: Config, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time all contenders and the matrix products in turns, after two untimed rounds."""
    side = 2048 if options.device == "cpu" else 8192
    matrices = {kind: torch.randn(side, side).to(kind).to(options.device) for kind in (torch.float32, HALF)}
    calls: dict[str, Callable[[], object]] = {}
    for name, make in contenders(config, options.device).items():
        if options.only is None or options.only in name:
            step, (images, labels) = make(), inputs(config, options, name)
            calls[name] = lambda step=step, images=images, labels=labels: step(images, labels).item()
    for kind, matrix in matrices.items():
        calls[f"product {kind}"] = lambda matrix=matrix: matrix @ matrix
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.repeats + 2):
        for name, call in calls.items():
            start = options.now()
            call()
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn > 1:
                times[name].append(options.now() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rates = {str(kind): 2 * side**3 / medians[f"product {kind}"] for kind in matrices}
    measured = describe.measure(config.network)
    operations = 2 * options.batch * (3 * sum(m.connections for m in measured) - measured[0].connections)
    figures = []
    for name in [name for name in calls if name.startswith("ours")]:
        kind = str(HALF if "bfloat16" in name else torch.float32)
        value, mine = medians[name], times[name]
        others = [peer for peer in calls if not peer.startswith("product") and peer != name]
        book = medians.get("textbook float32")
        plain = medians.get(f"{name} without LRN")
        limit = operations / rates[kind]
        shown = {peer: round(medians[peer] * 1e3, 1) for peer in others}
        figures.append({
            "name": f"training step, {config.preset}, batch {options.batch}, {name}",
            "value": round(value * 1e3, 1), "unit": "ms",
            "spread": [round(min(mine) * 1e3, 1), round(max(mine) * 1e3, 1)], "n": options.repeats,
            "images_per_second": round(options.batch / value, 1),
            "peers": shown, "ratio": round(book / value, 2) if book else None,
            "limit": round(limit * 1e3, 1), "limit_fraction": round(limit / value, 3),
            "over_no_lrn": round(value / plain, 3) if plain else None,
            "gflops": round(operations / value / 1e9, 1), "product_gflops": round(rates[kind] / 1e9, 1),
        })
    return figures


def peak(config: Config, options: argparse.Namespace, name: str) -> float:
    """MiB that three steps of one contender take above what the process held before."""
    before = held()
    step, (images, labels) = contenders(config, options.device)[name](), inputs(config, options, name)
    for _ in range(3):
        step(images, labels)
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return held() - before


def held() -> float:
    """The most MiB this process has held so far; `getrusage` alone would count what it was forked from."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peaks(config: Config, options: argparse.Namespace) -> dict[str, float]:
    """Each contender's peak memory, measured by this script in a process of its own."""
    found = {}
    for name in contenders(config, options.device):
        if options.only is None or options.only in name:
            command = [sys.executable, __file__, *sys.argv[1:], "--peak", name]
            found[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return found


def parity(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Losses of our step and the textbook's on class patterns in noise: relative gaps early, ends over three seeds."""
    names = ("ours float32", "ours bfloat16", "textbook float32", "textbook float32, weights moved")
    curves: dict[str, list[list[float]]] = {name: [] for name in names}
    rate = options.rate or config.optimizer.lr * options.batch / config.train.batch_size
    for seed in range(3):
        seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        start = build(config.network, seed).state_dict()
        for name, found in curves.items():
            step: Step
            if name.startswith("ours"):
                step = ours(seeded, options.device, "bfloat16" in name, rate)
            else:
                peer = textbook(config.network)
                peer.load_state_dict(start)
                if "moved" in name:
                    move(peer, seed)
                step = theirs(peer, config, options.device, rate)
            found.append([])
            for number in range(options.steps):
                images, labels = pattern(config, options, seed, number)
                torch.manual_seed(1000 * seed + number)  # dropout's draws
                found[-1].append(step(images, labels).item())
        print(f"seed {seed}: " + ", ".join(f"{name} ends at {mean_end(c[-1]):.4f}" for name, c in curves.items()),
              file=sys.stderr, flush=True)
    book = curves["textbook float32"]

    def gaps(name: str) -> list[float]:
        return [max(abs(a - b) / abs(b) for a, b in zip(mine[:20], theirs[:20], strict=True))
                for mine, theirs in zip(curves[name], book, strict=True)]

    return {
        "name": f"parity, {config.preset}, batch {options.batch}, {options.steps} steps, rate {rate:g}, 3 seeds",
        "float32_first_20_relative": gaps("ours float32"),
        "control_first_20_relative": gaps("textbook float32, weights moved"),
        "ends": {name: [round(mean_end(curve), 5) for curve in found] for name, found in curves.items()},
        "curves": curves,
    }


@torch.no_grad()
def move(model: nn.Module, seed: int) -> None:
    """Every parameter by about one rounding of float32."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.mul_(1 + 6e-8 * torch.randn(parameter.shape, generator=generator).to(parameter.device))


def mean_end(curve: list[float]) -> float:
    return statistics.fmean(curve[-20:])


def pattern(config: Config, options: argparse.Namespace, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """A batch of ten coarse pictures in noise, and which each is."""
    side = config.network.image
    pictures = torch.randn(10, 3, 7, 7, generator=torch.Generator().manual_seed(seed)) * 60
    generator = torch.Generator().manual_seed(10_000 * seed + number + 1)
    labels = torch.randint(10, (options.batch,), generator=generator)
    images = F.interpolate(pictures, size=side)[labels]
    images = images + torch.randn(images.shape, generator=generator) * 40
    return images.contiguous(memory_format=torch.channels_last).to(options.device), labels.to(options.device)


def tell(figure: dict[str, Any], to: Any) -> None:
    low, high = figure["spread"]
    line = f"{figure['name']:68} {figure['value']:8.1f} ms [{low:.1f} {high:.1f}]"
    line += f" {figure['images_per_second']:7.1f} images/s"
    line += f"  limit {figure['limit']:.1f} ({figure['limit_fraction']:.0%})"
    line += f"  x{figure['ratio']:.2f} of the textbook" if figure["ratio"] else ""
    line += f"  {figure['over_no_lrn']:.3f} of no LRN" if figure["over_no_lrn"] else ""
    print(line, file=to, flush=True)


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    served = ", ".join(sorted(str(kind) for kind in convolution.served())) or "none"
    return {"python": platform.python_version(), "torch": torch.__version__,
            "native": "yes" if native.library() is not None else "no", "native convolution": served}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=("paper", "tiny-64", "cifar-26"), default="paper")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", help="only contenders whose name has this in it")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a shared machine, one thread")
    parser.add_argument("--keep-memory", action="store_true", help="with keep_freed_memory(), for every contender")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--parity", action="store_true", help="compare losses instead of speed")
    parser.add_argument("--steps", type=int, default=200, help="of --parity")
    parser.add_argument("--rate", type=float, help="of --parity; by default the preset's, in proportion to the batch")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here")
    options.now = time.process_time if options.clock == "cpu" else time.perf_counter
    if options.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    config = presets.preset(options.preset)
    if options.peak:
        print(round(peak(config, options, options.peak), 1))
        return
    record: dict[str, Any] = {
        "hardware": hardware(options.device), "versions": versions(), "clock": options.clock,
        "keep_memory": options.keep_memory}
    if options.parity:
        record["parity"] = parity(config, options)
        for what in ("float32_first_20_relative", "control_first_20_relative"):
            print(f"{what}: " + " ".join(f"{gap:.1e}" for gap in record["parity"][what]), file=sys.stderr)
    else:
        record["figures"] = speed(config, options)
        out = sys.stderr if options.json else sys.stdout
        for figure in record["figures"]:
            tell(figure, out)
        if record["figures"]:
            print("peers, ms:", record["figures"][0]["peers"], file=out)
        if not options.no_memory:
            record["peak_memory_mib"] = peaks(config, options)
            print("peak memory, MiB:", record["peak_memory_mib"], file=out)
    record["not_run"] = [] if options.device == "cuda" else ["CUDA: not asked for in this run (--device cuda)"]
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
