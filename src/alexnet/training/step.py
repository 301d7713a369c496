"""One update of the weights: on a CPU op by op, on CUDA captured once as a graph and replayed without the host.

What was captured is repeated as it was: at the same addresses and with the same numbers. So all that differs from step
to step, images, targets, the keys of dropout and the learning rates, lies in tensors that are filled before a replay.
Nothing of this was run on a GPU yet; the tests replay on the CPU with a stand-in of the same rules.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from alexnet.data.random import fold_in
from alexnet.device import autocast
from alexnet.model.dropout import set_dropout_keys
from alexnet.training.sgd import SGD
from alexnet.training.task import Task

WARM = 3  # alike steps before a capture: kernels are then chosen and compiled, and every weight has its velocity


class Graph(Protocol):
    """Work on the device, captured without being done, to be done as often as asked."""

    def replay(self) -> Tensor:
        """Do the work; returns what it returned, in memory of its own."""
        ...


class CudaGraph:
    """A CUDA graph of `work`, which must not read from the device."""

    def __init__(self, work: Callable[[], Tensor], stream: Any) -> None:
        """Raises RuntimeError for work that cannot be captured; then nothing of it is done."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.result = work()

    def replay(self) -> Tensor:
        """As `Graph.replay`."""
        self.graph.replay()
        return self.result.clone()


Capture = Callable[[Callable[[], Tensor], Any], Graph]  # of work, on a stream


class Step:
    """Forward pass, loss, backward pass and update of a model, for batches on its device."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizer: SGD,
        seed: int,
        precision: str,
        capture: Capture | None = None,
    ) -> None:
        """`capture` is by default `CudaGraph` on CUDA and nothing elsewhere. It needs a `capturable` optimizer."""
        self.model, self.task, self.optimizer, self.seed, self.precision = model, task, optimizer, seed, precision
        self.device = next(model.parameters()).device
        on_cuda = self.device.type == "cuda"
        self.stream = torch.cuda.Stream(self.device) if on_cuda else None
        self.capture: Capture | None = capture or (CudaGraph if on_cuda and optimizer.capturable else None)
        self.names: list[str] = []  # of what is measured: the loss, then the task's metrics
        self.graph: Graph | None = None
        self.held: tuple[Tensor, ...] = ()  # what the graph reads
        self.kind: tuple[Any, ...] = ()  # of step that the graph repeats
        self.last: tuple[Any, ...] = ()
        self.alike = 0  # steps of the last kind in a row

    def __call__(self, inputs: Tensor, targets: Tensor, positions: Tensor, epoch: int, number: int) -> Tensor:
        """Update once; returns the sum over the images of each of `names`, float64 on the device.

        inputs and targets as the task prepared them; positions (N,) int64 in the split, of step `number` of an epoch.
        """
        torch.manual_seed(fold_in(self.seed, epoch, number, 3))  # other libraries' dropout
        self.optimizer.follow()
        if self.capture is None:
            set_dropout_keys(self.model, self.seed, epoch, positions)
            return self._update(inputs, targets)
        with self._aside():
            return self._repeat(inputs, targets, positions, torch.full((), epoch, device=self.device))

    def _repeat(self, *given: Tensor) -> Tensor:
        """The step by the graph of its kind; without one until enough steps alike came in a row.

        An uneven last batch is of another kind, and so is a step with other layers frozen.
        """
        frozen = tuple(group["lr"] == 0 for group in self.optimizer.param_groups)
        kind = (frozen, *((t.shape, t.stride(), t.dtype) for t in given))
        self.alike = self.alike + 1 if kind == self.last else 1
        self.last = kind
        if self.capture is not None and self.alike > WARM and kind != self.kind:
            self._capture(self.capture, kind, given)
        if self.graph is not None and kind == self.kind:
            for held, new in zip(self.held, given, strict=True):
                held.copy_(new)
            return self.graph.replay()
        return self._with_keys(*given)

    def _capture(self, capture: Capture, kind: tuple[Any, ...], given: tuple[Tensor, ...]) -> None:
        self.graph, self.kind = None, ()  # gives its memory back first
        self.held = tuple(t.clone() for t in given)
        try:
            self.graph, self.kind = capture(lambda: self._with_keys(*self.held), self.stream), kind
        except RuntimeError as error:
            line = next(iter(str(error).splitlines()), "")
            warnings.warn(f"steps go without a CUDA graph, slower: they cannot be captured ({line})", stacklevel=2)
            self.capture, self.held = None, ()

    def _with_keys(self, inputs: Tensor, targets: Tensor, positions: Tensor, epoch: Tensor) -> Tensor:
        set_dropout_keys(self.model, self.seed, epoch, positions)
        return self._update(inputs, targets)

    def _update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with autocast(self.precision, self.device):
            outputs = self.model(inputs)
        outputs = outputs.float()
        losses = self.task.loss(outputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        self.optimizer.update()
        values = {"loss": losses, **self.task.metrics(outputs.detach(), targets)}
        self.names = list(values)
        return torch.stack([value.detach().double().sum() for value in values.values()])

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work on the step's own stream, which a capture needs, after what the current stream was asked before."""
        if self.stream is None:
            yield
            return
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)
