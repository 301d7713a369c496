"""Files: what is replaced is written beside, synced and renamed; what is read may be a stranger's, so it is bounded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEMPORARY = ".part"  # ends the name of a file that is being written: `config.json.1f3a09c2.part`


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file beside `path` for writing; on success it is synced and takes its place, else it is removed.

    `mode` is "wb" or "w" (UTF-8); `options` are those of `open`. A reader finds the old file or the new one, whole,
    even after a power cut; of several processes that write at once, the last to finish has its way. Raises OSError, on
    a full disk for example, with the old file untouched.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}{TEMPORARY}")
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    try:
        with open(temporary, mode.replace("w", "x"), **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder that no other process writes to now."""
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink(missing_ok=True)


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


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], compressed: bool = False) -> None:
    """Replace a file by arrays as .npz; equal arrays give equal bytes."""
    import numpy as np

    with atomic_write(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: str | os.PathLike[str], limit: int | None = None) -> IO[bytes]:
    """Open a regular file of at most `limit` bytes for reading.

    Raises OSError, and ValueError at once for what would block or fill the memory: pipe, device, folder, larger file.
    """
    # A pipe without a writer would block an ordinary open.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if limit is not None and status.st_size > limit:
            raise ValueError(f"its {status.st_size} bytes are more than the limit of {limit}")
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes. Raises OSError and ValueError as `open_regular` does."""
    with open_regular(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def map_npy(path: str | os.PathLike[str], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a .npy file read-only that holds exactly such an array.

    Raises OSError, and ValueError that says what is there instead.
    """
    import numpy as np

    with open_regular(path) as file:
        found, stored, _ = _npy_header(file)
        if stored != dtype or found != shape:
            raise ValueError(f"it holds {str(stored)[:40]} {str(found)[:80]}, not {dtype} {shape}")
        size, wanted = os.fstat(file.fileno()).st_size, file.tell() + dtype.itemsize * math.prod(shape)
        if size != wanted:
            raise ValueError(f"it has {size} bytes instead of {wanted}")
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))


def read_npz(path: str | os.PathLike[str], limit: int, compressed: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays of numbers of a .npz file as `write_npz` makes it, of at most `limit` bytes, packed and unpacked.

    Only with `compressed` may they be packed. Raises OSError, and ValueError for anything else.
    """
    with open_regular(path, limit) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - 42))
        tail = file.read(42)
        # The list of members is read whole when a zip is opened: its length stands in the last 22 bytes, or in a zip64
        # record before them, which no file of this size needs.
        plain = tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0" and tail[:4] != b"PK\6\7"
        if not plain or int.from_bytes(tail[-10:-6], "little") > 1 << 16:
            raise ValueError("it is not a whole .npz file")
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                if sum(member.file_size for member in members) > (limit if compressed else size):
                    raise ValueError(f"its members are larger than {'the limit' if compressed else 'it is'}")
                kinds = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} if compressed else {zipfile.ZIP_STORED}
                if not kinds.issuperset(member.compress_type for member in members):
                    raise ValueError("its arrays are compressed" + (" in another way" if compressed else ""))
                return {member.filename.removesuffix(".npy"): _read_npy(archive, member) for member in members}
        except ValueError:
            raise
        except Exception as error:  # zipfile raises many kinds for a damaged file
            raise ValueError(f"it is not a whole .npz file ({type(error).__name__})") from None


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    import numpy as np

    with archive.open(member) as file:
        shape, dtype, fortran = _npy_header(file)
        count = dtype.itemsize * math.prod(shape)
        if dtype.kind not in "iuf" or min(shape, default=0) < 0 or count > member.file_size:
            raise ValueError("it holds something else than arrays of numbers")
        data = np.empty(count, np.uint8)
        for at in range(0, count, 1 << 20):
            part = file.read(min(1 << 20, count - at))
            if not part:
                raise ValueError("an array in it is cut short")
            data[at : at + len(part)] = np.frombuffer(part, np.uint8)
        if file.read(1):
            raise ValueError("an array in it has other bytes behind it")
    array = data.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, dtype, and whether the first index runs fastest, of the .npy file whose array follows in `file`."""
    import numpy as np

    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except OSError:
        raise
    except Exception:  # the header is a Python literal, and reading one raises anything
        raise ValueError("it is not a .npy array") from None
    return shape, dtype, fortran


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], refusal: Exception) -> Iterator[None]:
    """Hold a lock file for this process. Raises `refusal` where another process holds it, or has just removed it.

    The system lets go when the process ends, however it ends. Where there are no such locks (Windows), nothing is held.
    """
    # Neither waits for a pipe in the file's place nor follows a link out of the folder.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags, 0o666)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = os.path.samestat(os.fstat(handle), os.stat(path))
            except (BlockingIOError, FileNotFoundError):
                held = False
            if not held:
                raise refusal
        yield
    finally:
        os.close(handle)


def cache_folder(*parts: str) -> Path:
    """The user's cache folder for this package, or one below it: `$XDG_CACHE_HOME/alexnet`, by default in ~/.cache.

    It may not exist yet. Raises RuntimeError where the user has no home.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).joinpath("alexnet", *parts)
