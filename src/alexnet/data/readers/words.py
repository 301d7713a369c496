"""What the classes of ImageNet mean: the words beside folders, tars and rows that are named by wnids, as n02085936.

The lists are `words.txt` (ImageNet's and Tiny ImageNet's: wnid, tab, words) and `LOC_synset_mapping.txt` (Kaggle's:
wnid, space, words).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alexnet.data.dataset import Source
from alexnet.files import read_regular, write_text

FILES = ("words.txt", "LOC_synset_mapping.txt")
MAX_BYTES = 1 << 24  # of a list; ImageNet's of 82,115 synsets has 2.7 MB
LONGEST = 200  # characters of a class's words
WNID = re.compile(r"n\d{8}")
_LINE = re.compile(rb"^(n[0-9]{8})[\t ]+([^\r\n]{1,1000})", re.MULTILINE)


def wnid(title: str) -> str | None:
    """The wnid that a class name begins with, or None."""
    match = WNID.match(title)
    return match[0] if match else None


def with_words(source: Source, root: Path) -> Source:
    """The source with the words of its classes: its own, or those of a list in its folder or in the one above it."""
    words = source.words or _listed(source.classes, root)
    return dataclasses.replace(source, words=checked_words(words, len(source.classes)))


def checked_words(words: Any, count: int) -> tuple[str, ...] | None:
    """What a file gives as words, printable and at most `LONGEST` characters each.

    None unless it is a sequence of `count` texts, not all of them empty.
    """
    if not isinstance(words, list | tuple) or len(words) != count or not all(isinstance(text, str) for text in words):
        return None
    short = tuple("".join(filter(str.isprintable, text[: 2 * LONGEST])).strip()[:LONGEST] for text in words)
    return short if any(short) else None


def write_words(source: Source, root: Path) -> None:
    """Write words.txt for a copy of the source's images in a folder, where the source has words."""
    if source.words:
        rows = zip(source.classes, source.words, strict=True)
        write_text(root / FILES[0], "".join(f"{wnid(name)}\t{words}\n" for name, words in rows if wnid(name)))


def _listed(classes: Sequence[str], root: Path) -> tuple[str, ...] | None:
    """The words of classes in the first list that has any."""
    wnids = [wnid(name) or "" for name in classes]
    if any(wnids):
        for path in _lists(root):
            try:
                content = read_regular(path, MAX_BYTES)
            except (OSError, ValueError):  # it is a help, not the images
                continue
            wanted = set(wnids)
            words = {name.decode(): text for name, text in _LINE.findall(content) if name.decode() in wanted}
            if words:
                return tuple(words.get(name, b"").decode(errors="replace") for name in wnids)
    return None


def _lists(root: Path) -> Iterator[Path]:
    root = root.absolute()
    for folder in (root, root.parent) if root.is_dir() else (root.parent,):
        yield from (folder / name for name in FILES if (folder / name).is_file())
