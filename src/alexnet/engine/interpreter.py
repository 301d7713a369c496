"""The interpreter: an architecture with weights, from uint8 squares to logits and named taps on the CPU, without torch.

Shapes: `N` images, `S` side of a square, `V` of a view, `C` classes or maps, `H W` rows and columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alexnet.architecture import Network
from alexnet.engine.compiled_network import CompiledNetwork
from alexnet.engine.library import Dtype, library
from alexnet.engine.plain_network import PlainNetwork, View
from alexnet.engine.preparation import Floats, Step, prepare
from alexnet.engine.quantization import quantizers, view_limits
from alexnet.errors import UsageError, quoted, suggestion

PRECISIONS = ("float32", "bfloat16", "int8")
VIEWS_AT_ONCE = 64  # beyond this a larger batch is no faster, only larger


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Interpreter:
    """A network, ready to predict. Safe to use from several threads at once."""

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, NDArray[np.floating]],
        *,
        mean: NDArray[np.float32] | None = None,
        scale: NDArray[np.float32] | None = None,
        precision: str = "float32",
        ranges: Mapping[str, float] | None = None,
        threads: int | None = None,
    ) -> None:
        """Take weights by name as a model's state has them; contiguous float32 ones are not copied.

        mean: (S, S, 3), subtracted from squares; scale: (3,), what the difference is multiplied by. precision: float32,
        bfloat16, or int8, which needs `ranges`: the largest absolute values of the taps (`quantization.sources`) that
        layers take. Convolutions and fully-connected layers whose tap has none are computed in bfloat16, as is
        everything else then. Raises UsageError, and CheckpointError naming a weight that does not fit.
        """
        if network.library:
            raise UsageError(f"the network {network.name} is built by torchvision; only torch can run it")
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UsageError(
                f"precision {quoted(precision)} should be one of {known}{suggestion(str(precision), PRECISIONS)}"
            )
        if (ranges is not None) != (precision == "int8"):
            raise UsageError("int8, and no other precision, needs ranges of activations, measured on images")
        self.network, self.precision = network, precision
        self._mean = None if mean is None else np.ascontiguousarray(mean, np.float32)
        side = None if self._mean is None else self._mean.shape
        if side is not None and (len(side) != 3 or side[0] != side[1] or side[2] != 3 or side[0] < network.image):
            raise UsageError(f"a mean of shape {side} should be (S, S, 3), S at least {network.image}")
        factors = None if scale is None else np.ascontiguousarray(scale, np.float32).reshape(3)
        steps = prepare(network, weights)
        self.shapes = [step.entry for step in steps]
        self.names = tuple(entry.name for entry in self.shapes)  # of the taps, in the order of the layers
        self._quantizers = quantizers(network, ranges or {}, view_limits(self._mean, factors))
        self._computed: CompiledNetwork | PlainNetwork
        self._computed = self._compiled(steps, factors, threads) if library() else self._plain(steps, factors)

    def _plain(self, steps: list[Step], scale: Floats | None) -> PlainNetwork:
        rounds = self.precision != "float32"
        return PlainNetwork(self.network, steps, self._mean, scale, rounds, self._quantizers)

    def _compiled(self, steps: list[Step], scale: Floats | None, threads: int | None) -> CompiledNetwork:
        dtype = Dtype.FLOAT32 if self.precision == "float32" else Dtype.BFLOAT16
        return CompiledNetwork(self.network, steps, self._mean, scale, dtype, threads or processors(), self._quantizers)

    def logits(self, squares: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        """uint8 squares (N, S, S, 3) → (views, N, C); a view is its top, left and whether it is mirrored.

        Several views of few images go through the network together. Raises UsageError for squares of another shape and
        for views that do not lie in them.
        """
        self._check(squares, views)
        n, last = len(squares), self.names[-1]
        out = np.empty((len(views), n, self.network.classes), np.float32)
        together = max(1, VIEWS_AT_ONCE // max(1, n))
        for start in range(0, n, VIEWS_AT_ONCE):
            some = squares[start : start + VIEWS_AT_ONCE]
            for first in range(0, len(views), together):
                part = views[first : first + together]
                taps = self._computed.forward(some, part, {last})
                out[first : first + together, start : start + len(some)] = taps[last].reshape(len(part), len(some), -1)
        return out

    def taps(
        self, squares: NDArray[np.uint8], view: View, names: Iterable[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Named activations of one view of squares (N, S, S, 3), as copies: (N, C, H, W) or (N, units).

        `names` limits what is computed and kept. Raises UsageError as `logits`, and for a name that is not known.
        """
        self._check(squares, [view])
        wanted = set(self.names if names is None else names)
        if unknown := wanted - set(self.names):
            name = sorted(map(str, unknown))[0]
            raise UsageError(f"the network has no tap {quoted(name)}; it has {', '.join(self.names)}")
        shapes = {entry.name: entry.shape for entry in self.shapes if entry.name in wanted}
        out = {name: np.empty((len(squares), *shape), np.float32) for name, shape in shapes.items()}
        for start in range(0, len(squares) if wanted else 0, VIEWS_AT_ONCE):
            some = slice(start, start + VIEWS_AT_ONCE)
            for name, values in self._computed.forward(squares[some], [view], wanted).items():
                out[name][some] = values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
        return out

    def _check(self, squares: NDArray[np.uint8], views: Sequence[View]) -> None:
        side = squares.shape[1] if squares.ndim == 4 else 0
        wanted = (side, side, 3) if self._mean is None else self._mean.shape
        if squares.dtype != np.uint8 or squares.ndim != 4 or squares.shape[1:] != wanted:
            words = ", ".join(map(str, ("N", *(wanted if self._mean is not None else ("S", "S", 3)))))
            raise UsageError(f"squares of {squares.dtype} {squares.shape} should be uint8 ({words})")
        room = side - self.network.image
        for top, left, _ in views:
            if not (0 <= top <= room and 0 <= left <= room):
                raise UsageError(
                    f"a view at ({top}, {left}) does not lie in squares of side {side}: {room} is the last"
                )
