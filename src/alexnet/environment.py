"""What a record needs besides its numbers: versions, hardware, commit and command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def environment(command: list[str] | None = None) -> dict[str, Any]:
    """Versions, hardware, commit and command, JSON-ready; `command` is by default this process's."""
    import torch

    packages = ["alexnet", "torch", "torchvision", "numpy", "pillow", "simplejpeg"]
    names, kind = instruction_sets()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "hardware": {
            "cpu": cpu_name(),
            "instruction_class": kind,
            "instruction_sets": list(names),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
        },
        "platform": platform.platform(),
        "commit": commit(),
        "command": command or sys.argv,
    }


def version(package: str) -> str | None:
    """The version of an installed package, or None."""
    from importlib import metadata  # slow to import

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the source tree, with `+` when it has changes; None for an installed package."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        if name.returncode:
            return None
        inside = subprocess.run([*git, "ls-files", "--error-unmatch", "run.py"], capture_output=True, timeout=10)
        if inside.returncode:
            return None
        dirty = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
        return name.stdout.strip() + ("+" if dirty.stdout.strip() else "")
    except (OSError, subprocess.TimeoutExpired):
        return None


# From the widest: the class of a processor is the first whose instructions it all has.
INSTRUCTION_CLASSES = {
    "amx-bf16": {"amx_bf16", "amx_tile", "avx512f"},
    "avx512-bf16": {"avx512_bf16", "avx512f"},
    "avx512": {"avx512f"},
    "avx2": {"avx2", "fma"},
    "sve-bf16": {"sve", "bf16"},
    "neon-bf16": {"asimd", "bf16"},
    "neon": {"asimd"},
}
# What a processor is played without, by the target that the engine is held to.
HIDDEN_FLAGS: dict[str, tuple[str, ...]] = {
    "avx512bf16": ("avx10", "amx"),
    "avx512": ("avx512_bf16", "avx512_vnni", "avx512_fp16", "avx10", "amx"),
    "avx2": ("avx512", "avx10", "amx"),
    "plain": ("avx", "fma", "amx"),
}


def instruction_sets(flags: set[str] | None = None) -> tuple[tuple[str, ...], str]:
    """The processor's vector instructions as the system names them, and the class they make: `avx512-bf16`, `avx2`, ….

    `flags` are the system's by default, without what is newer than the target where `ALEXNET_ENGINE` plays such a
    processor. Where there are none, the class is the machine's: `x86-64`, `arm64`.
    """
    if flags is None:
        flags = set()
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.partition(":")[0].strip() in ("flags", "Features"):
                    flags = set(line.partition(":")[2].split())
                    break
        except OSError:
            pass
        hidden = HIDDEN_FLAGS.get(os.environ.get("ALEXNET_ENGINE", ""), ())
        flags = {flag for flag in flags if not flag.startswith(hidden)}
    vector = sorted(flag for flag in flags if flag.startswith(("avx", "fma", "amx", "asimd", "sve", "bf16", "sse4")))
    known = (name for name, needed in INSTRUCTION_CLASSES.items() if needed <= flags)
    return tuple(vector), next(known, platform.machine().lower().replace("_", "-") or "unknown")
