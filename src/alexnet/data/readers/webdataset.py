"""Tar shards in WebDataset layout: the files of a sample share a name up to the first dot (`17.jpg`, `17.cls`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alexnet.data.dataset import SPLITS, Labels, Source, Split, check_source
from alexnet.data.readers.labels import check_label, check_names, numbered
from alexnet.data.readers.tar import Member, members, opened
from alexnet.errors import DataError, quoted
from alexnet.files import read_regular

IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "ppm"))
_SPLIT = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|test)(?:[^a-z]|$)")
_SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")
_MAX_LABEL_BYTES = 1 << 20
_MAX_NAMES_BYTES = 1 << 26


def shards(root: Path) -> dict[str, list[Path]]:
    """Return the tar shards of each split in a folder or its split folders; names without a split count as train."""
    tars: dict[str, list[Path]] = {}
    nested = [path for folder in _SPLIT_FOLDERS for path in (root / folder).glob("*.tar")]
    for path in sorted([*root.glob("*.tar"), *nested]):
        match = _SPLIT.search(str(path.relative_to(root)).lower())
        name = match[1] if match else "train"
        tars.setdefault("val" if name.startswith("val") else name, []).append(path)
    return tars


def open_webdataset(spec: str, root: Path, tars: dict[str, list[Path]]) -> Source:
    """Open tar shards; class names come from `classes.txt` (one per line) beside them, or else are the numbers."""
    splits: dict[str, Split] = {name: _open_split(name, tars[name]) for name in SPLITS if name in tars}
    listed = root / "classes.txt"
    classes = _class_names(listed) if listed.exists() else numbered(spec, splits.values())
    return check_source(spec, classes, splits)


def _class_names(path: Path) -> list[str]:
    """One name per line, in the order of the labels."""
    try:
        lines = read_regular(path, _MAX_NAMES_BYTES).decode("utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: it is not UTF-8 text with the name of a class on each line") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return check_names(str(path), [line.strip() for line in lines])


def _open_split(name: str, paths: list[Path]) -> Split:
    from alexnet.data.readers.tar_index import TarSplit, build_index

    index = build_index(paths, "webdataset", _labelled_members)
    label_of_group = np.array([int(text) for text in index.groups], dtype=np.int64)
    labels: Labels = label_of_group[index.group] if len(index) else np.zeros(0, np.int64)
    return TarSplit(name, paths, labels, index)


def _labelled_members(_: int, path: Path) -> Iterator[tuple[str, Member]]:
    """Yield the images of a shard, each under its label's digits."""
    with opened(path) as file:
        for key, parts in _samples(path):
            image = next((parts[kind] for kind in parts if kind.lower() in IMAGES), None)
            if image is None:
                continue
            label = parts.get("cls") or parts.get("json")
            if label is None:
                raise DataError(f"{path}: sample {quoted(key)} has an image but no label in a .cls or .json beside it")
            if label.size > _MAX_LABEL_BYTES:
                raise DataError(f"{path}: the label of sample {quoted(key)} has {label.size} bytes")
            file.seek(label.offset)
            yield str(_label(f"{path}: sample {quoted(key)}", file.read(label.size), "cls" in parts)), image


def _samples(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield the samples of a shard: their key and their members by extension; members of one sample are neighbours."""
    key, parts = "", dict[str, Member]()
    for member in members(path):
        folder, _, base = member.name.rpartition("/")
        stem, _, kind = base.partition(".")
        if not stem or base.startswith("."):
            continue
        own = f"{folder}/{stem}" if folder else stem
        if own != key and parts:
            yield key, parts
            parts = {}
        key = own
        if kind in parts:
            raise DataError(f"{path}: it holds {quoted(member.name)} twice")
        parts[kind] = member
    if parts:
        yield key, parts


def _label(where: str, text: bytes, is_number: bool) -> int:
    if is_number:
        return check_label(where, text)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: its .json is not JSON: {quoted(text)}") from None
    if isinstance(content, dict):
        for name in ("label", "cls"):
            if name in content:
                return check_label(where, content[name])
    raise DataError(f"{where}: its .json has no label or cls: {quoted(text)}")
