"""Compiling: once, privately, by racing processes too, and never a file that others may have written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import alexnet
from alexnet.engine import build

PACKAGE = str(Path(alexnet.__file__).parents[1])


def compiler_missing() -> str:
    """Why nothing can be compiled here, or an empty text."""
    try:
        build.find_compiler()
    except build.NoLibrary as reason:
        return str(reason)
    return ""


needs_compiler = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing() or "there is a compiler")
LOAD = """
import sys
from pathlib import Path
from alexnet.engine import build
print(build.load(sources=[Path(sys.argv[1])]).answer())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A library of one function, which takes no time to compile."""
    path = tmp_path / "answer.cpp"
    path.write_text('#include "numbers.h"\nextern "C" int answer() { return 42; }\n')
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alexnet" / "native"


def answer(source: Path, cache: Path) -> tuple[int, Path]:
    """What the built library answers, and its file."""
    lib = build.load(sources=[source])
    (file,) = cache.iterdir()
    return lib.answer(), file


def load_elsewhere(source: Path) -> subprocess.Popen[str]:
    """Another process that loads the library."""
    path = os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", LOAD, str(source)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


@needs_compiler
def test_racing_processes_share_one_library(source: Path, cache: Path) -> None:
    racers = [load_elsewhere(source) for _ in range(3)]
    assert [racer.communicate(timeout=120)[0].strip() for racer in racers] == ["42"] * 3
    assert [file.suffix for file in cache.iterdir()] == [".so"]


@needs_compiler
def test_a_library_is_built_once(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(source, cache)[0] == 42
    monkeypatch.setattr(build, "compile_library", None)  # not to be called again
    assert answer(source, cache)[0] == 42


@needs_compiler
def test_another_source_or_other_options_make_another_library(source: Path, cache: Path) -> None:
    build.load(sources=[source])
    build.load(((),), sources=[source])
    source.write_text(source.read_text().replace("42", "43"))
    assert build.load(sources=[source]).answer() == 43
    assert len(list(cache.iterdir())) == 3


@needs_compiler
@pytest.mark.parametrize("mode", [0o700, 0o777], ids=["damaged", "others may write it"])
def test_a_library_not_to_be_trusted_is_built_again(source: Path, cache: Path, mode: int) -> None:
    load_elsewhere(source).communicate(timeout=120)
    (file,) = cache.iterdir()
    file.write_bytes(b"not a library")
    file.chmod(mode)
    assert answer(source, cache) == (42, file)
    assert file.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_without_a_private_cache_the_library_is_built_for_the_process_alone(source: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert build.load(sources=[source]).answer() == 42
    assert not list(cache.iterdir())


@needs_compiler
def test_the_error_of_the_compiler_is_told(source: Path, cache: Path) -> None:
    source.write_text("int answer( {")
    with pytest.raises(build.NoLibrary, match="failed: .*answer.cpp.*error") as error:
        build.load(sources=[source])
    assert "\n" not in str(error.value)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("command", ["false", "no-such-compiler -O1"])
def test_a_compiler_that_cannot_be_used_is_named(
    source: Path, cache: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", command)
    with pytest.raises(build.NoLibrary, match=command.split()[0]):
        build.load(sources=[source])


def test_a_folder_that_others_may_write_is_not_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert build.private_cache() is None


def test_a_folder_under_one_that_anybody_may_replace_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "mine"))
    assert build.private_cache() is None


def test_a_private_folder_is_used(cache: Path) -> None:
    assert build.private_cache() == cache.resolve()


def test_the_sources_are_all_there_are() -> None:
    assert set(build.SOURCES) == set(build.FOLDER.glob("*.cpp"))
