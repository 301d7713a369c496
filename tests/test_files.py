"""Files: replaced whole or not at all, and read only where that is harmless."""

from __future__ import annotations

import errno
import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from alexnet.files import atomic_write, lock, map_npy, open_regular, read_npz, read_regular, remove_leftovers, write_npz


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    both_open = threading.Barrier(2)

    def write(letter: bytes) -> None:
        with atomic_write(path) as file:
            both_open.wait()
            for _ in range(200):
                file.write(letter * 1000)
                file.flush()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (b"a" * 200_000, b"b" * 200_000)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_file_that_is_being_written_has_a_name_that_tells(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "config.json") as file:
        (name,) = os.listdir(tmp_path)
        assert name.startswith("config.json.") and name.endswith(".part")
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["config.json"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(OSError), atomic_write(path, "w") as file:
        file.write("new")
        raise OSError(errno.ENOSPC, "full")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.npy.0a1b2c3d.part", "b.part", "part", "a.npy"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "part"]


def test_only_regular_files_within_the_limit_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="5 bytes are more than the limit of 4"):
        open_regular(tmp_path / "file", 4)
    for name in ("pipe", "folder", "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")


def test_a_lock_is_held_by_one_and_neither_waits_for_a_pipe_nor_follows_a_link(tmp_path: Path) -> None:
    busy, path = RuntimeError("busy"), tmp_path / "lock"
    with lock(path, busy), pytest.raises(RuntimeError, match="busy"), lock(path, busy):
        pass
    with lock(tmp_path / "lock", RuntimeError("busy")):
        pass
    os.mkfifo(tmp_path / "pipe")
    with lock(tmp_path / "pipe", RuntimeError("busy")):
        pass
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), lock(tmp_path / "link", RuntimeError("busy")):
        pass
    assert (tmp_path / "precious").read_text() == "years of work"


def test_a_lock_that_its_holder_removed_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def removed_meanwhile(handle: int, operation: int) -> None:
        (tmp_path / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with pytest.raises(RuntimeError, match="busy"), lock(tmp_path / "lock", RuntimeError("busy")):
        pass


ARRAYS = {
    "a": np.arange(6.0).reshape(2, 3),
    "b": np.int64(7) * np.ones((), np.int64),
    "c": np.zeros((0, 3), np.float32),
}


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {**ARRAYS, "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    write_npz(tmp_path / "x.npz", arrays)
    back = read_npz(tmp_path / "x.npz", 1 << 20)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape and (back[name] == array).all()
        assert back[name].flags.writeable
    np.save(tmp_path / "x.npy", ARRAYS["a"])
    assert (map_npy(tmp_path / "x.npy", np.dtype(np.float64), (2, 3)) == ARRAYS["a"]).all()


def test_compressed_arrays_come_back_where_they_are_asked_for(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz", {"a": np.zeros(1000)}, compressed=True)
    assert (tmp_path / "x.npz").stat().st_size < 1000
    assert read_npz(tmp_path / "x.npz", 1 << 20, compressed=True)["a"].tolist() == [0] * 1000
    with pytest.raises(ValueError, match="its members are larger than it is"):
        read_npz(tmp_path / "x.npz", 1 << 20)
    with pytest.raises(ValueError, match="its members are larger than the limit"):
        read_npz(tmp_path / "x.npz", 4000, compressed=True)


def of_many_members() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for k in range(2000):
            archive.writestr(f"{k}.npy", b"")
    return buffer.getvalue()


def saved(compressed: bool = False, **arrays: object) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\5\6" + bytes(18),
        saved(True, a=np.zeros(1_000_000)),
        saved(a=np.array([print], dtype=object)),
        saved(a=np.array(["text"])),
        saved(a=np.zeros(3))[:-1],
        saved(a=np.zeros(3)) + b"more",
        saved(a=np.zeros(300)).replace(bytes(64), b"1" * 64, 1),
        saved(a=np.zeros(3)).replace(b"(3,)", b"(9,)"),
        saved(a=np.zeros(3)).replace(b"(3,)", b"(2,)"),
        of_many_members(),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    empty = data == b"PK\5\6" + bytes(18)
    if empty:
        assert read_npz(tmp_path / "x.npz", 1 << 20) == {}
        return
    with pytest.raises(ValueError, match=r"\bit\b|array"):
        read_npz(tmp_path / "x.npz", 1 << 20)


def npy(description: bytes, data: bytes = bytes(24)) -> bytes:
    return b"\x93NUMPY\1\0" + len(description).to_bytes(2, "little") + description + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (4,)}"),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}"),
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,)}", bytes(23)),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,)}", bytes(25)),
        npy(b"(" * 9000),
        npy(b"__import__('os').abort()"),
    ],
)
def test_another_array_is_not_mapped(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(ValueError, match="^it "):
        map_npy(tmp_path / "x.npy", np.dtype(np.int64), (3,))
