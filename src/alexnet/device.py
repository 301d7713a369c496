"""The processors of this machine, and the arithmetic that they are asked for."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from alexnet.errors import UsageError, quoted

if TYPE_CHECKING:
    import torch


def cpu_count() -> int:
    """The number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of a precision: bfloat16 by autocast, float32 otherwise."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def check_device(name: str) -> None:
    """Raise UsageError for what is not the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,9})?", name):
        raise UsageError(f"device {quoted(name)} should be auto, cpu, cuda or cuda:N")


def has_gpu_driver() -> bool:
    """Whether a driver of NVIDIA's is here, which is known without torch."""
    return os.path.exists("/proc/driver/nvidia") or shutil.which("nvidia-smi") is not None


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on a device; to a GPU through page-locked memory, so that the host does not wait for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, whose float32 is float32: convolutions in TF32 are switched off.

    Raises UsageError for a device that is not there.
    """
    import torch

    check_device(name)
    torch.backends.cudnn.allow_tf32 = False

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices here; use cpu")
    return torch.device(name)
