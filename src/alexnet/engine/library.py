"""The compiled library: loaded once, every C function declared in one table, every call made in one place.

`ALEXNET_NATIVE` chooses: `0` for none; `avx2` to play a processor with AVX2 and nothing newer as a whole, with torch's
own products and in what is said about it (`ALEXNET_NATIVE=avx2 make test`, on any x86-64 machine that has AVX2);
otherwise the instructions of this processor.
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

from alexnet.engine import build
from alexnet.errors import UsageError

# The arguments of each `alexnet_NAME`: p pointer, i int, n int64, d double. Each returns an int, but `use_team`.
FUNCTIONS = {
    "lrn": "pppinnninndddn",
    "map_norm": "pppinnnnindddn",
    "conv_dtypes": "",
    "conv_forward": "pipipippin",
    "conv_grad_input": "pipppipn",
    "conv_grad_weights": "pipippppn",
    "pool_forward": "pipppn",
    "pool_backward": "pipppn",
    "colour_products": "pnip",
    "dropout": "ppnnnnnnnn",
    "ycbcr_crop": "pnnnnnp",
    "use_team": "p",
}
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int, "n": ctypes.c_int64, "d": ctypes.c_double}


class Dtype(enum.IntEnum):
    """The types of elements that the engine knows."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2


_lock = threading.Lock()
_loaded: list[ctypes.CDLL | None] = []
_team_folder: list[str] = []  # below it lies the OpenMP runtime whose threads we share


def library() -> ctypes.CDLL | None:
    """The compiled library, built at the first call; None where it is switched off or cannot be built.

    Where it cannot be built, warns once (`RuntimeWarning`). Raises UsageError for an unknown `ALEXNET_NATIVE`.
    """
    if _loaded:
        return _loaded[0]
    with _lock:
        if not _loaded:
            _loaded.append(_open())
    return _loaded[0]


def _open() -> ctypes.CDLL | None:
    choice = os.environ.get("ALEXNET_NATIVE") or "1"
    if choice not in ("0", "1", "avx2"):
        raise UsageError(f"ALEXNET_NATIVE={choice} should be 0 (no engine), avx2, or 1 (this processor's)")
    if choice == "0":
        return None
    try:
        lib = build.load(build.AVX2 if choice == "avx2" else build.NATIVE)
    except (build.NoLibrary, OSError) as reason:
        warnings.warn(
            f"alexnet runs without its compiled engine, more slowly: {reason}. "
            "Install a C++ compiler (g++ or clang++), or set ALEXNET_NATIVE=0 to silence this.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    for name, arguments in FUNCTIONS.items():
        getattr(lib, f"alexnet_{name}").argtypes = [_TYPES[letter] for letter in arguments]
    lib.alexnet_use_team.restype = None
    if _team_folder:
        lib.alexnet_use_team(find_team(_team_folder[0]))
    return lib


def call(name: str, *arguments: Any) -> None:
    """Call `alexnet_NAME`. Raises MemoryError where it ran out of memory; call where `library()` is not None."""
    lib = library()
    assert lib is not None
    if getattr(lib, f"alexnet_{name}")(*arguments):
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
            _loaded[0].alexnet_use_team(find_team(_team_folder[0]))


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
