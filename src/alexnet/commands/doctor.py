"""`alexnet doctor`: what this machine has for training and predicting, how fast it is, and what is missing."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import platform
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.commands.frame import Command, Result
from alexnet.commands.text_table import paragraph

# What each optional library of an extra is for; the extras and their libraries are read from the package itself.
EXTRAS = {
    "train": "training, measuring and reports",
    "hub": "images and models by hf:owner/name",
    "export": "ONNX files",
    "tensorboard": "--train.track tensorboard",
    "baselines": "the paper's rivals: `alexnet baseline`",
}
PROBE_SECONDS = 5.0  # at most, once everything is loaded


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, memory in bytes, and CUDA's compute capability."""

    name: str
    memory: int
    capability: str


@dataclass(frozen=True)
class Engine:
    """The compiled kernels: whether they are in use, why not, and the types whose convolutions they compute.

    `target` is the one in use, `targets` are all that this processor can run, the fastest first.
    """

    in_use: bool
    why_not: str | None
    convolution_dtypes: tuple[str, ...]
    target: str | None = None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cache:
    """A folder where this package, or one that it uses, keeps files; its size in bytes."""

    what: str
    path: str
    size: int


@dataclass(frozen=True)
class Missing:
    """An optional library that is not installed, what it is for, and how to get it."""

    library: str
    purpose: str
    command: str


@dataclass(frozen=True)
class Probe:
    """A quick measurement on the CPU: rates of matrix products in 1e9 operations per second, and one pass.

    `pass_ms` is the time of a forward and backward pass of the preset digits with 32 images, in milliseconds.
    """

    float32_rate: float
    bfloat16_rate: float
    pass_ms: float


@dataclass(frozen=True)
class Diagnosis:
    """Everything `alexnet doctor` finds out."""

    versions: dict[str, str | None]
    platform: str
    cpu: str
    instruction_class: str
    instruction_sets: tuple[str, ...]
    cores: int
    threads: int
    gpus: tuple[Gpu, ...]
    engine: Engine
    caches: tuple[Cache, ...]
    missing: tuple[Missing, ...]
    probe: Probe | None

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return dataclasses.asdict(self)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to measure."""
    parser.add_argument("--no-probe", action="store_true", help="measure nothing (the probe takes up to 5 seconds)")


def run(args: argparse.Namespace) -> Result:
    """The diagnosis of this machine."""
    diagnosis = diagnose(probe=not args.no_probe)
    return {**diagnosis.to_json(), "text": diagnosis_text(diagnosis)}


def diagnose(probe: bool = True) -> Diagnosis:
    """Find out what this machine has; with `probe`, measure it for at most five seconds, where there is torch."""
    from alexnet.device import cpu_count
    from alexnet.environment import cpu_name, instruction_sets, version

    torch: Any = None
    with contextlib.suppress(ModuleNotFoundError):
        import torch
    names, kind = instruction_sets()
    packages = ("alexnet", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "pyarrow", "safetensors")
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if torch else []
    return Diagnosis(
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        platform=platform.platform(),
        cpu=cpu_name(),
        instruction_class=kind,
        instruction_sets=names,
        cores=cpu_count(),
        threads=torch.get_num_threads() if torch else cpu_count(),
        gpus=tuple(Gpu(gpu.name, gpu.total_memory, f"{gpu.major}.{gpu.minor}") for gpu in gpus),
        engine=engine(),
        caches=tuple(caches()),
        missing=tuple(missing()),
        probe=measure() if probe and torch else None,
    )


def engine() -> Engine:
    """Whether the engine is in use, and for which target."""
    from alexnet.engine.convolution import supported_dtypes
    from alexnet.engine.library import library

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = library()
        dtypes = sorted(dtype.name.lower() for dtype in supported_dtypes())
    if found is not None:
        return Engine(True, None, tuple(dtypes), found.target, found.targets)
    if os.environ.get("ALEXNET_ENGINE") == "none":
        return Engine(False, "switched off by ALEXNET_ENGINE=none", ())
    return Engine(False, str(caught[0].message) if caught else "it could not be loaded", ())


def caches() -> list[Cache]:
    """The folders that grow outside of runs and stores."""
    from alexnet.files import cache_folder

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = {
        "kept tracebacks": cache_folder(),
        "torch: downloaded weights": Path(os.environ.get("TORCH_HOME") or home / "torch"),
        "Hugging Face: downloaded data": Path(os.environ.get("HF_HOME") or home / "huggingface"),
    }
    return [Cache(what, str(path), _size(path)) for what, path in places.items()]


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; 0 where it is not there."""
    sizes = (os.lstat(Path(root) / name).st_size for root, _, names in os.walk(folder) for name in names)
    return sum(sizes)


