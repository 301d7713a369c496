"""The public `train`: settings by name with changes, pictures and a place; `training/loop.py` does the work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alexnet.ablations import without as leave_out
from alexnet.config import Config, fields, replace, text_of
from alexnet.named import named_config
from alexnet.progress import Progress, quiet
from alexnet.training import loop
from alexnet.training.init import initialise_from
from alexnet.training.state import TrainingResult


def train(
    settings: str | Path | Config,
    out: str | Path,
    *,
    data: str | Path | None = None,
    init: str | Path | None = None,
    without: Iterable[str] = (),
    progress: Progress = quiet,
    **changes: Any,
) -> TrainingResult:
    """Train a network as `alexnet train` does: `train("tiny-64", "runs/first", data="pictures/", lr=0.02, epochs=30)`.

    `settings` are a preset's name, a run directory, a file that `alexnet config` wrote, or a `Config`; `out` is the run
    directory to be made. `data` is a source, `init` a model to begin from, `without` names ideas of the paper to leave
    out. `changes` are settings by path, `**{"optimizer.lr": 0.02}`, or by their last word where it is one setting's
    alone. Raises UsageError and its kinds for a wrong request (which leaves nothing behind), TrainingError when the
    loss is not finite, KeyboardInterrupt (state saved) on Ctrl-C, SIGTERM or SIGUSR1.
    """
    config = settings if isinstance(settings, Config) else named_config(settings)
    named = {"data.source": data, "train.init": init}
    texts = {path: str(value) for path, value in named.items() if value is not None}
    begun = {path: text for path, text in texts.items() if path == "train.init"}
    config = initialise_from(replace(config, begun) if begun else config)  # whose network may be that of its model
    texts |= {_path(name, config): _text(value) for name, value in changes.items()}
    return loop.train(replace(leave_out(config, without), texts), out, progress)


def _path(name: str, config: Config) -> str:
    """The path of a setting that is named by its last word; another name as it is."""
    fitting = [entry.path for entry in fields(config) if entry.path.partition(".")[2] == name]
    return fitting[0] if len(fitting) == 1 else name


def _text(value: Any) -> str:
    return text_of(tuple(value) if isinstance(value, list) else value)
