"""The same prediction by other engines: torch, ONNX Runtime or OpenVINO, in float32, bfloat16 or int8.

Every engine computes the logits of one exported network; the torch model is the specification. Shapes: `N` views,
`C` side of a view.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alexnet.data.augment import Augmentation
from alexnet.errors import UsageError
from alexnet.inference import predictor as predict
from alexnet.inference.predictor import Classifier
from alexnet.model.alexnet import AlexNet
from alexnet.model.zoo import LibraryNet

Model = AlexNet | LibraryNet

PRECISIONS = ("float32", "bfloat16", "int8")
ENGINES = ("torch", "onnxruntime", "openvino")
COMPUTES = {"torch": ("float32", "bfloat16"), "onnxruntime": ("float32",), "openvino": PRECISIONS}
# The fastest first, as `alexnet bench predict` found them for batches of 1 and of 32; docs/speed.md has the figures.
FASTEST = {"float32": ("openvino", "onnxruntime", "torch"), "bfloat16": ("openvino", "torch"), "int8": ("openvino",)}
NEEDS = {"onnxruntime": (("onnx", "onnxruntime"), "export"), "openvino": (("onnx", "openvino"), "openvino")}
VIEWS_AT_ONCE = 64  # beyond this a larger batch is no faster, only larger


class EngineError(UsageError):
    """An engine that is not installed or does not compute the precision; the message says what to install or choose."""


class Engine(Protocol):
    """Something that computes logits."""

    name: str
    precision: str

    def logits(self, views: Tensor) -> Tensor:
        """Float (N, 3, C, C), as the network takes them → float32 (N, classes) on the CPU."""
        ...


class TorchEngine:
    """The model itself, in eager torch; the only engine for CUDA."""

    name = "torch"

    def __init__(self, model: Model, precision: str = "float32", threads: int | None = None) -> None:
        self.precision = precision
        self.kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        # A copy with weights of that kind: autocast would convert all of them again for every batch.
        self.model = copy.deepcopy(model).to(self.kind).eval() if precision == "bfloat16" else model.eval()
        self.device = next(model.parameters()).device

    def logits(self, views: Tensor) -> Tensor:
        """See `Engine`."""
        with torch.inference_mode():
            return self.model(views.to(self.device, self.kind)).float().cpu()


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU, with normalization as a matrix product, which it computes faster than the LRN node."""

    name, precision = "onnxruntime", "float32"

    def __init__(self, model: Model, precision: str = "float32", threads: int | None = None) -> None:
        import onnxruntime

        from alexnet.formats.export import onnx_model

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        content = onnx_model(model, products=True).SerializeToString()
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def logits(self, views: Tensor) -> Tensor:
        """See `Engine`."""
        return torch.from_numpy(self.session.run(None, {"images": _array(views)})[0])


class OpenVinoEngine:
    """OpenVINO on the CPU. bfloat16 is used where the processor multiplies it, float32 elsewhere."""

    name = "openvino"

    def __init__(self, model: Model | Any, precision: str = "float32", threads: int | None = None) -> None:
        """`model` is ours or, for int8, one that `quantization.quantize` made."""
        import openvino

        self.core, self.precision = openvino.Core(), precision
        self.threads = threads or torch.get_num_threads()
        self.model = model if isinstance(model, AlexNet) else None
        self.sharing: dict[int, Any] = {}
        if isinstance(model, AlexNet | LibraryNet):
            from alexnet.formats.export import onnx_model

            model = self.core.read_model(onnx_model(model).SerializeToString())
        self.request = self._compiled(model)

    def logits(self, views: Tensor) -> Tensor:
        """See `Engine`."""
        return self._infer(self.request, views)

    def shares(self, square: int) -> bool:
        """Whether `crop_logits` serves squares of that side: where the crops share work. int8 has no such graph."""
        from alexnet.formats.five_crop_graph import shares

        return self.model is not None and shares(self.model.network, square)

    def crop_logits(self, squares: Tensor) -> Tensor:
        """Centred squares (M, 3, S, S) → the logits (5, M, classes) of four corners and centre."""
        from alexnet.formats.five_crop_graph import views_graph

        side = squares.shape[-1]
        if side not in self.sharing:
            assert self.model is not None
            graph = views_graph(self.model.network, self.model.state_dict(), side)
            self.sharing[side] = self._compiled(self.core.read_model(graph.SerializeToString()))
        return self._infer(self.sharing[side], squares).unflatten(0, (5, len(squares)))

    def _compiled(self, model: Any) -> Any:
        half = self.precision != "float32" and "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": self.threads,
            },
        ).create_infer_request()

    def _infer(self, request: Any, values: Tensor) -> Tensor:
        request.infer({0: _array(values)}, share_inputs=True)
        return torch.from_numpy(np.array(request.get_output_tensor().data, dtype=np.float32))


