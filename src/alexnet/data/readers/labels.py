"""Labels and names of classes as strangers' files give them, checked before anything is made of their size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from alexnet.data.dataset import Split
from alexnet.errors import DataError, quoted

MAX_CLASSES = 1 << 20
# Labels without names may reach this far, or up to the number of images: a stray one would ask for a giant network.
MAX_UNNAMED = 1 << 15
MAX_NAME = 1000  # characters
_DIGITS = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)


def check_label(where: str, value: object) -> int:
    """Return a label that is a whole number, or its digits as text or bytes.

    Raises `DataError` that begins with `where` for anything else and for a number that is no label.
    """
    number: object = value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        number = int(value) if _DIGITS.fullmatch(value) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f"{where}: the label {quoted(value)} is not a whole number")
    if not 0 <= number < MAX_CLASSES:
        raise DataError(f"{where}: the label {quoted(value)} is out of range; labels run from 0 to {MAX_CLASSES - 1}")
    return number


def check_names(where: str, names: object) -> list[str]:
    """Return names of classes that are a list of different, short texts.

    Raises `DataError` that begins with `where` for anything else.
    """
    if not isinstance(names, list | tuple):
        raise DataError(f"{where}: the names of the classes are no list but {quoted(names)}")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{where}: there are names for {len(names)} classes; at most {MAX_CLASSES} can be used")
    seen: dict[str, int] = {}
    for label, name in enumerate(names):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise DataError(
                f"{where}: the name of class {label} must be a text of 1 to {MAX_NAME} characters, not {quoted(name)}"
            )
        if seen.setdefault(name, label) != label:
            raise DataError(f"{where}: classes {seen[name]} and {label} are both called {quoted(name)}; rename one")
    return list(names)


def numbered(spec: str, splits: Iterable[Split]) -> Sequence[str]:
    """Return the classes' numbers as their names, up to the highest label. Raises `DataError` if it is a stray one."""
    all_labels = [split.labels for split in splits]
    highest = max(int(labels.max(initial=-1)) for labels in all_labels)
    if highest >= max(MAX_UNNAMED, sum(map(len, all_labels))) or highest >= MAX_CLASSES:
        raise DataError(
            f"{spec}: there is a label {highest}, and no names of so many classes; correct it or name the classes"
        )
    return [str(number) for number in range(highest + 1)]
