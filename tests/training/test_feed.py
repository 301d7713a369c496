"""How far the host runs ahead of a device: streams and events that only write down what is asked of them stand in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from alexnet.training.feed import AHEAD, Feed


class Tensor:
    """A batch that remembers whose work must be done before its memory is free."""

    def __init__(self) -> None:
        self.kept_for: list[Any] = []

    def record_stream(self, stream: Any) -> None:
        self.kept_for.append(stream)


class Stream:
    """Notes what is asked of it in one list for all."""

    asked: list[tuple[str, Any]] = []

    def __init__(self, name: Any) -> None:
        self.name = "feed" if isinstance(name, torch.device) else name

    def wait_stream(self, other: Stream) -> None:
        Stream.asked.append((f"{self.name} waits for", other.name))

    def record_event(self) -> Any:
        number = sum(what == "event" for what, _ in Stream.asked)
        Stream.asked.append(("event", number))
        return type("Event", (), {"synchronize": lambda self: Stream.asked.append(("host waits for event", number))})()


def test_the_host_waits_for_no_step_but_one_long_before(monkeypatch: pytest.MonkeyPatch) -> None:
    main = Stream("main")
    monkeypatch.setattr(Stream, "asked", [])
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    feed = Feed(torch.device("cuda"))
    assert Stream.asked == [("feed waits for", "main")]
    for _ in range(5):
        tensors: Any = feed.bring(lambda: (Tensor(), Tensor()))  # type: ignore[arg-type, return-value]
        assert all(tensor.kept_for == [main] for tensor in tensors)
    waits = [number for what, number in Stream.asked if what.startswith("host")]
    assert waits == list(range(5 - AHEAD))
    for number in waits:  # it waits for the end of a step only when as many more were asked for
        assert Stream.asked.index(("event", number + AHEAD)) < Stream.asked.index(("host waits for event", number))
    assert Stream.asked.count(("main waits for", "feed")) == 5


def test_on_a_cpu_batches_are_what_they_are() -> None:
    batch = (torch.ones(1), torch.zeros(1))
    assert Feed(torch.device("cpu")).bring(lambda: batch) is batch
