"""Dense SIFT by OpenCV (Lowe 2004): one descriptor per patch of a grid, upright.

Shapes: `N` pictures of side `S`, `P` patches along a side.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import numpy as np

from alexnet.baselines.grid import Floats, Pixels, grey, starts
from alexnet.errors import MissingLibrary

PATCH_PER_SIZE = 6  # OpenCV's 4×4 cells cover six times a key point's size
FLAT = 100.0  # of OpenCV's descriptors, which are 512 long, the sum of squares below which a patch has no contrast
_own = threading.local()


def sift(images: Pixels, patch: int, step: int) -> Floats:
    """RGB (N, S, S, 3) → (N, P, P, 128): the square roots of SIFT whose entries sum to 1, so of length 1 (RootSIFT).

    Raises MissingLibrary where OpenCV is not installed.
    """
    detector, points = _detector(), _points(images.shape[1], patch, step)
    side = len(starts(images.shape[1], patch, step))
    levels = np.rint(grey(images)).astype(np.uint8)
    out = np.empty((len(images), side * side, 128), np.float32)
    for picture, place in zip(levels, out, strict=True):
        place[:] = detector.compute(picture, points)[1]
    total = out.sum(axis=2, keepdims=True)
    return np.sqrt(out / np.maximum(total, np.float32(1))).reshape(len(images), side, side, 128)


def check_library() -> None:
    """Raise MissingLibrary where OpenCV is not installed."""
    try:
        import_module("cv2")
    except ModuleNotFoundError:
        raise MissingLibrary("SIFT needs opencv-python-headless; pip install 'alexnet[baselines]'") from None


def _detector() -> Any:
    """OpenCV's SIFT of this thread."""
    if not hasattr(_own, "detector"):
        check_library()
        import cv2

        cv2.setNumThreads(1)  # the threads are those of whoever calls
        _own.detector, _own.points = cv2.SIFT_create(), {}  # type: ignore[attr-defined]
    return _own.detector


def _points(side: int, patch: int, step: int) -> Any:
    """The key points of a grid, row by row: one octave, angle 0, which OpenCV leaves as they are."""
    key = side, patch, step
    if key not in _own.points:
        import cv2

        places = (starts(side, patch, step) + (patch - 1) / 2).tolist()
        size = patch / PATCH_PER_SIZE
        _own.points[key] = [cv2.KeyPoint(x, y, size, 0.0, 1.0, 0) for y in places for x in places]
    return _own.points[key]
