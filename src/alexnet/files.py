"""Files that are never found half written: everything that is replaced is written beside, synced and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPORARY = ".part"  # ends the name of a file that is being written


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file beside `path` for writing; on success it is synced and takes its place, else it is removed.

    `mode` is "wb" or "w" (UTF-8); `options` are those of `open`. A reader finds the old file or the new one, whole,
    even after a power cut. Raises OSError, on a full disk for example, with the old file untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    try:
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file by `content`."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a file by `text`, UTF-8."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Replace a file by `value` as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_json_lines(path: str | os.PathLike[str], values: list[dict[str, Any]]) -> None:
    """Replace a file by one JSON object per line."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Replace a file by arrays as .npz; equal arrays give equal bytes."""
    import numpy as np

    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises OSError, and ValueError at once for what would block or fill the memory: pipe, device, folder, larger file.
    """
    # A pipe without a writer would block an ordinary open.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > limit:
            raise ValueError(f"its {status.st_size} bytes are more than the limit of {limit}")
        return file.read(status.st_size)


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], refusal: Exception) -> Iterator[None]:
    """Hold a lock file for this process. Raises `refusal` where another process holds it.

    The system lets go when the process ends, however it ends. Where there are no such locks (Windows), nothing is held.
    """
    with open(path, "w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise refusal from None
        yield


def cache_folder(*parts: str) -> Path:
    """The user's cache folder for this package, or one below it: `$XDG_CACHE_HOME/alexnet`, by default in ~/.cache.

    It may not exist yet. Raises RuntimeError where the user has no home.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).joinpath("alexnet", *parts)
