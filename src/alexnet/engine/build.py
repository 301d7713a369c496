"""Compile the C++ sources at first use and keep the library in the user's cache.

A library is named by a hash of sources, compiler, options and processor, written beside and renamed, and loaded only
from a folder and file that nobody else can write to.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alexnet.errors import AlexnetError
from alexnet.files import cache_folder

FOLDER = Path(__file__).parent
SOURCES = tuple(
    FOLDER / f"{name}.cpp"
    for name in ("normalization", "convolution", "pooling", "statistics", "dropout", "ycbcr", "parallel")
)
COMMON: tuple[str, ...] = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
COMMON += ("-ffp-contract=fast", "-funroll-loops", "-fopenmp-simd", "-pthread", "-w")
Targets = tuple[tuple[str, ...], ...]  # options to try in turn, until the compiler takes them
NATIVE: Targets = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",), ())
AVX2: Targets = (("-march=x86-64-v3",), ("-march=haswell",))


class NoLibrary(AlexnetError):
    """The library could not be built or loaded; the message says why."""


def load(targets: Targets = NATIVE, sources: Sequence[Path] = SOURCES) -> ctypes.CDLL:
    """The library of `sources` for the first of `targets` that compiles, from the cache or built now.

    Raises NoLibrary, or OSError where it cannot be loaded.
    """
    if not hasattr(os, "getuid"):
        raise NoLibrary(f"they are not built on {platform.system()}")
    compiler = find_compiler()
    name = f"engine-{fingerprint(compiler, targets, sources)}.so"
    folder = private_cache()
    if folder is not None:
        path = folder / name
        for attempt in range(2):
            if attempt or not path.exists():
                compile_library(compiler, targets, sources, path)
            if not is_private(path):
                continue
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # damaged: build it again
                continue
    # No folder of our own to keep it in: build for this process alone.
    with tempfile.TemporaryDirectory(prefix="alexnet-") as own:
        path = Path(own) / name
        compile_library(compiler, targets, sources, path)
        return ctypes.CDLL(str(path))


def find_compiler() -> list[str]:
    """The command of the C++ compiler: `$CXX`, or the first of c++, g++, clang++ that is installed.

    Raises NoLibrary where there is none.
    """
    chosen = os.environ.get("CXX")
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        program = shutil.which(command[0]) if command else None
        if program:
            return [program, *command[1:]]
    raise NoLibrary(f"no C++ compiler ({chosen})" if chosen else "no C++ compiler (c++, g++ or clang++)")


def fingerprint(compiler: list[str], targets: Targets, sources: Sequence[Path]) -> str:
    """A hash of everything a library depends on: sources, headers, options, compiler version, processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    texts = [path.read_text() for path in (*sources, *sorted(FOLDER.glob("*.h")))]
    parts = (*texts, repr((COMMON, targets, compiler)), version, _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    names = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = []
    keep = ("model name", "flags", "Features", "CPU implementer", "CPU part", "cpu family", "model")
    return "\n".join(names + [line for line in lines if line.split(":")[0].strip() in keep])


def private_cache() -> Path | None:
    """The folder of libraries in the user's cache, made on request; None where it is not private."""
    try:
        folder = cache_folder("native").resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if is_private(folder) and os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):
        return None


def is_private(path: Path) -> bool:
    """Whether `path` is this user's, only this user can write to it, and nobody else can replace a folder above it."""
    path = path.absolute()
    own = path.lstat()
    if own.st_uid != os.getuid() or own.st_mode & 0o022 or stat.S_ISLNK(own.st_mode):
        return False
    return all(not (mode & 0o002) or mode & stat.S_ISVTX for mode in (p.stat().st_mode for p in path.parents))


def compile_library(compiler: list[str], targets: Targets, sources: Sequence[Path], path: Path) -> None:
    """Compile to `path`: into a file beside it, then renamed, so that racing processes all succeed.

    Raises NoLibrary with the compiler's first error.
    """
    handle, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        errors = ""
        for target in targets:
            command = [*compiler, *COMMON, *target, f"-I{FOLDER}", *map(str, sources), "-o", temporary]
            try:
                process = subprocess.run(command, capture_output=True, text=True, timeout=300)
            except (OSError, subprocess.TimeoutExpired) as reason:
                raise NoLibrary(f"{compiler[0]} did not finish ({reason})") from None
            if process.returncode == 0:
                os.chmod(temporary, 0o700)
                os.replace(temporary, path)
                return
            errors = errors or process.stderr
        first = next((line for line in errors.splitlines() if "error" in line), "no message").strip()
        raise NoLibrary(f"{compiler[0]} failed: {first}")
    finally:
        Path(temporary).unlink(missing_ok=True)
