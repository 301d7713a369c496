"""The project's own errors: they alone are shown in one line; any other exception is a bug.

A message says what is wrong, with which file or field, and how to mend it.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import reprlib
from collections.abc import Iterable

MOST = 900  # characters of a message: names in it may be a file's, and of any length


class _Words(reprlib.Repr):
    """Values as Python writes them, but true, false and null as files have them."""

    def repr_bool(self, value: bool, level: int) -> str:
        return str(value).lower()

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"


_SHORT = _Words()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200


class AlexnetError(Exception):
    """Work that failed. `exit_code` is the command's.

    Its text is one printable line of at most `MOST` characters, whatever names it was made with.
    """

    exit_code = 1

    def __str__(self) -> str:
        return _printable(super().__str__(), MOST)


class UsageError(AlexnetError, ValueError):
    """A wrong request: a setting, name, file or combination that cannot be used."""

    exit_code = 2


class DataError(UsageError):
    """Images or labels that cannot be used."""


class UnreadableImage(DataError):
    """One image that cannot be read."""


class RunError(UsageError):
    """A run directory that cannot be used."""


class RunBusy(RunError):
    """A run that another process is training."""


class CheckpointError(RunError):
    """A checkpoint that is missing, damaged or of another network."""


class MissingLibrary(UsageError):
    """An optional library that is not installed; the message names the extra to install."""


# What the extra `train` installs, by the names of its modules.
TRAIN = ("torch", "torchvision", "pyarrow", "sklearn", "matplotlib", "jinja2", "markupsafe")


def missing_library(error: ModuleNotFoundError, what: str) -> Exception:
    """The error to raise where `what` came upon a library that is not installed; a bug stays as it is."""
    name = (error.name or "").partition(".")[0]
    return MissingLibrary(f"{what} needs {name}; pip install 'alexnet[train]'") if name in TRAIN else error


class TrainingError(AlexnetError):
    """Training that cannot go on; the message says at which step and what to try."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for a misspelt name, or an empty text."""
    close = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def quoted(name: object, most: int = 80) -> str:
    """What a file says, for a message: a text in quotes, true, false and null as in JSON.

    Printable, at most `most` characters, cut in the middle, and short work for any value, such as names of megabytes,
    numbers of a million digits and deep nesting.
    """
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    if isinstance(name, str | bytes):
        text = repr(name) if len(name) <= 2 * most else repr(name[:most]) + repr(name[-most:])
    elif isinstance(name, int) and name.bit_length() > 1024:
        text = f"a number of {name.bit_length()} bits"
    else:
        text = f"a {type(name).__name__}"
        with contextlib.suppress(Exception):  # whatever it is, it is named
            text = _SHORT.repr(name)
    return _printable(text, most)


def several(names: Iterable[object], most: int = 3) -> str:
    """The first of some names, quoted, and how many more there are: `'a', 'b' and 3 more`."""
    listed = list(names)
    few = ", ".join(quoted(name, 40) for name in listed[:most])
    return few + (f" and {len(listed) - most:,} more" if len(listed) > most else "")


def _printable(text: str, most: int) -> str:
    """The text with what is not printable written as escapes, and its middle cut out where it is longer than `most`."""
    if len(text) > most:
        text = text[:most] + text[-most:]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) <= most:
        return text
    head = most // 2
    return text[:head] + "…" + text[len(text) - (most - head - 1) :]


def one_line(error: BaseException) -> str:
    """What another library's error says, in one line of at most 300 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def describe_os_error(error: OSError) -> str:
    """What the system says, with the file."""
    what = error.strerror or str(error)
    file = error.filename2 or error.filename  # of a rename, the file that should be there in the end
    return f"{file}: {what}" if file else what
