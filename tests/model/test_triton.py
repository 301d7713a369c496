"""The Triton kernels: in Triton's interpreter on the CPU, compiled for GPUs that are not here, and on one that is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.model import dropout_triton, lrn_triton
from alexnet.model.lrn import lrn
from alexnet.model.lrn_reference import reference_lrn

NUMBERS = {"total": "i32", "maps": "i32", "stride": "i32", "own": "i32", "alpha": "fp32", "beta": "fp32", "k": "fp32"}
POINTERS = {"_normalize": "xy", "_send": "xgt", "_collect": "xgtd"}  # of the kernels, t in float32


def test_interpreted_kernels_compute_what_torchs_operations_do():
    pytest.importorskip("triton", reason="this build of torch has no Triton")
    path = str(Path(alexnet.__file__).parents[1]) + os.pathsep + os.environ.get("PYTHONPATH", "")
    file = Path(__file__).with_name("interpreted_triton.py")
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-q", "-x", "-p", "no:cacheprovider", file]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " skipped" not in done.stdout


def compile_for(capability, kernel, signature, constants):
    """From Triton's language to the machine code of an A100 (80) or an H100 (90)."""
    triton = pytest.importorskip("triton", reason="this build of torch has no Triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing that was compiled before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("quarters", [True, False])
@pytest.mark.parametrize("ones", [(), ("stride",), ("stride", "own", "maps")])
def test_normalization_compiles_for_a_gpu_that_is_not_here(capability, dtype, quarters, ones):
    pytest.importorskip("triton", reason="this build of torch has no Triton")
    constants = {"BEFORE": 2, "AFTER": 2, "QUARTERS": quarters, "BLOCK": lrn_triton.BLOCK}
    constants |= dict.fromkeys(ones, 1)  # a number that is 1 is compiled in
    for name, letters in POINTERS.items():
        pointers = {f"{letter}_ptr": "*fp32" if letter == "t" else f"*{dtype}" for letter in letters}
        assert compile_for(capability, getattr(lrn_triton, name), pointers | NUMBERS, constants), name


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("number", ["i32", "i64", "u64"])
@pytest.mark.parametrize("ones", [(), ("key", "high"), ("blocks", "units", "threshold")])
def test_dropout_compiles_for_a_gpu_that_is_not_here(capability, number, ones):
    pytest.importorskip("triton", reason="this build of torch has no Triton")
    signature = {"keep_ptr": "*i1", "positions_ptr": "*i64", "epoch_ptr": "*i64"}
    signature |= dict.fromkeys(("total", "blocks", "units", "first_unit", "key", "high", "threshold"), "i32")
    signature |= {"key": number, "high": "i64", "threshold": "i64"}
    assert compile_for(
        capability, dropout_triton._mask, signature, dict.fromkeys(ones, 1) | {"BLOCK": dropout_triton.BLOCK}
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rule", [(5, 1e-4, 0.75, 2.0, 2), (4, 1e-2, 0.6, 1.0, 1)])
def test_kernels_on_the_gpu_are_the_formula(rule, layout):
    x, grad = ((torch.randn(4, 96, 13, 13, device="cuda") * 40).contiguous(memory_format=layout) for _ in range(2))
    x.requires_grad_()
    wide = x.detach().double().requires_grad_()
    y, truth = lrn(x, *rule), reference_lrn(wide, *rule)
    torch.testing.assert_close(y.double(), truth, rtol=2e-6, atol=1e-6)
    (d,) = torch.autograd.grad(y, x, grad)
    (right,) = torch.autograd.grad(truth, wide, grad.double())
    torch.testing.assert_close(d.double(), right, rtol=1e-5, atol=1e-4)
