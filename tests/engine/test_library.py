"""The compiled library: bound as its sources declare, chosen by one variable, done without where it cannot be had."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.engine import build, library
from alexnet.environment import instruction_sets
from alexnet.model.lrn import LRN
from alexnet.model.lrn_reference import reference_lrn, reference_map_norm

PACKAGE = str(Path(alexnet.__file__).parents[1])
NORMALIZE = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from alexnet.model.lrn import LRN, MapNorm
    from alexnet.engine.library import library
    x = torch.linspace(-50, 50, 2 * 8 * 5 * 5).reshape(2, 8, 5, 5).requires_grad_()
    for module in (LRN(columns=2), MapNorm(), LRN()):
        module(x).sum().backward()
warned = sum("compiled engine" in str(c.message) for c in caught)
print(warned, library() is not None, x.grad.norm().item())
"""
LETTERS = {"double": "d", "int": "i", "Index": "n"}
needs_library = pytest.mark.skipif(library.library() is None, reason="no compiled library here, or switched off")


def outcome(**changes: str) -> tuple[int, bool, float]:
    """Normalize in a process with another environment: warnings, whether there is a library, norm of the gradients."""
    kept = {k: v for k, v in os.environ.items() if k not in ("ALEXNET_NATIVE", "CXX", "XDG_CACHE_HOME")}
    path = os.pathsep.join([PACKAGE, kept.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", NORMALIZE]
    process = subprocess.run(command, env={**kept, "PYTHONPATH": path, **changes}, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    warned, native, norm = process.stdout.split()
    return int(warned), native == "True", float(norm)


def expected() -> float:
    """The norm that `outcome` should find, in float64."""
    x = torch.linspace(-50, 50, 2 * 8 * 5 * 5).double().reshape(2, 8, 5, 5).requires_grad_()
    for columns in (2, 1):
        reference_lrn(x, 5, 1e-4, 0.75, 2.0, columns).sum().backward()
    reference_map_norm(x, 5, 1e-3 / 25, 0.75, 1.0).sum().backward()
    assert x.grad is not None
    return x.grad.norm().item()


def declared() -> dict[str, str]:
    """The arguments of each function as the C++ sources declare them, in the letters of the table."""
    functions: dict[str, str] = {}
    for source in build.SOURCES:
        for name, arguments in re.findall(
            r"^(?:extern \"C\" )?\w+ alexnet_(\w+)\((.*?)\) \{", source.read_text(), re.M | re.S
        ):
            words = [argument.split() for argument in arguments.split(",") if argument.strip()]
            letters = "".join("p" if "*" in " ".join(word) else LETTERS[word[-2]] for word in words)
            functions[name] = max(letters, functions.get(name, ""), key=len)  # a stub has no arguments
    return functions


def test_the_table_is_what_the_sources_declare() -> None:
    assert declared() == library.FUNCTIONS


def test_the_numbers_of_dtypes_are_those_of_the_sources() -> None:
    header = (build.FOLDER / "numbers.h").read_text()
    assert dict(re.findall(r"(FLOAT32|BFLOAT16|FLOAT16) = (\d)", header)) == {
        d.name: str(d.value) for d in library.Dtype
    }


def test_bfloat16_is_rounded_in_one_place() -> None:
    places = [
        path.name
        for path in build.FOLDER.iterdir()
        if path.suffix in (".h", ".cpp") and "+ 0x7fffu" in path.read_text()
    ]
    assert places == ["numbers.h"]


def test_the_engine_does_not_import_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, alexnet.engine as engine\n"
        "for found in pkgutil.iter_modules(engine.__path__): importlib.import_module('alexnet.engine.' + found.name)\n"
        "from alexnet.engine.library import library; library()\n"
        "sys.exit('torch' in sys.modules)"
    )
    path = os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}).returncode == 0


@pytest.mark.parametrize("changes", [{"PATH": ""}, {"CXX": "false"}], ids=["no compiler", "one that fails"])
def test_without_a_compiler_it_computes_the_same_and_says_so_once(changes: dict[str, str], tmp_path: Path) -> None:
    warned, native, norm = outcome(**changes, XDG_CACHE_HOME=str(tmp_path))
    assert (warned, native) == (1, False)
    assert norm == pytest.approx(expected(), rel=1e-6)


def test_switched_off_it_computes_the_same_and_says_nothing(tmp_path: Path) -> None:
    warned, native, norm = outcome(ALEXNET_NATIVE="0", XDG_CACHE_HOME=str(tmp_path))
    assert (warned, native) == (0, False)
    assert norm == pytest.approx(expected(), rel=1e-6)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("avx2" not in instruction_sets()[0], reason="no processor with AVX2, nor one that could play it")
def test_avx2_is_played_by_torch_and_in_what_is_said_too() -> None:
    code = (
        "import alexnet, torch\n"
        "from alexnet.environment import instruction_sets\n"
        "from alexnet.model.native import multiplies_bfloat16\n"
        "print(torch.backends.cpu.get_cpu_capability(), instruction_sets()[1], multiplies_bfloat16())"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    path = os.pathsep.join([PACKAGE, kept.get("PYTHONPATH", "")])
    environ = {**kept, "PYTHONPATH": path, "ALEXNET_NATIVE": "avx2"}
    process = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert process.stdout.split() == ["AVX2", "avx2", "False"], process.stderr


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_NATIVE", "avx3")
    with pytest.raises(ValueError, match="ALEXNET_NATIVE=avx3 should be"):
        library._open()


@needs_library
def test_it_works_with_torchs_threads_and_with_its_own() -> None:
    lib = library.library()
    assert lib is not None
    x = torch.randn(8, 64, 32, 32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = LRN()(x)
        torch.set_num_threads(3)
        torchs = LRN()(x)
        lib.alexnet_use_team(None)
        own = LRN()(x)
    finally:
        library.share_threads(Path(torch.__file__).parent)
        torch.set_num_threads(before)
    assert torch.equal(one, torchs) and torch.equal(one, own)


@needs_library
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="found by /proc")
def test_torchs_threads_are_found() -> None:
    torch.randn(4, 4) @ torch.randn(4, 4)
    assert library.find_team(str(Path(torch.__file__).resolve().parent)) is not None


@needs_library
def test_memory_that_runs_out_is_an_error() -> None:
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(MemoryError, match="lrn ran out of memory"):
        rule = (1 << 50, 1e-4, 0.75, 2.0)  # a window wider than any memory
        library.call("lrn", x.data_ptr(), None, x.data_ptr(), 0, 1, 4, 4, 0, 1, *rule, 1)
