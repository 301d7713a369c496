"""How fast is prediction? Ours by the engine beside torch, torchvision, ONNX Runtime and OpenVINO, in one run.

Ours is the `paper` network behind `predict`: from uint8 squares to averaged softmax outputs, by the engine in each
precision and by torch. The peers get finished float views and stop at the logits: torchvision's alexnet (no
normalization, other kernels, 714 million products per image where ours has 724) eager and compiled; ONNX Runtime and
OpenVINO on the ONNX file that `formats.export` writes, in the form that each computes fastest, and OpenVINO in int8 as
NNCF quantizes it. Contenders take turns. The weights are fresh ones: their values do not matter to the time.

Reference rates, measured in the same turns on the same threads: at batch 1 every weight must travel once (bytes over
the bandwidth at which memory is read); in larger batches the products must be made (over the rate at which torch
multiplies square matrices of `--side`; for float32 half the bfloat16 rate where that is more, for bfloat16 the float32
rate where the processor has no products of it).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet import presets
from alexnet.architecture import infer_shapes, parameters
from alexnet.checkpoint import Checkpoint, arrays, save_checkpoint
from alexnet.config import Config
from alexnet.data.statistics import Accumulator
from alexnet.data.views import views as views_of
from alexnet.errors import AlexnetError
from alexnet.files import write_json
from alexnet.formats.export import onnx_model
from alexnet.inference.backends import BACKENDS, PRECISIONS, Backend
from alexnet.inference.network import NetworkPredictor, Trained
from alexnet.inference.quantization import calibrate
from alexnet.inference.torch_backend import TorchBackend
from alexnet.model.alexnet import AlexNet
from alexnet.model.native import multiplies_bfloat16
from alexnet.predictor import Predictor
from alexnet.run import Run
from benchmarks.processes import child_environment, python
from benchmarks.products import multiplied_as, side_argument, side_of
from benchmarks.records import Result
from benchmarks.start import STAGES
from benchmarks.timing import Call, compare_times, seconds_of, take_turns

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
CALIBRATION = 16  # views; random ones, for times only
READ = 1 << 28  # bytes, more than a cache holds


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this question."""
    parser.add_argument("--turns", type=int, default=9, help="timed calls of each contender")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="batch sizes")
    parser.add_argument("--views", type=int, nargs="+", choices=(1, 5, 10), default=[1, 10], help="views")
    parser.add_argument("--preset", default="paper", help="the network")
    parser.add_argument("--no-compile", action="store_true", help="leave torchvision compiled out")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count this process's processor seconds: for one thread on a shared machine",
    )
    side_argument(parser)
    parser.add_argument("--no-start", action="store_true", help="leave out loading, first calls and the commands")


def measure(options: argparse.Namespace) -> Iterator[Result]:
    """Latency and speed by batch, views and precision; then loading, first calls and the commands' times."""
    torch.manual_seed(0)
    bench = Bench(options)
    for views in options.views:
        for batch in options.batches:
            yield from bench.compare(batch, views)
    if not options.no_start:
        yield from starts(options)


