"""Compile the C++ sources at first use and keep the library in the user's cache.

The library is built for this processor (`-march=native`), named by a hash of sources, compiler and processor, written
beside and renamed, and loaded only from a folder and file that nobody else can write to.
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
import threading
import warnings
from pathlib import Path

SOURCES = tuple(
    Path(__file__).with_name(f"{name}.cpp") for name in ("normalization", "convolution", "pooling", "statistics")
)
HEADERS = (Path(__file__).with_name("parallel.h"),)
COMMON: tuple[str, ...] = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
COMMON += ("-ffp-contract=fast", "-funroll-loops", "-fopenmp-simd", "-pthread", "-w")
TARGETS: tuple[tuple[str, ...], ...] = (
    ("-march=native", "-mprefer-vector-width=512"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)


class NoLibrary(RuntimeError):
    """The native library could not be built or loaded; the message says why."""


_lock = threading.Lock()
_loaded: list[ctypes.CDLL | None] = []


def library() -> ctypes.CDLL | None:
    """The native library, built at the first call; None where switched off (`ALEXNET_NATIVE=0`) or not to be had.

    Where it is not to be had, says so once by a `RuntimeWarning`.
    """
    if _loaded:
        return _loaded[0]
    with _lock:
        if not _loaded:
            _loaded.append(_library())
    return _loaded[0]


def _library() -> ctypes.CDLL | None:
    if os.environ.get("ALEXNET_NATIVE") == "0":
        return None
    try:
        return _bound(_load())
    except (NoLibrary, OSError) as reason:
        warnings.warn(
            f"alexnet runs without its native kernels, more slowly: {reason}. "
            "Install a C++ compiler (g++ or clang++), or set ALEXNET_NATIVE=0 to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _load() -> ctypes.CDLL:
    if not hasattr(os, "getuid"):
        raise NoLibrary(f"they are not built on {platform.system()}")
    compiler = find_compiler()
    name = f"kernels-{fingerprint(compiler)}.so"
    folder = cache_folder()
    if folder is not None:
        path = folder / name
        for attempt in range(2):
            if attempt or not path.exists():
                build(compiler, path)
            if not is_private(path):
                continue
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # damaged: build it again
                continue
    # No folder of our own to keep it in: build for this process alone.
    with tempfile.TemporaryDirectory(prefix="alexnet-") as own:
        path = Path(own) / name
        build(compiler, path)
        return ctypes.CDLL(str(path))


def find_compiler() -> list[str]:
    """The command of the C++ compiler: `$CXX`, or the first of c++, g++, clang++ that is installed."""
    chosen = os.environ.get("CXX")
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        program = shutil.which(command[0]) if command else None
        if program:
            return [program, *command[1:]]
    raise NoLibrary(f"no C++ compiler ({chosen})" if chosen else "no C++ compiler (c++, g++ or clang++)")


def fingerprint(compiler: list[str]) -> str:
    """A hash of everything the library depends on: source, flags, compiler version, processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    texts = [path.read_text() for path in (*SOURCES, *HEADERS)]
    parts = (*texts, repr((COMMON, TARGETS, compiler)), version, _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    named = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = []
    keep = ("model name", "flags", "Features", "CPU implementer", "CPU part", "cpu family", "model")
    return "\n".join(named + [line for line in lines if line.split(":")[0].strip() in keep])


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/alexnet/native` (by default under ~/.cache), made on request; None where it is not private."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root).resolve() / "alexnet" / "native"
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


def build(compiler: list[str], path: Path) -> None:
    """Compile the source to `path`: into a file beside it, then renamed, so that racing processes both succeed."""
    handle, beside = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        errors = ""
        for target in TARGETS:
            command = [*compiler, *COMMON, *target, *map(str, SOURCES), "-o", beside]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            except (OSError, subprocess.TimeoutExpired) as reason:
                raise NoLibrary(f"{compiler[0]} did not finish ({reason})") from None
            if done.returncode == 0:
                os.chmod(beside, 0o700)
                os.replace(beside, path)
                return
            errors = errors or done.stderr
        first = next((line for line in errors.splitlines() if "error" in line), "no message").strip()
        raise NoLibrary(f"{compiler[0]} failed: {first}")
    finally:
        Path(beside).unlink(missing_ok=True)


def _bound(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, index, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
    tensors: list[type] = [pointer, pointer, pointer, number]
    rule: list[type] = [index, real, real, real, number, index]  # size, alpha, beta, k, relu, threads
    lib.alexnet_across.argtypes = [*tensors, index, index, index, number, index, *rule]
    lib.alexnet_within.argtypes = [*tensors, index, index, index, index, number, *rule]
    lib.alexnet_sgd.argtypes = [pointer, pointer, pointer, number, pointer, index, real, real, real, index]
    shape = ctypes.POINTER(index)
    lib.alexnet_products.argtypes = []
    if lib.alexnet_products():
        lib.alexnet_conv_forward.argtypes = [
            shape,
            number,
            pointer,
            number,
            pointer,
            number,
            pointer,
            pointer,
            number,
            index,
        ]
        lib.alexnet_conv_maps.argtypes = [shape, number, pointer, pointer, pointer, number, pointer, index]
        lib.alexnet_conv_weights.argtypes = [shape, number, pointer, number, pointer, pointer, pointer, pointer, index]
    lib.alexnet_pool_forward.argtypes = [shape, number, pointer, pointer, pointer, index]
    lib.alexnet_pool_backward.argtypes = [shape, number, pointer, pointer, pointer, index]
    lib.alexnet_colour_products.argtypes = [pointer, index, number, pointer]
    lib.alexnet_colour_products.restype = None
    lib.alexnet_use_team.argtypes = [pointer]
    lib.alexnet_use_team.restype = None
    lib.alexnet_use_team(_torch_team())
    return lib


def _torch_team() -> ctypes.c_void_p | None:
    """`GOMP_parallel` of the OpenMP runtime that torch has loaded, so that its threads do our work too.

    A second pool would compete with torch's threads, which spin between operations. None where no such runtime is
    found; the library then starts threads of its own.
    """
    import torch

    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    mapped = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    runtimes = sorted(p for p in mapped if Path(p).name.startswith(("libgomp", "libiomp", "libomp")))
    home = str(Path(torch.__file__).resolve().parent)
    chosen = [p for p in runtimes if str(Path(p).resolve()).startswith((home + "/", home + ".libs/"))]
    if not chosen and len(runtimes) == 1:
        chosen = runtimes
    for path in chosen:
        fork = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
        if fork is not None:
            return ctypes.cast(fork, ctypes.c_void_p)
    return None