KINDS: dict[str, Any] = {"torch": TorchEngine, "onnxruntime": OnnxRuntimeEngine, "openvino": OpenVinoEngine}


class EngineClassifier(Classifier):
    """A classifier whose logits come from an engine; ten views of few images go through it together."""

    def __init__(self, classifier: Classifier, engine: Engine) -> None:
        super().__init__(classifier.run, classifier.model, classifier.augmentation, classifier.device)
        self.engine = engine

    @torch.no_grad()
    def probabilities(self, images: Tensor, views: int = 1) -> Tensor:
        """As `Classifier.probabilities`."""
        places = self.augmentation.views(views)
        n = len(images)
        if views > 1 and isinstance(self.engine, OpenVinoEngine) and self.engine.shares(images.shape[1]):
            return self._shared(images, mirrored=views == 10)
        together = max(1, VIEWS_AT_ONCE // max(1, n))
        total = torch.zeros(n, len(self.classes))
        for first in range(0, len(places), together):
            some = [self.augmentation.test(images, *place) for place in places[first : first + together]]
            softmax = self.engine.logits(torch.cat(some) if len(some) > 1 else some[0]).softmax(1)
            total += softmax.unflatten(0, (len(some), n)).sum(0)
        return total / len(places)

    def _shared(self, images: Tensor, mirrored: bool) -> Tensor:
        """Averaged over the crops of the squares, and of their mirror images: the same views, some work done once."""
        assert isinstance(self.engine, OpenVinoEngine)
        squares = centred(self.augmentation, images)
        if mirrored:
            squares = torch.cat([squares, squares.flip(3)])
        step = max(1, VIEWS_AT_ONCE // 5)
        parts = [self.engine.crop_logits(part).softmax(2).mean(0) for part in squares.split(step)]
        found = torch.cat(parts)
        return found.unflatten(0, (2, len(images))).mean(0) if mirrored else found


def centred(augmentation: Augmentation, images: Tensor) -> Tensor:
    """Whole squares uint8 (N, S, S, 3) → float (N, 3, S, S), of which every test view is a part."""
    side, crop = augmentation.size, augmentation.crop
    mean = torch.empty(side, side, 3)
    for row in (0, side - crop):  # the corners' means cover the mean image
        for column in (0, side - crop):
            mean[row : row + crop, column : column + crop] = augmentation.means[row, column]
    squares = images.float() - mean
    if augmentation.scale is not None:
        squares = squares * augmentation.scale
    return squares.permute(0, 3, 1, 2)


def load(
    path: str | Path,
    checkpoint: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
) -> EngineClassifier:
    """The classifier of a run with an engine behind its `predict`.

    `engine` is torch, onnxruntime, openvino, or auto: the fastest installed one, torch on CUDA. `precision` is
    float32, bfloat16 or int8 (default: what the run was trained in). int8 is calibrated on the run's training images
    at first use and kept in the run directory. Raises EngineError for a library that is not installed, and what
    `predict.load` raises.
    """
    if precision not in (None, *PRECISIONS):
        raise EngineError(f"precision {precision!r} should be one of {', '.join(PRECISIONS)}")
    classifier = predict.load(path, checkpoint, device)
    kind = precision or classifier.config.train.precision
    name = choose(engine, kind, classifier.device.type)
    if kind == "int8":
        from alexnet.inference.quantization import quantized

        return EngineClassifier(classifier, OpenVinoEngine(quantized(classifier), kind, threads))
    return EngineClassifier(classifier, KINDS[name](classifier.model, kind, threads))


def choose(engine: str, precision: str, device: str = "cpu") -> str:
    """The engine to use: the one asked for, or for `auto` the fastest that is installed. Raises EngineError."""
    if engine == "auto":
        if device != "cpu" and precision != "int8":
            return "torch"
        found = [name for name in FASTEST[precision] if installed(name)]
        if not found:
            raise EngineError(f"{precision} needs OpenVINO; pip install 'alexnet[openvino]'")
        return found[0]
    if engine not in ENGINES:
        raise EngineError(f"engine {engine!r} should be auto, {', '.join(ENGINES)}")
    if precision not in COMPUTES[engine]:
        able = [name for name in ENGINES if precision in COMPUTES[name]]
        raise EngineError(f"{engine} does not compute {precision} here; choose {' or '.join(able)}")
    if not installed(engine):
        packages, extra = NEEDS[engine]
        raise EngineError(f"{engine} needs {' and '.join(packages)}; pip install 'alexnet[{extra}]'")
    return engine


def installed(engine: str) -> bool:
    """Whether an engine's libraries are there."""
    return all(find_spec(package) for package in NEEDS[engine][0]) if engine in NEEDS else True


def _array(views: Tensor) -> np.ndarray:
    return np.ascontiguousarray(views.detach().float().cpu().numpy())