def missing() -> list[Missing]:
    """The optional libraries of this package's extras that are not installed."""
    from importlib import metadata  # slow to import

    from alexnet.environment import version

    try:
        requirements = metadata.requires("alexnet") or []
    except metadata.PackageNotFoundError:  # run from its source, without being installed
        return []
    lacking = []
    for requirement in requirements:
        parts = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", requirement)
        if parts and parts[2] in EXTRAS and version(parts[1]) is None:
            lacking.append(Missing(parts[1], EXTRAS[parts[2]], f"pip install 'alexnet[{parts[2]}]'"))
    return lacking


def measure() -> Probe:
    """Rates of matrix products, and the time of a small network's pass, on the CPU with torch's number of threads."""
    import torch

    import alexnet

    model = alexnet.create_model("digits")
    images, labels = torch.zeros(32, 3, 14, 14), torch.zeros(32, dtype=torch.int64)

    def one_pass() -> None:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()

    one_pass()
    return Probe(
        float32_rate=_product_rate(torch.float32),
        bfloat16_rate=_product_rate(torch.bfloat16),
        pass_ms=1e3 * _least_seconds(one_pass, PROBE_SECONDS / 5),
    )


def _product_rate(dtype: Any) -> float:
    """1e9 operations per second of square matrix products, as large as a tenth of a second allows."""
    import torch

    side, seconds = 128, 0.0
    while seconds < 0.02 and side < 2048:
        side *= 2
        matrix = torch.ones(side, side, dtype=dtype)
        seconds = _least_seconds(functools.partial(torch.mm, matrix, matrix), 0.0)
    seconds = min(seconds, _least_seconds(functools.partial(torch.mm, matrix, matrix), PROBE_SECONDS / 10))
    return 2e-9 * side**3 / seconds


def _least_seconds(work: Callable[[], object], budget: float) -> float:
    """The shortest time of some work, done once and then again until the budget of seconds is spent."""
    begun = time.perf_counter()
    least = float("inf")
    while True:
        before = time.perf_counter()
        work()
        now = time.perf_counter()
        least = min(least, now - before)
        if now - begun >= budget:
            return least


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The diagnosis in lines."""
    lines = [
        ("versions", ", ".join(f"{name} {value or 'missing'}" for name, value in diagnosis.versions.items())),
        ("system", diagnosis.platform),
        ("processor", f"{diagnosis.cpu}, {diagnosis.instruction_class}"),
        ("instructions", ", ".join(diagnosis.instruction_sets) or "the system does not name them"),
        ("threads", f"{diagnosis.threads} of {diagnosis.cores} cores (OMP_NUM_THREADS or --train.threads changes it)"),
    ]
    lines += [("GPU", f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB, compute {gpu.capability}") for gpu in diagnosis.gpus]
    if not diagnosis.gpus:
        which = "torch finds none" if diagnosis.versions["torch"] else "without torch none is used"
        lines.append(("GPU", f"{which}; everything runs on the CPU"))
    if diagnosis.engine.in_use:
        dtypes = " and ".join(diagnosis.engine.convolution_dtypes)
        others = ", ".join(name for name in diagnosis.engine.targets if name != diagnosis.engine.target)
        target = f"{diagnosis.engine.target}{f' (ALEXNET_ENGINE chooses {others})' if others else ''}"
        lines.append(("engine", f"in use for {target}; convolutions: {dtypes or 'torch is faster here'}"))
    else:
        lines.append(("engine", f"not in use: {diagnosis.engine.why_not}"))
    lines += [("cache", f"{cache.path}: {cache.size / 2**20:,.0f} MiB, {cache.what}") for cache in diagnosis.caches]
    lines += [("missing", f"{entry.library}, for {entry.purpose}: {entry.command}") for entry in diagnosis.missing]
    if not diagnosis.missing:
        lines.append(("missing", "no optional library"))
    if diagnosis.probe:
        rates = f"float32 {diagnosis.probe.float32_rate:,.0f}, bfloat16 {diagnosis.probe.bfloat16_rate:,.0f}"
        lines.append(("speed", f"matrix products, 1e9 operations per second: {rates}"))
        lines.append(("speed", f"forward and backward pass of digits, 32 images: {diagnosis.probe.pass_ms:.1f} ms"))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(paragraph(f"{name:<{width}}{text}", " " * width) for name, text in lines)


COMMAND = Command("doctor", "what this machine has, how fast it is, and what is missing", arguments, run)
