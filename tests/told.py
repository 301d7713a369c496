"""A progress that keeps what is said, for a test to look at."""

from __future__ import annotations

from alexnet.progress import Progress


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
