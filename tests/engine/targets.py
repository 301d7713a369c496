"""The kernels of any target, called by name with arrays: in the installed library, natively by another compiler, under
an emulator, or in a WebAssembly engine.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.engine import build, library

FOLDER = Path(__file__).parent / "runner"
GUARD = b"\xff" * 64  # after each array: no numbers in any type, which nothing may use or change
# Programs that a machine's kernels are compiled and run by.
COMPILERS = {
    "x86_64": ("clang++",),
    "arm64": ("aarch64-linux-gnu-g++",),
    "wasm32": ("clang++",),
}
LAUNCHERS = {"x86_64": (), "arm64": ("qemu-aarch64",), "wasm32": ("node",)}


def missing(machine: str) -> str:
    """Which program to compile or run `machine`'s kernels is missing, or an empty text."""
    if machine == "x86_64" and build.machine() != machine:
        return "not an x86-64 processor"
    wanted = (COMPILERS[machine][0], *LAUNCHERS[machine][:1])
    absent = [name for name in wanted if shutil.which(name) is None]
    if machine == "wasm32" and not absent and not Path("/usr/include/wasm32-wasi").exists():
        absent = ["wasi-libc"]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass(frozen=True)
class Target:
    """The kernels of one target: `target("lrn", array, None, out, 0, …)` changes its arrays in place."""

    name: str
    command: tuple[str, ...] = ()  # empty: in the library, by ctypes

    def __call__(self, kernel: str, *arguments: Any) -> None:
        """Raises MemoryError where the kernel says that memory ran out, or there stops."""
        arrays = [one for one in arguments if isinstance(one, np.ndarray)]
        guarded = [array.tobytes() + GUARD for array in arrays]
        returned, after = (self._remote if self.command else self._native)(kernel, arguments, guarded)
        if returned:
            raise MemoryError(kernel)
        for array, content in zip(arrays, after, strict=True):
            assert content[array.nbytes :] == GUARD, f"{kernel} wrote past an array of {array.shape}"
            array[...] = np.frombuffer(content[: array.nbytes], array.dtype).reshape(array.shape)

    def targets(self) -> tuple[str, ...]:
        """Those that the processor, real or played, can run."""
        return tuple(subprocess.run(self.command, capture_output=True, text=True, check=True).stdout.split())

    def _native(self, kernel: str, arguments: Sequence[Any], guarded: list[bytes]) -> tuple[int, list[bytes]]:
        kept = [np.frombuffer(bytearray(content), np.uint8) for content in guarded]
        addresses = iter([one.ctypes.data for one in kept])
        values = [next(addresses) if isinstance(one, np.ndarray) else one for one in arguments]
        returned = library.Library(build.LIBRARY, self.name).functions[kernel](*values)
        return returned, [one.tobytes() for one in kept]

    def _remote(self, kernel: str, arguments: Sequence[Any], guarded: list[bytes]) -> tuple[int, list[bytes]]:
        letters, numbers = library.FUNCTIONS[kernel], iter(range(len(guarded)))
        sent = struct.pack("<q", len(letters))
        for letter, value in zip(letters, arguments, strict=True):
            if letter == "p":
                value = -1 if value is None else next(numbers)
            sent += struct.pack("<d" if letter == "d" else "<q", value)
        sent += struct.pack(f"<{1 + len(guarded)}q", len(guarded), *map(len, guarded)) + b"".join(guarded)
        command = [*self.command, f"alexnet_{self.name}_{kernel}", letters]
        process = subprocess.run(command, input=sent, capture_output=True, timeout=300)
        if b"unreachable" in process.stderr:  # how a module without exceptions gives up
            raise MemoryError(kernel)
        assert process.returncode == 0, process.stderr.decode()
        (returned,), rest = struct.unpack_from("<q", process.stdout), process.stdout[8:]
        after = []
        for content in guarded:
            after.append(rest[: len(content)])
            rest = rest[len(content) :]
        return returned, after


def compiled(machine: str, folder: Path) -> tuple[str, ...]:
    """The command that runs the kernels of all targets of `machine`, compiled in `folder` once for these sources."""
    program = folder / f"{machine}-{build.fingerprint()}"
    for old in folder.glob(f"{machine}-*"):
        if old != program and old.is_file():
            old.unlink(missing_ok=True)
    if machine == "wasm32":
        runner: tuple[str, ...] = (str(FOLDER / "runner.mjs"), str(program))
        if not program.exists():
            build.build_wasm(program)
    else:
        runner = (str(program),)
        if not program.exists():
            _compile_runner(machine, program)
    return (*LAUNCHERS[machine], *runner)


def _compile_runner(machine: str, program: Path) -> None:
    compiler, targets = COMPILERS[machine], build.TARGETS[machine]
    with tempfile.TemporaryDirectory(dir=program.parent) as name:
        folder = Path(name)
        (folder / "kernels.inc").write_text(_stubs(targets))
        objects = build.compile_objects(compiler, targets, folder)
        command = [*compiler, "-std=c++17", "-static", "-pthread", f"-I{folder}", str(FOLDER / "runner.cpp")]
        build.link(command, objects, program)


def _stubs(targets: Iterable[str]) -> str:
    types = {"p": "void*", "i": "int", "n": "Number", "d": "double"}
    reads = {"p": "a.pointer({})", "i": "int(a.values[{}])", "n": "a.values[{}]", "d": "a.real({})"}
    declared, table = [], []
    for target in targets:
        for name, letters in library.FUNCTIONS.items():
            symbol = f"alexnet_{target}_{name}"
            declared.append(f'extern "C" int {symbol}({", ".join(types[letter] for letter in letters)});')
            values = ", ".join(reads[letter].format(i) for i, letter in enumerate(letters))
            table.append(f'{{"{symbol}", [](const Arguments& a) {{ return {symbol}({values}); }}}},')
    return "\n".join([*declared, "static const Kernel KERNELS[] = {", *table, "};"])
