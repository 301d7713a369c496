"""The compiled library: loaded once, every C function declared in one table, every call made in one place.

It holds every kernel once for each target, and the fastest that this processor can run is used. `ALEXNET_ENGINE`
chooses another, `avx2` for example, or `none`. A process that is held to a narrower target plays such a processor as a
whole, with torch's own products and in what is said about it.
"""

from __future__ import annotations

import ctypes
import enum
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.engine.build import LIBRARY
from alexnet.errors import UsageError, one_line, quoted, suggestion

# The arguments of each `alexnet_TARGET_NAME`: p pointer, i int, n int64, d double. Each returns an int.
FUNCTIONS = {
    "lrn": "pppinnninndddn",
    "map_norm": "pppinnnnindddn",
    "conv_forward": "pipipippin",
    "conv_grad_input": "pipppipn",
    "conv_grad_weights": "pipippppn",
    "conv_pack": "pipippn",
    "conv_packed": "pipippddppiin",
    "full_forward": "pipipipddppiin",
    "full_grad_input": "pippipn",
    "full_grad_weights": "pipipppn",
    "pool_forward": "pipppn",
    "pool_backward": "pipppn",
    "pool_average": "pippn",
    "crop": "pppppin",
    "local": "pippppin",
    "flatten": "ppinnnn",
    "relu": "pinn",
    "tanh": "pinn",
    "softmax": "pnnn",
    "colour_products": "pnip",
    "dropout": "ppnnnnnnnn",
    "resize": "pnnnppnpp",
    "ycbcr_crop": "pnnnnnp",
}
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int, "n": ctypes.c_int64, "d": ctypes.c_double}


class Dtype(enum.IntEnum):
    """The types of elements that the engine knows."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2
    INT8 = 3


_lock = threading.Lock()
_loaded: list[Library | None] = []
_team_folder: list[str] = []  # below it lies the OpenMP runtime whose threads we share


class Library:
    """The kernels of one target."""

    def __init__(self, path: Path, target: str | None = None) -> None:
        """Load the library; `target` is by default the first of those that this processor can run.

        Raises OSError where it cannot be loaded, and UsageError for a target that is not there.
        """
        self.shared = ctypes.CDLL(str(path))
        self.shared.alexnet_targets.restype = self.shared.alexnet_sources.restype = ctypes.c_char_p
        self.shared.alexnet_use_team.argtypes = [ctypes.c_void_p]
        self.targets = tuple(self.shared.alexnet_targets().decode().split())
        self.target = target or self.targets[0]
        if self.target not in self.targets:
            known = (*self.targets, "none")
            raise UsageError(
                f"ALEXNET_ENGINE={quoted(self.target)} should be one of {', '.join(known)} on this processor"
                f"{suggestion(self.target, known)}"
            )
        self.functions: dict[str, Any] = {}
        for name, arguments in FUNCTIONS.items():
            self.functions[name] = getattr(self.shared, f"alexnet_{self.target}_{name}")
            self.functions[name].argtypes = [_TYPES[letter] for letter in arguments]


def library() -> Library | None:
    """The compiled library; None where it is switched off, was not built or cannot be loaded.

    Where it is missing, warns once (`RuntimeWarning`). Raises UsageError for an unknown `ALEXNET_ENGINE`.
    """
    if _loaded:
        return _loaded[0]
    with _lock:
        if not _loaded:
            _loaded.append(_open())
    return _loaded[0]


def _open(path: Path = LIBRARY) -> Library | None:
    choice = os.environ.get("ALEXNET_ENGINE") or None
    if choice == "none":
        return None
    try:
        opened = Library(path, choice)
    except (OSError, AttributeError) as reason:
        why = f"{path.name} cannot be loaded: {one_line(reason)}" if path.exists() else "they were not built"
        warnings.warn(
            f"alexnet runs without its compiled kernels, more slowly: {why}. Install a C++ compiler (g++ or clang++) "
            "and then run `python -m alexnet.engine.build`, or set ALEXNET_ENGINE=none to silence this.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    if _team_folder:
        opened.shared.alexnet_use_team(find_team(_team_folder[0]))
    return opened


def call(name: str, *arguments: Any) -> None:
    """Call the kernel `name`. Raises MemoryError where it ran out of memory; call where `library()` is not None."""
    lib = library()
    assert lib is not None
    if lib.functions[name](*arguments):
        raise MemoryError(f"{name} ran out of memory; try a smaller --train.batch_size")


def int64s(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    """A C array of sizes."""
    return (ctypes.c_int64 * len(values))(*values)


def share_threads(folder: str | os.PathLike[str]) -> None:
    """Let the threads of the OpenMP runtime below `folder` do our work too.

    A second pool would compete with them, for they spin between operations. Where no such runtime is loaded, the
    library starts threads of its own.
    """
    with _lock:
        _team_folder[:] = [str(Path(folder).resolve())]
        if _loaded and _loaded[0] is not None:
            _loaded[0].shared.alexnet_use_team(find_team(_team_folder[0]))


def find_team(folder: str) -> ctypes.c_void_p | None:
    """`GOMP_parallel` of the OpenMP runtime loaded from below `folder` (or of the only one), or None."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    files = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    runtimes = sorted(file for file in files if Path(file).name.startswith(("libgomp", "libiomp", "libomp")))
    chosen = [file for file in runtimes if str(Path(file).resolve()).startswith((folder + "/", folder + ".libs/"))]
    if not chosen and len(runtimes) == 1:
        chosen = runtimes
    for file in chosen:
        fork = getattr(ctypes.CDLL(file), "GOMP_parallel", None)
        if fork is not None:
            return ctypes.cast(fork, ctypes.c_void_p)
    return None
