"""Settings by name: those of a preset, of a run, or of a file."""

from __future__ import annotations

import os
from pathlib import Path

from alexnet import config_file, presets
from alexnet.config import Config, replace
from alexnet.errors import UsageError
from alexnet.run import Run

SUFFIXES = (".toml", ".json")  # of files of settings


def named_config(name: str | os.PathLike[str], classes: int | None = None) -> Config:
    """The settings that a name means: a preset's, `torchvision:NAME`'s, a run directory's, or a file's.

    A file is one that `alexnet config` wrote (.toml), or a run's config.json. `classes` replaces the number of classes.
    Raises UsageError for another name, RunError and UsageError for a run or a file that cannot be read.
    """
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"settings of type {type(name).__name__} should be a preset's name, a run, a file or a Config")
    name, path = os.fspath(name), Path(name)
    if name in presets.names() or not name:
        config = presets.preset(name)
    elif os.path.isdir(name):
        config = Run.open(path).config
    elif path.suffix in SUFFIXES:
        try:
            config = config_file.read_config(path)
        except UsageError as error:  # the file is not always that of --config
            raise UsageError(str(error).removeprefix("--config ")) from None
    elif os.path.isfile(name):
        raise UsageError(f"{path} is not a file of settings: one that `alexnet config` wrote ends in .toml")
    elif os.path.dirname(name):
        raise UsageError(f"{path}: there is no such run or file of settings; `alexnet train --out {path}` makes a run")
    else:
        config = presets.preset(name)
    return config if classes is None else replace(config, {"network.classes": str(classes)})
