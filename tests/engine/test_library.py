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
warned = sum("compiled kernels" in str(c.message) for c in caught)
print(warned, library() is not None, x.grad.norm().item())
"""
LETTERS = {"double": "d", "int": "i", "Index": "n"}
needs_library = pytest.mark.skipif(library.library() is None, reason="no compiled library here, or switched off")


def outcome(**changes: str) -> tuple[int, bool, float]:
    """Normalize in a process with another environment: warnings, whether there is a library, norm of the gradients."""
    kept = {k: v for k, v in os.environ.items() if k != "ALEXNET_ENGINE"}
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
    for source in build.FOLDER.glob("*.cpp"):
        for name, arguments in re.findall(r"^KERNEL\((\w+)\)\((.*?)\) \{", source.read_text(), re.M | re.S):
            words = [argument.split() for argument in arguments.split(",") if argument.strip()]
            letters = "".join("p" if "*" in " ".join(word) else LETTERS[word[-2]] for word in words)
            functions[name] = letters
    return functions


def test_the_table_is_what_the_sources_declare() -> None:
    assert declared() == library.FUNCTIONS


def test_the_numbers_of_dtypes_are_those_of_the_sources() -> None:
    header = (build.FOLDER / "numbers.h").read_text()
    assert dict(re.findall(r"(FLOAT32|BFLOAT16|FLOAT16|INT8) = (\d)", header)) == {
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
        "import sys, importlib, pathlib, alexnet.engine as engine\n"
        "names = [path.stem for path in pathlib.Path(engine.__path__[0]).glob('*.py')]\n"
        "for name in names: importlib.import_module('alexnet.engine.' + name)\n"
        "from alexnet.engine.library import library; library()\n"
        "sys.exit('torch' in sys.modules)"
    )
    path = os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}).returncode == 0


@pytest.mark.parametrize("content", [None, b"not a library"], ids=["not built", "damaged"])
def test_without_the_library_there_is_none_and_that_is_said(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALEXNET_ENGINE", raising=False)
    path = tmp_path / "libalexnet.so"
    if content is not None:
        path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="cannot be loaded" if content else "were not built") as caught:
        assert library._open(path) is None
    assert "python -m alexnet.engine.build" in str(caught[0].message) and "\n" not in str(caught[0].message)


def test_switched_off_it_computes_the_same_and_says_nothing() -> None:
    warned, native, norm = outcome(ALEXNET_ENGINE="none")
    assert (warned, native) == (0, False)
    assert norm == pytest.approx(expected(), rel=1e-6)


@needs_library
def test_every_target_that_this_processor_can_run_computes_the_same() -> None:
    found = library.library()
    assert found is not None
    for target in found.targets:
        warned, native, norm = outcome(ALEXNET_ENGINE=target)
        assert (warned, native) == (0, True)
        assert norm == pytest.approx(expected(), rel=1e-6), target


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
    environ = {**kept, "PYTHONPATH": path, "ALEXNET_ENGINE": "avx2"}
    process = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert process.stdout.split() == ["AVX2", "avx2", "False"], process.stderr


@needs_library
def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_ENGINE", "plane")
    with pytest.raises(ValueError, match="ALEXNET_ENGINE='plane' should be one of .*none on this .*plain"):
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
        lib.shared.alexnet_use_team(None)
        own = LRN()(x)
    finally:
        library.share_threads(Path(torch.__file__).parent)
        torch.set_num_threads(before)
    assert torch.equal(one, torchs) and torch.equal(one, own)


@needs_library
def test_several_callers_and_a_forked_process_do_not_wait_for_each_other() -> None:
    """In a process of its own, without torch's threads: by the library's own."""
    code = (
        "import os, threading, numpy as np\n"
        "from alexnet.engine.normalization import lrn\n"
        "x = np.random.default_rng(0).normal(size=(8, 32, 32, 64)).astype(np.float32)\n"
        "def once():\n"
        "    out = np.empty_like(x)\n"
        "    lrn(x.ctypes.data, None, out.ctypes.data, 0, (8, 64, 32, 32), True, (5, 1e-4, .75, 2.), 1, 3)\n"
        "    return out\n"
        "first, outs = once(), []\n"
        "callers = [threading.Thread(target=lambda: outs.extend(once() for _ in range(20))) for _ in range(4)]\n"
        "[caller.start() for caller in callers]; [caller.join(60) for caller in callers]\n"
        "same = len(outs) == 80 and all(np.array_equal(first, out) for out in outs)\n"
        "child = os.fork()\n"
        "if not child: os._exit(not np.array_equal(first, once()))\n"
        "print(same, os.waitpid(child, 0)[1])"
    )
    path = os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])
    command, environ = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}
    process = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert process.stdout.split() == ["True", "0"], process.stderr


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
