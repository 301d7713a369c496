"""The project's own errors: they alone are shown in one line; any other exception is a bug.

A message says what is wrong, with which file or field, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlexnetError(Exception):
    """Work that failed. `exit_code` is the command's."""

    exit_code = 1


class UsageError(AlexnetError, ValueError):
    """A wrong request: a setting, name, file or combination that cannot be used."""

    exit_code = 2


class DataError(UsageError):
    """Images or labels that cannot be used."""


class UnreadableImage(DataError):
    """One image that cannot be read."""


class RunError(UsageError):
    """A run directory that cannot be used."""


class CheckpointError(RunError):
    """A checkpoint that is missing, damaged or of another network."""


class MissingLibrary(UsageError):
    """An optional library that is not installed; the message names the extra to install."""


class TrainingError(AlexnetError):
    """Training that cannot go on; the message says at which step and what to try."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for a misspelt name, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def one_line(error: BaseException) -> str:
    """What another library's error says, in one line of at most 300 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def describe_os_error(error: OSError) -> str:
    """What the system says, with the file."""
    what = error.strerror or str(error)
    file = error.filename2 or error.filename  # of a rename, the file that should be there in the end
    return f"{file}: {what}" if file else what
