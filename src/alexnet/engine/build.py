"""Compile the kernels: every C++ source once for each target of a machine, all in one library below this folder.

Installing the package does it where there is a C++ compiler; `python -m alexnet.engine.build` does it again. Nothing
here is used when the library is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
# In a folder of its own, for Python would take it for a module.
LIBRARY = FOLDER / "built" / {"win32": "alexnet.dll", "darwin": "libalexnet.dylib"}.get(sys.platform, "libalexnet.so")
# Compiled for every target, and once for the plainest.
KERNELS: tuple[str, ...] = ("convolution", "weight_gradient", "full", "forward", "normalization", "pooling", "resize")
KERNELS += ("statistics", "dropout", "ycbcr")
SHARED = ("parallel",)
# The options of each target; the last is what any such processor can run.
TARGETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512bf16": ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-mprefer-vector-width=512"),
        "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
        "avx2": ("-march=x86-64-v3",),
        "plain": ("-march=x86-64",),
    },
    "arm64": {"neon": ("-march=armv8-a",)},
    "wasm32": {"simd128": ("-msimd128",)},
}
OTHER_MACHINE: Mapping[str, tuple[str, ...]] = {"plain": ()}
OPTIONS: tuple[str, ...] = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
OPTIONS += ("-funroll-loops", "-fopenmp-simd", "-fvisibility=hidden", "-w")


class BuildError(Exception):
    """The library could not be compiled; the message says why."""


def machine() -> str:
    """The name in `TARGETS` of the machine that this runs on."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)


def find_compiler() -> list[str]:
    """The command of the C++ compiler: `$CXX`, or the first of c++, g++, clang++ that is installed.

    Raises BuildError where there is none.
    """
    chosen = os.environ.get("CXX")
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        program = shutil.which(command[0]) if command else None
        if program:
            return [program, *command[1:]]
    raise BuildError(f"no C++ compiler ({chosen})" if chosen else "no C++ compiler (c++, g++ or clang++)")


def fingerprint() -> str:
    """A hash of the sources, which the library made of them says too."""
    texts = [path.read_bytes() for path in sorted((*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")))]
    return hashlib.sha256(b"\0".join([*texts, Path(__file__).read_bytes()])).hexdigest()[:24]


def compile_objects(
    compiler: Sequence[str], targets: Mapping[str, tuple[str, ...]], folder: Path, options: Sequence[str] = OPTIONS
) -> list[Path]:
    """The object files of all kernels for all targets, made in `folder`. Raises BuildError with the first error."""
    plainest = list(targets)[-1]
    jobs = [(kernel, target) for target in targets for kernel in KERNELS] + [(name, plainest) for name in SHARED]

    def compile_one(job: tuple[str, str]) -> Path:
        source, target = job
        out = folder / f"{source}-{target}.o"
        defines = (f"-DTARGET={target}", f'-DALEXNET_SOURCES="{fingerprint()}"')
        _run([*compiler, *options, *targets[target], *defines, "-c", str(FOLDER / f"{source}.cpp"), "-o", str(out)])
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, jobs))


def build(out: Path = LIBRARY) -> Path:
    """Compile the library for this machine to `out`, written beside it and renamed. Raises BuildError."""
    compiler = find_compiler()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=out.parent) as folder:
        objects = compile_objects(compiler, TARGETS.get(machine(), OTHER_MACHINE), Path(folder))
        new = Path(folder) / out.name
        alone = ("-static-libstdc++", "-static-libgcc", "-Wl,-s") if sys.platform.startswith("linux") else ()
        _run([*compiler, "-shared", "-pthread", *map(str, objects), *alone, "-o", str(new)])
        os.replace(new, out)
    return out


def _run(command: list[str]) -> None:
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as reason:
        raise BuildError(f"{command[0]} did not finish ({reason})") from None
    if process.returncode:
        lines = process.stderr.splitlines() or ["no message"]
        raise BuildError(f"{command[0]} failed: {next((line for line in lines if 'error' in line), lines[-1]).strip()}")


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        sys.exit(f"the engine was not built: {error}")
