"""The contact sheet of a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data.readers.open import open_source
from alexnet.report.contact_sheet import write_contact_sheet


def test_the_contact_sheet_shows_every_class_first(tmp_path: Path) -> None:
    write_contact_sheet(open_source("digits"), tmp_path / "deep" / "sheet.png", tiles=10)
    sheet = np.asarray(Image.open(tmp_path / "deep" / "sheet.png"))
    assert sheet.shape[1] == 8 * 120 + 8 and sheet.shape[0] == 2 * 136 + 8
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sheet.png"]
    tiles = {sheet[8 + 136 * (k // 8) :, 8 + 120 * (k % 8) :][:112, :112].tobytes() for k in range(10)}
    assert len(tiles) == 10


def test_unreadable_images_are_passed_over_on_the_sheet(pictures: Callable[..., Path], tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures", {"": 2}, ("ant", "bee"))
    (root / "ant" / "00.png").write_bytes(b"no image")
    write_contact_sheet(open_source(root), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (3 * 120 + 8, 136 + 8)
