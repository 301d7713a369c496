"""Open anything labelled: `open_source` knows every kind of SRC that commands accept."""

from __future__ import annotations

import os
from pathlib import Path

from alexnet.data.dataset import Source
from alexnet.errors import DataError, describe_os_error, missing_library, quoted, suggestion


def open_source(spec: str | os.PathLike[str], download: bool = False) -> Source:
    """Open labelled images by their specification.

    `digits` (scikit-learn's, always there); a folder of class folders with or without train, val and test, of Parquet
    files in the Hugging Face layout, of official ILSVRC tars and devkit, of synset tars, or of tar shards in WebDataset
    layout; one tar or Parquet file; a store made by `alexnet data prepare`; `hf:owner/name`; a torchvision data set by
    name, fetched only if `download`. Raises `DataError` with one line that says what is wrong and how to mend it,
    and `MissingLibrary` where that kind is read by a library that is not installed.
    """
    spec = os.fspath(spec)
    try:
        return _open(spec, download)
    except ModuleNotFoundError as error:
        raise missing_library(error, f"reading {spec}") from error


def _open(spec: str, download: bool) -> Source:
    if spec == "digits":
        from alexnet.data.readers.digits import open_digits

        return open_digits()
    if spec.startswith("hf:"):
        from alexnet.data.readers.hub import open_hub

        return open_hub(spec)
    try:
        root = Path(spec).expanduser()
        there = root.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that is none, a folder closed to us
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise DataError(f"{quoted(spec, 200)}: it cannot be opened: {why}") from None
    if not there:
        from alexnet.data.readers.hub import TORCHVISION, open_torchvision

        if spec in TORCHVISION:
            return open_torchvision(spec, download)
        if root.is_symlink():
            raise DataError(f"{spec}: it is a link to something that is not there")
        close = suggestion(spec, ["digits", *TORCHVISION])
        hint = close.removeprefix("; ") or "give a folder of images, or `digits`"
        raise DataError(f"{spec}: there is no such folder or data set; {hint}")
    from alexnet.data.readers.words import with_words

    try:
        return with_words(_open_files(spec, root), root)
    except OSError as error:
        raise DataError(f"{spec}: it cannot be read: {describe_os_error(error)}") from None


def _open_files(spec: str, root: Path) -> Source:
    """Open what is on disk by looking at the names of the files."""
    from alexnet.data.readers import folder, ilsvrc, parquet_shards, store, tar, webdataset

    if not root.is_dir():
        if root.suffix == ".parquet":
            return _open_parquet(spec, {"train": [root]})
        if root.suffix != ".tar":
            raise DataError(f"{spec}: it is no folder of images, no tar and no Parquet file")
        first = next(iter(tar.members(root)), None)
        if first is not None and first.name.endswith(".tar"):
            return ilsvrc.open_synset_tars(spec, root)
        return webdataset.open_webdataset(spec, root.parent, {"train": [root]})
    if store.is_store(root):
        return store.open_store(spec, root)
    if (root / "unfinished" / "settings.json").exists():
        raise DataError(
            f"{spec}: it is a store whose preparation was not finished; repeat its `alexnet data prepare` to finish it"
        )
    if (known := ilsvrc.edition(root)) is not None:
        return ilsvrc.open_ilsvrc(spec, root, known)
    if ilsvrc.is_synset_tars(root):
        return ilsvrc.open_synset_tars(spec, root)
    if shards := parquet_shards.shards(root):
        return _open_parquet(spec, shards)
    if tars := webdataset.shards(root):
        return webdataset.open_webdataset(spec, root, tars)
    return folder.open_folders(spec, root)


def _open_parquet(spec: str, shards: dict[str, list[Path]]) -> Source:
    from alexnet.data.readers.parquet import open_parquet

    return open_parquet(spec, shards)
