"""The 2012 paper "ImageNet Classification with Deep Convolutional Neural Networks" as a complete working system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Predictor", "create_model", "errors", "evaluate", "load", "prepare", "presets", "resume", "train"]

_HOMES = {
    "create_model": "alexnet.model.zoo",
    "train": "alexnet.training.train",
    "resume": "alexnet.training.loop",
    "evaluate": "alexnet.inference.evaluate",
    "load": "alexnet.inference.load",
    "prepare": "alexnet.data.store.prepare",
    "Predictor": "alexnet.predictor",
}

_PLAYED = {"avx512": ("avx512", "AVX512_CORE"), "avx2": ("avx2", "AVX2"), "plain": ("default", "SSE41")}
if _played := _PLAYED.get(os.environ.get("ALEXNET_ENGINE", "")):  # by torch too, which looks at its first operation
    from tempfile import gettempdir

    os.environ.setdefault("ATEN_CPU_CAPABILITY", _played[0])
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", _played[1])
    # What torch.compile has kept for wider vectors gives wrong numbers here.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(gettempdir(), f"torchinductor_{_played[0]}"))

if TYPE_CHECKING:
    from alexnet import errors, presets
    from alexnet.data.store.prepare import prepare
    from alexnet.inference.evaluate import evaluate
    from alexnet.inference.load import load
    from alexnet.model.zoo import create_model
    from alexnet.predictor import Predictor
    from alexnet.training.loop import resume
    from alexnet.training.train import train


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for, so that the command starts at once."""
    if name not in __all__:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    from importlib import import_module

    from alexnet.errors import missing_library

    if name not in _HOMES:
        return import_module(f"alexnet.{name}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        raise missing_library(error, f"alexnet.{name}") from error


def __dir__() -> list[str]:
    """The public names, which `dir` and completion show before they are imported."""
    return [*__all__, "__doc__", "__version__"]
