"""Plain-text tables: columns aligned by what they hold, nothing wider than its text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = "  "


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), foot: bool = False) -> str:
    """Lines of a table with a rule under its head; `right` are the columns set flush right.

    With `foot` the last row stands below a rule of its own. Every row has as many cells as the head.
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        set_ = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return GAP.join(set_).rstrip()

    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    lines = [line(head), rule, *map(line, rows)]
    if foot:
        lines.insert(-1, rule)
    return "\n".join(lines)


def paragraph(text: str, indent: str = "", width: int = 100) -> str:
    """A text broken into lines of at most `width` characters, those after the first indented."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
