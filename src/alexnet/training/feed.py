"""The way of batches to the device: on CUDA copied and cut on a stream of their own while the step before works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

AHEAD = 2  # steps that the device may have before it when the host goes on: one at work and one waiting


class Feed:
    """Makes batches of tensors on a device; on CUDA the host waits for none but those of `AHEAD` steps before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.steps: deque[torch.cuda.Event] = deque()
        if self.stream is not None:  # what the batches are made with may still be on its way
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def bring(self, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `make` makes, from page-locked memory and without reading from the device; call before each step."""
        if self.stream is None:
            return make()
        current = torch.cuda.current_stream(self.device)
        self.steps.append(current.record_event())  # the end of the step before
        if len(self.steps) > AHEAD:
            self.steps.popleft().synchronize()
        with torch.cuda.stream(self.stream):
            tensors = make()
        current.wait_stream(self.stream)
        for tensor in tensors:
            tensor.record_stream(current)  # its memory is free only after the step
        return tensors
