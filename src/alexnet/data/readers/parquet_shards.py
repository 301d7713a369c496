"""Which files of a folder are a data set in Parquet, by their names alone: pyarrow is needed only to read them."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^(train|validation|valid|val|test)([-._].*)?\.parquet$")
_SPLIT = {"validation": "val", "valid": "val"}


def shards(root: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of each split in a folder or its `data` folder, in order; empty if there are none."""
    for folder in (root, root / "data"):
        paths: dict[str, list[Path]] = {}
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                match = _NAME.match(path.name)
                if match:
                    paths.setdefault(_SPLIT.get(match[1], match[1]), []).append(path)
        if paths:
            return paths
    return {}
