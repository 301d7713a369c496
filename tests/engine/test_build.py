"""Compiling: every target in one library, the compiler's errors told, nothing of one target used by another."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
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


def words_of(*command: str | Path) -> list[str]:
    """The lines that a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_source_is_compiled() -> None:
    assert {f"{name}.cpp" for name in (*build.KERNELS, *build.SHARED)} == {p.name for p in build.FOLDER.glob("*.cpp")}


def test_the_library_is_that_of_the_sources() -> None:
    opened = library.library()
    if opened is None:
        pytest.skip("no compiled library here, or switched off")
    hint = "the kernels changed since they were compiled; run `make .venv/engine`"
    assert opened.shared.alexnet_sources().decode() == build.fingerprint(), hint


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("nm") is None, reason="no nm for Linux")
@pytest.mark.skipif(not build.LIBRARY.exists(), reason="no compiled library here")
def test_the_library_offers_the_kernels_and_nothing_else() -> None:
    """Names of the C++ library in it could be taken for those of another, and another's for its."""
    targets = build.TARGETS.get(build.machine(), build.OTHER_MACHINE)
    kernels = {f"alexnet_{target}_{name}" for target in targets for name in library.FUNCTIONS}
    lines = [line.split() for line in words_of("nm", "-D", "--defined-only", build.LIBRARY)]
    offered = {name for _, kind, name in lines if kind not in "WVu"}
    assert offered == kernels | {"alexnet_targets", "alexnet_sources", "alexnet_use_team"}


@needs_compiler
def test_a_build_is_whole_and_has_every_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "KERNELS", ("statistics",))
    out = build.build(tmp_path / "built.so")
    assert list(tmp_path.iterdir()) == [out]
    built = ctypes.CDLL(str(out))
    for target in build.TARGETS.get(build.machine(), build.OTHER_MACHINE):
        assert getattr(built, f"alexnet_{target}_colour_products")


@pytest.fixture(scope="module")
def objects(request: pytest.FixtureRequest) -> list[Path]:
    """The objects of all targets, as they are shipped; kept until a source changes, for it takes half a minute."""
    compiler = build.find_compiler()
    kept = request.config.cache.mkdir("objects")
    folder = kept / f"{Path(compiler[0]).name}-{build.fingerprint()}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=kept) as name:
            build.compile_objects(compiler, build.TARGETS.get(build.machine(), build.OTHER_MACHINE), Path(name))
            for old in kept.glob(f"{Path(compiler[0]).name}-*"):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(name, folder, dirs_exist_ok=True)
    return sorted(folder.iterdir())


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_no_target_leaves_code_that_another_could_use(objects: list[Path]) -> None:
    """A weak symbol is kept once for all targets: an older processor would then run the code of a newer one."""
    for path in objects:
        if path.name.split("-")[0] in build.KERNELS:
            lines = words_of("nm", "-C", path)
            shared = [line for line in lines if line.split(maxsplit=2)[-2] in "WVu" and "__gxx_personality" not in line]
            assert not [line for line in shared if " w " not in line], path.name


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.skipif(build.machine() != "x86_64", reason="not an x86-64 processor")
def test_no_target_has_instructions_newer_than_its_own(objects: list[Path]) -> None:
    """By names in the code: bfloat16 and dot products of bytes are the newest's, masks AVX-512's, 256 bits AVX's."""
    newest = r"v\w+bf16|vpdp"
    newer = {"avx512": newest, "avx2": newest + r"|%zmm|%k\d|mm(1[6-9]|2\d|3[01])", "plain": r"^v|%[yz]mm|%k\d"}
    assert {path.stem.split("-")[1] for path in objects} == {"avx512bf16", *newer}
    for path in objects:
        refused = re.compile(newer.get(path.stem.split("-")[1], "(?!)"))
        lines = words_of("objdump", "-d", "--no-show-raw-insn", path)
        code = [line.partition(":\t")[2].partition("<")[0] for line in lines]
        assert any(line.startswith("ret") for line in code)
        assert not [line for line in code if refused.search(line)][:1], path.name


def test_memory_is_taken_in_one_place() -> None:
    """Windows has another function for it, and its own to give it back."""
    sources = [path for path in build.FOLDER.iterdir() if path.suffix in (".h", ".cpp")]
    places = [path.name for path in sources if re.search(r"aligned_alloc|malloc\(|free\(", path.read_text())]
    assert places == ["parallel.h"]


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
