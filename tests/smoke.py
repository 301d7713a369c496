"""What an installed package must do without compiler, torch or the sources: `python tests/smoke.py`.

It loads its library, computes the same as NumPy on every target that the processor can run, and answers on the command
line. Prints what it found; ends with an error where something is missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.engine import library
from alexnet.engine.build import COMPILERS, LIBRARY, TARGETS, machine
from alexnet.engine.library import Dtype, Library

Array = NDArray[Any]


def convolved(x: Array, weights: Array, stride: int) -> Array:
    """(N, H, W, C) by (O, K, K, C) without zeros around."""
    k = weights.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
    return np.einsum("npqcyx,oyxc->npqo", windows, weights)


def normalized(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """Divided by a power of the squares of neighbours along the last axis."""
    padded = np.pad(x * x, [(0, 0)] * 3 + [(size // 2, (size - 1) // 2)])
    return x * (k + alpha * np.lib.stride_tricks.sliding_window_view(padded, size, 3).sum(-1)) ** -beta


def pooled(x: Array, size: int, stride: int) -> Array:
    """The maxima of whole windows."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride].max((-2, -1))


def check_target(target: Library) -> None:
    """Convolution, normalization and pooling by one target's kernels, on two threads."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 31, 31, 8)).astype(np.float32)
    weights, bias = rng.normal(size=(24, 5, 5, 8)).astype(np.float32), rng.normal(size=24).astype(np.float32)

    def call(name: str, *arguments: Any) -> None:
        values = [one.ctypes.data if isinstance(one, np.ndarray) else one for one in arguments]
        assert target.functions[name](*values) == 0

    maps = np.empty((4, 14, 14, 24), np.float32)
    sizes = np.array((4, 31, 31, 8, 1, 24, 5, 2, 0, 0, 14, 14), np.int64)
    single = Dtype.FLOAT32
    call("conv_forward", sizes, single, x, single, weights, single, bias, maps, 0, 2)
    np.testing.assert_allclose(maps, convolved(x, weights, 2) + bias, rtol=1e-4, atol=1e-4)
    norm = np.empty_like(maps)
    call("lrn", maps, None, norm, single, 4, 24, 14 * 14, 1, 1, 5, 1e-2, 0.75, 2.0, 2)
    np.testing.assert_allclose(norm, normalized(maps, 5, 1e-2, 0.75, 2.0), rtol=1e-5, atol=1e-6)
    pool, places = np.empty((4, 6, 6, 24), np.float32), np.empty((4, 6, 6, 24), np.uint16)
    call("pool_forward", np.array((4, 14, 14, 24, 3, 2, 6, 6), np.int64), single, norm, pool, places, 2)
    np.testing.assert_array_equal(pool, pooled(norm, 3, 2))


def answer(*words: str) -> subprocess.CompletedProcess[str]:
    """What `alexnet WORDS` of this environment does."""
    program = shutil.which("alexnet", path=str(Path(sys.executable).parent))
    assert program, "no command alexnet beside this Python"
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=300)


def main() -> None:
    """Check the package that Python finds here."""
    opened = Library(LIBRARY)
    print(f"{LIBRARY}: {LIBRARY.stat().st_size / 1e6:.2f} MB; compilers here: {[*filter(shutil.which, COMPILERS)]}")
    assert TARGETS.get(machine(), {"plain": ()}).keys() >= set(opened.targets)
    for name in opened.targets:
        check_target(Library(LIBRARY, name))
        print(f"{name}: convolution, normalization and pooling equal NumPy's")
    assert library.library() is not None
    usage = answer("--help")
    assert usage.returncode == 0 and "predict" in usage.stdout, usage.stderr
    doctor = answer("doctor")
    # Commands that need an extra which is not installed may say so; anything else is a fault.
    assert doctor.returncode == 0 or "torch" in doctor.stderr, doctor.stderr
    print(
        "alexnet --help answers;", "alexnet doctor too" if doctor.returncode == 0 else "alexnet doctor asks for torch"
    )


if __name__ == "__main__":
    main()
