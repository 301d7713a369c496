"""What computes the logits: torch, ONNX Runtime or OpenVINO, in float32, bfloat16 or int8, and the choice among them.

The torch model is the specification; the others compute its exported graph. Shapes: `N` views, `V` side of a view.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.device import autocast
from alexnet.errors import MissingLibrary, UsageError, suggestion
from alexnet.formats.export import onnx_model
from alexnet.model.native import multiplies_bfloat16
from alexnet.model.net import Net

PRECISIONS = ("float32", "bfloat16", "int8")


class Backend:
    """A network's logits and taps at test time. Safe to use from several threads at once."""

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()  # optional libraries
    extra: ClassVar[str] = ""  # which installs them

    def __init__(self, model: Net, precision: str = "float32") -> None:
        self.model, self.precision = model.eval(), precision
        self.device = torch.device("cpu")  # of the views that it is given

    def logits(self, views: Tensor) -> Tensor:
        """Float (N, 3, V, V), as the network takes them → float32 (N, classes) on the CPU."""
        raise NotImplementedError

    def taps(self, views: Tensor, names: Iterable[str] | None) -> dict[str, Tensor]:
        """Named activations of float views (N, 3, V, V): of the torch model in float32, where a graph has none."""
        return self.model.taps(views, names)

    @classmethod
    def installed(cls) -> bool:
        """Whether its libraries are there."""
        return all(find_spec(package) for package in cls.needs)


class TorchBackend(Backend):
    """The model itself, in eager torch; the only backend for CUDA."""

    name, precisions = "torch", ("float32", "bfloat16")

    def __init__(self, model: Net, precision: str = "float32") -> None:
        super().__init__(model, precision)
        self.device = next(model.parameters()).device
        self.rounded = _rounded(self.model) if precision == "bfloat16" else self.model

    def logits(self, views: Tensor) -> Tensor:
        """As `Backend.logits`, in the arithmetic of a training run of that precision."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return self.rounded(views).float().cpu()

    def taps(self, views: Tensor, names: Iterable[str] | None) -> dict[str, Tensor]:
        """As `Backend.taps`, in the arithmetic of `logits`."""
        with autocast(self.precision, self.device):
            return self.rounded.taps(views, names)


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime on the CPU, with normalization as a matrix product, which it computes faster than the LRN node."""

    name, precisions = "onnxruntime", ("float32",)
    needs, extra = ("onnx", "onnxruntime"), "export"

    def __init__(self, model: Net, precision: str = "float32") -> None:
        super().__init__(model, precision)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        content = onnx_model(model, products=True).SerializeToString()
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def logits(self, views: Tensor) -> Tensor:
        """As `Backend.logits`."""
        return torch.from_numpy(self.session.run(None, {"images": _array(views)})[0])


@cache
def openvino_core() -> Any:
    """The one OpenVINO core of this process, never given up.

    Each has a stack for signals of its own, and leaves the main thread with one that is gone: then Ctrl-C would crash.
    """
    import openvino

    return openvino.Core()


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU. bfloat16 is used where the processor multiplies it, float32 elsewhere."""

    name, precisions = "openvino", PRECISIONS
    needs, extra = ("onnx", "openvino"), "openvino"

    def __init__(self, model: Net, precision: str = "float32", graph: Any = None) -> None:
        """`graph` is computed in place of the model's own: the quantized one, for int8."""
        super().__init__(model, precision)
        core = openvino_core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        rounds = precision != "float32" and "BF16" in capabilities and multiplies_bfloat16()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if rounds else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        if graph is None:
            graph = core.read_model(onnx_model(model).SerializeToString())
        self.compiled = core.compile_model(graph, "CPU", settings)
        self.requests = threading.local()  # a request holds one thread's inputs and outputs

    def logits(self, views: Tensor) -> Tensor:
        """As `Backend.logits`."""
        if not hasattr(self.requests, "own"):
            self.requests.own = self.compiled.create_infer_request()
        request = self.requests.own
        request.infer({0: _array(views)}, share_inputs=True)
        return torch.from_numpy(np.array(request.get_output_tensor().data, dtype=np.float32))


# The fastest first, as `alexnet bench predict` finds them for batches of 1 and of 32; docs/speed.md has the records.
BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend for backend in (OpenVinoBackend, OnnxRuntimeBackend, TorchBackend)
}


def fastest(precision: str) -> list[type[Backend]]:
    """The installed backends that compute a precision, the fastest on a CPU first."""
    return [kind for kind in BACKENDS.values() if precision in kind.precisions and kind.installed()]


def choose(backend: str | None, precision: str, gpu: bool = False) -> type[Backend]:
    """The backend to use: the one asked for; by default torch, and OpenVINO for int8, which torch does not compute.

    `auto` is the fastest that is installed, torch where there is a `gpu`. Raises UsageError for a name or precision
    that does not fit, MissingLibrary for a library that is not installed.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} should be one of {', '.join(PRECISIONS)}")
    if backend is None:
        backend = "openvino" if precision == "int8" else "torch"
    if backend == "auto":
        if gpu and precision in TorchBackend.precisions:
            return TorchBackend
        able = fastest(precision)
        backend = able[0].name if able else "openvino"
    if backend not in BACKENDS:
        known = ("auto", "torch", "onnxruntime", "openvino")
        raise UsageError(f"backend {backend!r} should be one of {', '.join(known)}{suggestion(backend, known)}")
    chosen = BACKENDS[backend]
    if precision not in chosen.precisions:
        others = [kind.name for kind in BACKENDS.values() if precision in kind.precisions]
        raise UsageError(
            f"{backend} does not compute {precision}; choose the backend {' or '.join(others)}, or the precision "
            f"{' or '.join(chosen.precisions)}"
        )
    if not chosen.installed():
        raise MissingLibrary(f"{backend} needs {' and '.join(chosen.needs)}; pip install 'alexnet[{chosen.extra}]'")
    return chosen


def _rounded(model: Net) -> Net:
    """A copy whose kernels are bfloat16 already: autocast would round all of them again for every batch."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):  # their biases stay: the engine adds them unrounded
            module.weight.data = module.weight.data.bfloat16()
    return model


def _array(views: Tensor) -> np.ndarray:
    return np.ascontiguousarray(views.detach().float().cpu().numpy())
