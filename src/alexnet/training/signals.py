"""Stop requests: Ctrl-C, SIGTERM and SIGUSR1 (clusters send them) end a run after the current step, state saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Whether a stop was asked for.

    While nobody waits for it (`waiting` is false: before the first step and after the last) a signal raises
    KeyboardInterrupt at once, as a second Ctrl-C always does.
    """

    def __init__(self) -> None:
        self.requested = False
        self.waiting = False
        self.exit_code = 130

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        self.exit_code = 143 if number == signal.SIGTERM else 130
        if not self.waiting or (self.requested and number == signal.SIGINT):
            raise self.interrupt()
        self.requested = True

    def interrupt(self) -> KeyboardInterrupt:
        """What a stop raises; its argument is the exit code that shells know: 143 for SIGTERM, else 130."""
        return KeyboardInterrupt(self.exit_code)

    @contextmanager
    def after_step(self) -> Iterator[None]:
        """Within it a signal only sets `requested`, for the loop to see between two steps."""
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handle the signals within, and give them back after; outside the main thread nothing is handled."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
