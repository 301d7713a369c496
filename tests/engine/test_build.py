"""Compiling: every target in one library, the compiler's errors told, nothing of one target used by another."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from alexnet.engine import build, library


def compiler_missing() -> str:
    """Why nothing can be compiled here, or an empty text."""
    try:
        build.find_compiler()
    except build.BuildError as reason:
        return str(reason)
    return ""


needs_compiler = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing() or "there is a compiler")


def test_every_source_is_compiled() -> None:
    assert {f"{name}.cpp" for name in (*build.KERNELS, *build.SHARED)} == {p.name for p in build.FOLDER.glob("*.cpp")}


def test_the_library_is_that_of_the_sources() -> None:
    opened = library.library()
    if opened is None:
        pytest.skip("no compiled library here, or switched off")
    hint = "the kernels changed since they were compiled; run `make .venv/engine`"
    assert opened.shared.alexnet_sources().decode() == build.fingerprint(), hint


@needs_compiler
def test_a_build_is_whole_and_has_every_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "KERNELS", ("statistics",))
    out = build.build(tmp_path / "built.so")
    assert list(tmp_path.iterdir()) == [out]
    built = ctypes.CDLL(str(out))
    for target in build.TARGETS.get(build.machine(), build.OTHER_MACHINE):
        assert getattr(built, f"alexnet_{target}_colour_products")


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_no_target_leaves_code_that_another_could_use(tmp_path: Path) -> None:
    """A weak symbol is kept once for all targets: an older processor would then run the code of a newer one."""
    target, options = next(iter(build.TARGETS.get(build.machine(), build.OTHER_MACHINE).items()))
    objects = build.compile_objects(build.find_compiler(), {target: options}, tmp_path)
    for path in objects:
        if path.name.split("-")[0] in build.KERNELS:
            lines = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
            shared = [line for line in lines if line.split(maxsplit=2)[-2] in "WVu" and "__gxx_personality" not in line]
            assert not [line for line in shared if " w " not in line], path.name


@needs_compiler
def test_the_error_of_the_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.cpp").write_text("int answer( {")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "KERNELS", ("broken",))
    with pytest.raises(build.BuildError, match="failed: .*broken.cpp.*error") as error:
        build.build(tmp_path / "library.so")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.cpp"]


@pytest.mark.parametrize("command", ["false", "no-such-compiler -O1"])
def test_a_compiler_that_cannot_be_used_is_named(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", command)
    with pytest.raises(build.BuildError, match=command.split()[0]):
        build.build(tmp_path / "library.so")
    assert not list(tmp_path.iterdir())
