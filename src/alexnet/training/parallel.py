"""A process's place among those that train together, and a model under its wrappers.

One process is all there is so far: every way to agree is then the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import nn

Value = TypeVar("Value")
WRAPPERS = ("module", "_orig_mod")  # under which DistributedDataParallel and torch.compile keep the model


@dataclass(frozen=True)
class World:
    """A process's rank among `size` of them, by default one process alone. Only rank 0 writes."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def union(self, entries: dict[str, str]) -> dict[str, str]:
        """The entries of all processes together."""
        return entries

    def first(self, value: Value) -> Value:
        """The value that rank 0 has."""
        return value


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel's and torch.compile's wrappers, in any order."""
    while True:
        children = dict(model.named_children())
        name = next(iter(children), "")
        if len(children) != 1 or name not in WRAPPERS:
            return model
        model = children[name]
