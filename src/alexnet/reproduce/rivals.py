"""The arms of claims 13 and 14 that are no networks: sparse coding, and SIFT with Fisher vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.baselines.settings import fields
from alexnet.baselines.settings import settings_of as baseline_settings
from alexnet.progress import Progress

if TYPE_CHECKING:
    from alexnet.baselines.directory import BaselineRun

PLACE = ("seed", "threads", "memory")  # settings that change nothing of what is learned, and the seed


def values_of(kind: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Settings of a baseline as its flags have them, by name. Raises UsageError for one that is wrong."""
    known = {entry.path: entry for entry in fields(kind)}
    return {name: known[name].parse(text) for name, text in texts.items()}


def fingerprint(kind: str, texts: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits of all settings that decide what a baseline learns."""
    document = {"kind": kind, **dataclasses.asdict(baseline_settings(kind, values_of(kind, texts)))}
    for name in PLACE:
        del document[name]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def fitted(
    kind: str, texts: Mapping[str, str], source: str, path: Path, progress: Progress, command: list[str]
) -> BaselineRun:
    """A baseline, fitted to its end. Raises what `fit_baseline` and `resume_baseline` do."""
    from alexnet.baselines.directory import is_baseline
    from alexnet.baselines.fit import fit_baseline, resume_baseline

    if is_baseline(path):
        return resume_baseline(path, progress, source, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    return fit_baseline(kind, source, path, values_of(kind, texts), progress, command)
