"""The Triton kernels: in Triton's interpreter on the CPU, compiled for GPUs that are not here, and on one that is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.model import lrn_triton
from alexnet.model.lrn import lrn
from alexnet.model.lrn_reference import reference_lrn

SIGNATURES = {"_normalize": "xy", "_send": "xgt", "_collect": "xgtd"}  # the kernels and their pointers, t in float32


def test_interpreted_kernels_are_the_formula():
    pytest.importorskip("triton", reason="this build of torch has no Triton")
    path = str(Path(alexnet.__file__).parents[1]) + os.pathsep + os.environ.get("PYTHONPATH", "")
    file = Path(__file__).with_name("interpreted_lrn.py")
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-q", "-x", "-p", "no:cacheprovider", file]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " skipped" not in done.stdout


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("quarters", [True, False])
def test_kernels_compile_for_a_gpu_that_is_not_here(capability, dtype, quarters, monkeypatch, tmp_path):
    """From Triton's language to the machine code of an A100 and an H100."""
    triton = pytest.importorskip("triton", reason="this build of torch has no Triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    numbers = {"total": "i32", "maps": "i32", "stride": "i32", "own": "i32"}
    numbers |= {"alpha": "fp32", "beta": "fp32", "k": "fp32"}
    constants = {"BEFORE": 2, "AFTER": 2, "QUARTERS": quarters, "BLOCK": lrn_triton.BLOCK}
    for name, pointers in SIGNATURES.items():
        signature = {f"{letter}_ptr": "*fp32" if letter == "t" else f"*{dtype}" for letter in pointers}
        signature |= numbers | dict.fromkeys(constants, "constexpr")
        source = ASTSource(getattr(lrn_triton, name), signature, constexprs=constants)
        kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert len(kernel.asm["cubin"]) > 0, name


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
