"""Baselines of moments, fitted to seven classes of small pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alexnet.baselines.fit import fit_baseline

SMALL: dict[str, Any] = {
    "size": 16,
    "detail": 32,
    "patches": (16,),
    "step": 8,
    "components": 8,
    "samples": 3000,
    "penalties": (1e-5, 1e-2),
    "epochs": 4,
    "batch_size": 8,
    "rate": 2.0,
    "threads": 1,
}
KINDS: dict[str, dict[str, Any]] = {
    "sift-fv": {"gaussians": 3},
    "sparse-coding": {"members": ("llc-hog", "l1-colour", "llc-lbp"), "words": 16, "atoms": 12, "iterations": 5},
}


@pytest.fixture(scope="session")
def fisher(seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sift-fv; look, do not touch."""
    pytest.importorskip("cv2")
    out = tmp_path_factory.mktemp("baselines") / "fisher"
    fit_baseline("sift-fv", str(seven), out, SMALL | KINDS["sift-fv"])
    return out


@pytest.fixture(scope="session")
def sparse(seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sparse-coding; look, do not touch."""
    out = tmp_path_factory.mktemp("baselines") / "sparse"
    fit_baseline("sparse-coding", str(seven), out, SMALL | KINDS["sparse-coding"])
    return out
