"""The native library: built once, privately, by racing processes too, and done without where there is no compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.engine import build

SOURCES = str(Path(alexnet.__file__).parents[1])
NORMALIZE = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from alexnet.model.lrn import LRN, MapNorm
    from alexnet.engine import build, sgd_step
    x = torch.linspace(-50, 50, 2 * 8 * 5 * 5).reshape(2, 8, 5, 5).requires_grad_()
    for module in (LRN(columns=2), MapNorm(), LRN()):
        module(x).sum().backward()
    w = torch.zeros(3)
    done = sgd_step(w, w.clone(), w.clone(), 0.1, 0.9, 0.0)
warned = sum("native kernels" in str(c.message) for c in caught)
print(warned, build.library() is not None, done, x.grad.norm().item())
"""

needs_compiler = pytest.mark.skipif(build.library() is None, reason="no native library here (no C++ compiler)")


def environment(**changes):
    keep = {k: v for k, v in os.environ.items() if k not in ("ALEXNET_NATIVE", "CXX", "XDG_CACHE_HOME")}
    return {**keep, "PYTHONPATH": SOURCES + os.pathsep + keep.get("PYTHONPATH", ""), **changes}


def start(**changes):
    command = [sys.executable, "-c", NORMALIZE]
    return subprocess.Popen(command, env=environment(**changes), stdout=subprocess.PIPE, text=True)


def outcome(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    warned, native, done, norm = out.split()
    return int(warned), native == "True", done == "True", float(norm)


def test_without_a_compiler_it_computes_the_same_and_says_so_once(tmp_path):
    warned, native, updated, norm = outcome(start(PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path)))
    assert (warned, native, updated) == (1, False, False)
    assert norm == pytest.approx(outcome(start(ALEXNET_NATIVE="0"))[3], rel=1e-6)


def test_a_compiler_that_fails_is_done_without(tmp_path):
    assert outcome(start(CXX="false", XDG_CACHE_HOME=str(tmp_path)))[:3] == (1, False, False)


def test_switched_off_it_says_nothing(tmp_path):
    assert outcome(start(ALEXNET_NATIVE="0", XDG_CACHE_HOME=str(tmp_path)))[:3] == (0, False, False)
    assert not list(tmp_path.iterdir())


@needs_compiler
def test_racing_processes_share_one_library(tmp_path):
    racers = [start(XDG_CACHE_HOME=str(tmp_path)) for _ in range(3)]
    outcomes = [outcome(racer) for racer in racers]
    assert outcomes == [(0, True, True, outcomes[0][3])] * 3
    assert [p.suffix for p in (tmp_path / "alexnet" / "native").iterdir()] == [".so"]


@needs_compiler
def test_native_and_composed_agree(tmp_path):
    assert outcome(start())[3] == pytest.approx(outcome(start(ALEXNET_NATIVE="0"))[3], rel=1e-6)


@needs_compiler
def test_a_library_that_others_may_write_is_never_loaded(tmp_path):
    cache = tmp_path / "alexnet" / "native"
    assert outcome(start(XDG_CACHE_HOME=str(tmp_path)))[:2] == (0, True)
    (library,) = cache.iterdir()
    library.write_bytes(b"not a library")
    library.chmod(0o777)
    assert outcome(start(XDG_CACHE_HOME=str(tmp_path)))[:2] == (0, True)


@needs_compiler
def test_a_damaged_library_is_built_again(tmp_path):
    cache = tmp_path / "alexnet" / "native"
    assert outcome(start(XDG_CACHE_HOME=str(tmp_path)))[:2] == (0, True)
    (library,) = cache.iterdir()
    library.write_bytes(b"not a library")
    assert outcome(start(XDG_CACHE_HOME=str(tmp_path)))[:2] == (0, True)


def test_a_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / "alexnet" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() is None


def test_a_folder_under_one_that_anybody_may_replace_is_not_used(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "mine"))
    assert build.cache_folder() is None


def test_a_private_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path.resolve() / "alexnet" / "native"


@needs_compiler
def test_the_library_works_with_torch_threads_and_with_its_own():
    from alexnet.model.lrn import LRN

    lib = build.library()
    assert lib is not None
    x = torch.randn(8, 64, 32, 32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = LRN()(x)
        torch.set_num_threads(3)
        torches = LRN()(x)
        lib.alexnet_use_team(None)
        own = LRN()(x)
    finally:
        lib.alexnet_use_team(build._torch_team())
        torch.set_num_threads(before)
    assert torch.equal(one, torches) and torch.equal(one, own)
