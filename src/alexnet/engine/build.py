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
    "wasm32": {"simd128": ("--target=wasm32-wasi", "-msimd128", "-fno-exceptions")},
}
OTHER_MACHINE: Mapping[str, tuple[str, ...]] = {"plain": ()}
OPTIONS: tuple[str, ...] = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
OPTIONS += ("-funroll-loops", "-fopenmp-simd", "-fvisibility=hidden", "-w")
# GCC does not align the stack for AVX on Windows.
COMPILERS = {"win32": ("clang++",)}.get(sys.platform, ("c++", "g++", "clang++"))
LINK: tuple[str, ...] = ("-shared",)
if sys.platform != "win32":
    OPTIONS, LINK = (*OPTIONS, "-fPIC"), (*LINK, "-pthread")
if sys.platform.startswith("linux"):
    # The C++ library inside, as little of it as is used, its names not to be taken for those of another.
    LINK = (*LINK, "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections", "-Wl,-s")
# A module that imports nothing, and exports the kernels, `memory`, `malloc` and `free`.
LINK_WASM: tuple[str, ...] = (
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-nostartfiles",
    "-Wl,--no-entry",
    "-Wl,-s",
)
LINK_WASM += ("-Wl,--export-dynamic", "-Wl,--export=malloc", "-Wl,--export=free")


class BuildError(Exception):
    """The library could not be compiled; the message says why."""


def machine() -> str:
    """The name in `TARGETS` of the machine that this runs on."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)


def find_compiler() -> list[str]:
    """The command of the C++ compiler: `$CXX`, or the first of `COMPILERS` that is installed.

    Raises BuildError where there is none.
    """
    chosen = os.environ.get("CXX")
    candidates = [shlex.split(chosen)] if chosen else [[name] for name in COMPILERS]
    for command in candidates:
        program = shutil.which(command[0]) if command else None
        if program:
            return [program, *command[1:]]
    raise BuildError(f"no C++ compiler ({chosen or ', '.join(COMPILERS)})")


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
        link([*compiler, *LINK], objects, out)
    return out


def build_wasm(out: Path) -> Path:
    """Compile the kernels to a WebAssembly module for browsers, by clang++ and wasi-libc. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=out.parent) as folder:
        link(["clang++", *LINK_WASM], compile_objects(["clang++"], TARGETS["wasm32"], Path(folder)), out)
    return out


def link(command: Sequence[str], objects: Sequence[Path], out: Path) -> None:
    """Make `out` of objects, written beside them and renamed. Raises BuildError."""
    new = objects[0].with_name(out.name)
    _run([*command, *map(str, objects), "-o", str(new)])
    os.replace(new, out)


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
