"""Tell what is in a source or a store: splits, classes, counts, sizes, statistics, and a contact sheet of samples."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from alexnet.data.dataset import Source, Split
from alexnet.data.decode import Pixels, decode_with_notes
from alexnet.data.random import permutation
from alexnet.data.readers.open import open_source
from alexnet.data.readers.store import FILES, REPORT, STATISTICS, is_store, read_manifest
from alexnet.data.statistics import Statistics
from alexnet.device import cpu_count
from alexnet.errors import UnreadableImage

SAMPLED = 256
_TILE, _GAP, _CAPTION = 112, 8, 16


def info(
    spec: str | os.PathLike[str],
    *,
    contact_sheet: str | os.PathLike[str] | None = None,
    tiles: int = 48,
    download: bool = False,
) -> dict[str, Any]:
    """Describe a source or a store; with `contact_sheet` also write a PNG of `tiles` samples with their class names.

    Returns `spec`, `kind`, `classes`, `class_names`, `splits` (count, images a class, sizes of the source's images in
    pixels, of `sampled` ones) and for a store `codec`, `size`, `bytes`, `unreadable`, `odd`, `versions`, `statistics`.
    Raises `DataError` if it cannot be opened.
    """
    spec = os.fspath(spec)
    source = open_source(spec, download=download)
    root = Path(spec).expanduser()
    told: dict[str, Any] = {
        "spec": spec,
        "kind": "store" if is_store(root) else "source",
        "classes": len(source.classes),
        "class_names": list(source.classes),
        "splits": {name: _split(split, root, len(source.classes)) for name, split in source.splits.items()},
    }
    if is_store(root):
        told |= _store(root)
    if contact_sheet is not None:
        told["contact_sheet"] = os.fspath(contact_sheet)
        draw_contact_sheet(source, Path(contact_sheet), tiles)
    return told


def _split(split: Split, root: Path, classes: int) -> dict[str, Any]:
    per_class = np.bincount(split.labels, minlength=classes)
    told: dict[str, Any] = {
        "count": len(split),
        "per_class": {"min": int(per_class.min()), "median": float(np.median(per_class)), "max": int(per_class.max())},
    }
    sizes = _recorded_sizes(root / split.name / FILES) if is_store(root) else _sampled_sizes(split)
    if len(sizes):
        told["sampled"] = len(sizes)
        for name, values in (("height", sizes[:, 0]), ("width", sizes[:, 1])):
            told[name] = {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}
    return told


def _recorded_sizes(path: Path) -> NDArray[np.int64]:
    try:
        table = pq.read_table(path, columns=["height", "width"])
    except (OSError, pa.ArrowException):
        return np.zeros((0, 2), np.int64)
    return np.stack([table.column(name).to_numpy() for name in ("height", "width")], axis=1).astype(np.int64)


def _sampled_sizes(split: Split) -> NDArray[np.int64]:
    """Return rows and columns of evenly spaced images that can be read: (n, 2)."""

    def look(i: int) -> tuple[int, int] | None:
        try:
            decoded = decode_with_notes(split.read_bytes(i))
        except UnreadableImage:
            return None
        return decoded.height, decoded.width

    chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), SAMPLED)).astype(np.int64))
    with ThreadPoolExecutor(cpu_count()) as pool:
        found = [size for size in pool.map(look, chosen.tolist()) if size is not None]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _store(root: Path) -> dict[str, Any]:
    manifest = read_manifest(root)
    entries = list(manifest["splits"].values())
    told: dict[str, Any] = {
        "source": manifest["source"],
        "codec": manifest["codec"],
        "size": manifest["size"],
        "bytes": sum(int(shard["bytes"]) for entry in entries for shard in entry["shards"]),
        "unreadable": sum(int(entry["unreadable"]) for entry in entries),
        "odd": sum(int(entry["odd"]) for entry in entries),
        "report": os.fspath(root / REPORT),
        "settings": manifest["settings"],
        "versions": manifest["versions"],
    }
    if STATISTICS in manifest["files"]:
        statistics = Statistics.load(root / STATISTICS)
        told["statistics"] = {
            "count": statistics.count,
            "rgb_mean": statistics.rgb_mean.tolist(),
            "rgb_covariance": statistics.rgb_covariance.tolist(),
            "eigenvalues": statistics.eigenvalues.tolist(),
            "eigenvectors": statistics.eigenvectors.tolist(),
        }
    return told


def draw_contact_sheet(source: Source, path: Path, tiles: int = 48) -> None:
    """Write a PNG with samples of the first split, of as many classes as there is room for, and their class names."""
    from PIL import Image, ImageDraw, ImageFont

    split = next(iter(source.splits.values()))
    shown: list[tuple[Pixels, str]] = []
    for i in _spread(split, tiles * 2):
        try:
            shown.append((split.resize_crop(i, _TILE), source.classes[int(split.labels[i])]))
        except UnreadableImage:
            continue
        if len(shown) == tiles:
            break
    columns = max(1, min(8, len(shown)))
    rows = -(-len(shown) // columns)
    step_x, step_y = _TILE + _GAP, _TILE + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, max(1, rows) * step_y + _GAP), (24, 24, 28))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for k, (pixels, title) in enumerate(shown):
        x, y = _GAP + k % columns * step_x, _GAP + k // columns * step_y
        sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (x, y))
        while title and pen.textlength(title, font) > _TILE:
            title = title.removesuffix("…")[:-1] + "…"
        pen.text((x, y + _TILE + 2), title, (220, 220, 224), font)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    sheet.save(beside, "PNG")
    os.replace(beside, path)


def _spread(split: Split, wanted: int) -> list[int]:
    """Return positions of samples, one class after another, each class's in a fixed shuffled order."""
    shuffled = permutation(len(split), seed=0, epoch=0)
    labels = split.labels[shuffled]
    ranking = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[ranking], return_index=True, return_counts=True)
    turn = np.empty(len(split), np.int64)
    turn[ranking] = np.arange(len(split)) - np.repeat(starts, counts)
    # First every class once, in an order that does not favour the first letters of the alphabet.
    return [int(i) for i in shuffled[np.argsort(turn, kind="stable")[:wanted]]]