def reference_calls(options: argparse.Namespace) -> dict[str, Call]:
    """What the reference rates are made of: reading memory, and products of matrices in each precision."""
    numbers = torch.zeros(READ // 4)
    side = side_of(options)
    a, b = torch.randn(side, side), torch.randn(side, side).bfloat16()
    c = a.to(torch.int8)
    calls: dict[str, Call] = {"read": lambda: numbers.sum(), "float32": lambda: a @ a}
    if multiplied_as("bfloat16") == "bfloat16":
        calls["bfloat16"] = lambda: b @ b
    if hasattr(torch, "_int_mm"):
        calls["int8"] = lambda: torch._int_mm(c, c)
    return {f"reference {name}": call for name, call in calls.items()}


class Bench:
    """The networks of one run, ready to be called."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        preset = options.preset
        self.config = preset if isinstance(preset, Config) else presets.preset(preset)
        self.network = self.config.network
        sums = Accumulator(self.config.data.size)
        sums.add(self.pictures(4))
        classes = tuple(str(i) for i in range(self.network.classes))
        weights = arrays(AlexNet(self.network).state_dict())
        self.trained = Trained(self.config, weights, sums.statistics().mean_image, classes)
        self.plain = TorchBackend(self.trained.torch_model(), *self.trained.centring())
        self.ours = {
            f"{name} {precision}": NetworkPredictor(self.trained, self._backend(name, precision), name, precision)
            for name, precisions in BACKENDS.items()
            for precision in precisions
        }
        self.peers = self._peers()
        self.products = sum(entry.connections for entry in infer_shapes(self.network))
        self.weights = {precision: parameters(self.network) * size for precision, size in BYTES.items()}
        self.weights["int8"] += infer_shapes(self.network)[-1].parameters  # the last layer stays in bfloat16

    def pictures(self, n: int) -> np.ndarray:
        """n uint8 squares of noise."""
        side = self.config.data.size
        return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)

    def compare(self, batch: int, views: int) -> Iterator[Result]:
        """A result for each precision of ours, all contenders taking turns."""
        images = self.pictures(batch)
        places = views_of(views, self.config.data.size, self.network.image)
        inputs = torch.cat([self.plain.view(torch.from_numpy(images), *place) for place in places]).contiguous()
        calls: dict[str, Call] = {f"ours {name}": _probabilities(net, images, views) for name, net in self.ours.items()}
        calls |= {name: _peer(peer, inputs) for name, peer in self.peers.items()} | reference_calls(self.options)
        clock = time.process_time if self.options.processor_time else time.perf_counter
        seconds = take_turns(calls, self.options.turns, 2, seconds_of(clock))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for precision in PRECISIONS:
            mine = [name for name in calls if name.startswith("ours ") and name.endswith(f" {precision}")]
            if not mine:
                continue
            wider = PRECISIONS[PRECISIONS.index(precision) + 1 :]
            peers = sorted((name for name in self.peers if not name.endswith(wider)), key=medians.__getitem__)
            what = {1: "centre view", 5: "five views", 10: "ten views"}[views]
            name = f"{what}, batch {batch}, {precision}"
            peers += mine[1:]  # torch's
            if batch * views == 1:
                yield compare_times(name, seconds, mine[0], peers, **self._read_reference(precision, medians))
            else:
                reference = self._product_reference(precision, views, medians)
                yield compare_times(name, seconds, mine[0], peers, work=batch, unit="images/s", **reference)

    def _read_reference(self, precision: str, medians: dict[str, float]) -> dict[str, Any]:
        """Milliseconds in which every weight is read once."""
        bandwidth = READ / medians["reference read"]
        basis = f"{self.weights[precision] / 1e6:.0f} MB over {bandwidth / 1e9:.1f} GB/s"
        return {"reference_rate": self.weights[precision] / bandwidth * 1e3, "reference_basis": basis}

    def _product_reference(self, precision: str, views: int, medians: dict[str, float]) -> dict[str, Any]:
        """Images per second at the rate of the matrix products; nothing where torch has no such product."""
        rates = {
            name: side_of(self.options) ** 3 / medians[f"reference {multiplied_as(name)}"]
            for name in BYTES
            if f"reference {multiplied_as(name)}" in medians
        }
        if multiplied_as("bfloat16") == "bfloat16":
            rates["float32"] = max(rates["float32"], rates["bfloat16"] / 2)  # torch's is not every processor's fastest
        if precision not in rates:
            return {}
        basis = f"matrices at {2 * rates[precision] / 1e9:.0f} G operations/s"
        return {"reference_rate": rates[precision] / (self.products * views), "reference_basis": basis}

    def _backend(self, name: str, precision: str) -> Backend:
        if name == "torch":
            return TorchBackend(self.trained.torch_model(), *self.trained.centring(), precision)
        ranges = calibrate(self.trained, self.pictures(CALIBRATION)).ranges if precision == "int8" else None
        return self.trained.interpreter(precision, ranges)

    def _peers(self) -> dict[str, Callable[[Tensor], object]]:
        from torchvision.models import alexnet

        with torch.random.fork_rng():
            theirs = alexnet(weights=None).eval()
        rounded = copy.deepcopy(theirs).bfloat16()
        peers: dict[str, Callable[[Tensor], object]] = {"torchvision eager": _inference(theirs)}
        native = multiplies_bfloat16()  # elsewhere a batch would take them a minute
        if native:
            peers["torchvision eager bfloat16"] = _inference(rounded, torch.bfloat16)
        if not self.options.no_compile:
            peers["torchvision compiled"] = _inference(torch.compile(theirs))
            if native:
                peers["torchvision compiled bfloat16"] = _inference(torch.compile(rounded), torch.bfloat16)
        if find_spec("onnx") and find_spec("onnxruntime"):
            products = onnx_model(self.network, self.trained.weights, products=True)
            peers["ONNX Runtime"] = _onnx_runtime(products.SerializeToString())
        if find_spec("onnx") and find_spec("openvino"):
            graph = openvino_core().read_model(onnx_model(self.network, self.trained.weights).SerializeToString())
            peers["OpenVINO"] = _openvino(graph, "f32")
            if native:
                peers["OpenVINO bfloat16"] = _openvino(graph, "bf16")
            if find_spec("nncf"):
                noise = torch.from_numpy(self.pictures(CALIBRATION))
                place = views_of(1, self.config.data.size, self.network.image)[0]
                small = quantized(graph, self.plain.view(noise, *place).contiguous().numpy())
                peers["OpenVINO int8"] = _openvino(small, "bf16" if native else "f32")
        return peers


def starts(options: argparse.Namespace) -> Iterator[Result]:
    """Seconds to load a run, of the first call and of a warm one, each in a fresh process; and of whole commands."""
    turns = max(3, options.turns // 3)
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        run, picture = fresh_run(options.preset, Path(folder))
        ways = {"ours " + backend: [backend, str(run)] for backend in BACKENDS}
        ways["torchvision eager"] = ["torchvision", ""]
        if not options.no_compile:
            ways["torchvision compiled"] = ["torchvision-compiled", ""]
        times: dict[str, dict[str, list[float]]] = {stage: {way: [] for way in ways} for stage in STAGES}
        for _ in range(turns):
            for way, words in ways.items():
                for stage, seconds in _fresh(["benchmarks.start", *words]).items():
                    times[stage][way].append(seconds)
        for stage in STAGES:
            yield compare_times(
                f"{stage}, batch 1, a fresh process",
                times[stage],
                "ours engine",
                ["torchvision eager", *(way for way in ways if not way.endswith(("engine", "eager")))],
                unit="s",
            )
        commands = {
            "alexnet --help": (["alexnet.cli", "--help"], 0.4),
            "alexnet predict on one image": (["alexnet.cli", "predict", str(run), str(picture)], 0.6),
        }
        for name, (words, aim) in commands.items():
            took = take_turns({name: _command(words)}, turns)
            yield compare_times(name, took, name, [], unit="s", reference_rate=aim, reference_basis="the aim")


def fresh_run(preset: str, folder: Path) -> tuple[Path, Path]:
    """A run directory with initial weights, and a picture to predict."""
    from PIL import Image

    config = presets.preset(preset)
    run = Run.create(folder / "run", config)
    sums = Accumulator(config.data.size)
    noise = np.random.default_rng(0).integers(0, 256, (4, config.data.size, config.data.size, 3), dtype=np.uint8)
    sums.add(noise)
    sums.statistics().save(run.statistics_file)
    classes = [str(i) for i in range(config.network.classes)]
    source = {"source": "none", "classes": classes, "splits": {"train": 0, "val": 0}, "validation": "none"}
    write_json(run.path / "source.json", source)
    save_checkpoint(run.checkpoints / "last.safetensors", Checkpoint(AlexNet(config.network).state_dict(), {}, {}))
    picture = folder / "picture.jpg"
    Image.fromarray(noise[0]).resize((400, 300)).save(picture)
    return run.path, picture


def _fresh(words: list[str]) -> dict[str, float]:
    began = time.perf_counter()
    done = subprocess.run(python(*words), env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AlexnetError(f"python -m {' '.join(words)} failed: {done.stderr.strip().splitlines()[-1:]}")
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    # What the process spent before it was ours to time: Python and the imports.
    seconds[STAGES[0]] += max(0.0, time.perf_counter() - began - seconds.pop("inside"))
    return seconds


def _command(words: list[str]) -> Call:
    return lambda: subprocess.run(python(*words), env=child_environment(), capture_output=True, check=True)


def _probabilities(net: Predictor, images: np.ndarray, views: int) -> Call:
    return lambda: net.probabilities(images, views)


def _peer(peer: Callable[[Tensor], object], inputs: Tensor) -> Call:
    return lambda: peer(inputs)


def _inference(model: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> Callable[[Tensor], object]:
    def call(views: Tensor) -> object:
        with torch.inference_mode():
            return model(views.to(dtype))

    return call


def _onnx_runtime(content: bytes) -> Callable[[Tensor], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda views: session.run(None, {"images": views.numpy()})


@cache
def openvino_core() -> Any:
    """The one OpenVINO core of this process, never given up: one that is leaves signals without their stack."""
    import openvino

    return openvino.Core()


def _openvino(graph: Any, precision: str) -> Callable[[Tensor], object]:
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = openvino_core().compile_model(graph, "CPU", settings).create_infer_request()
    return lambda views: request.infer({0: views.numpy()}, share_inputs=True)


def quantized(graph: Any, views: np.ndarray) -> Any:
    """An OpenVINO graph in int8 by NNCF, but for the layer that gives the logits, with maps rounded after pooling.

    views: float32 (N, 3, V, V), on which ranges are measured.
    """
    os.environ.setdefault("NNCF_CI", "1")  # it would otherwise report its use over the network
    import nncf

    nncf.set_log_level(logging.ERROR)
    operations = graph.get_ordered_ops()
    ignored = [op.get_friendly_name() for op in operations if op.get_type_name() == "MaxPool"]
    ignored += [op.get_friendly_name() for op in operations if op.get_type_name() == "MatMul"][-1:]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # its progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset([views[i : i + 1] for i in range(len(views))]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(views),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )
