"""A contact sheet: samples of a source's images with their class names, on one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet.data.dataset import Source, Split
from alexnet.data.decode import Pixels
from alexnet.data.random import permutation
from alexnet.errors import UnreadableImage
from alexnet.files import atomic_write

_TILE, _GAP, _CAPTION = 112, 8, 16  # pixels


def write_contact_sheet(source: Source, path: Path, tiles: int = 48) -> None:
    """Write samples of the first split, of as many classes as there is room for, with their class names.

    Images that cannot be read are passed over. Raises OSError where the file cannot be written.
    """
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
        sheet.paste(Image.fromarray(pixels), (x, y))
        while title and pen.textlength(title, font) > _TILE:
            title = title.removesuffix("…")[:-1] + "…"
        pen.text((x, y + _TILE + 2), title, (220, 220, 224), font)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        sheet.save(file, "PNG")


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
