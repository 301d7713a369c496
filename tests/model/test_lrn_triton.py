"""The Triton kernels: in Triton's interpreter on the CPU, and on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.model.lrn import lrn
from alexnet.model.lrn_reference import reference_lrn

INTERPRETED = """
import torch
from alexnet.model.lrn_reference import reference_lrn
from alexnet.model.lrn_triton import lrn

for layout in (torch.contiguous_format, torch.channels_last):
    for size, beta in ((5, 0.75), (4, 0.6), (1, 0.75)):
        for dtype, step in ((torch.float32, 1e-6), (torch.bfloat16, 2**-7)):  # the interpreter truncates bfloat16
            x, grad = ((torch.randn(2, 12, 5, 7) * 40).to(dtype).contiguous(memory_format=layout) for _ in range(2))
            wide = x.double().requires_grad_()
            truth = reference_lrn(wide, size, 1e-2, beta, 2.0, 3)
            (gradient,) = torch.autograd.grad(truth, wide, grad.double())
            for value, right in ((lrn(x, None, size, 1e-2, beta, 2.0, 3), truth),
                                 (lrn(x, grad, size, 1e-2, beta, 2.0, 3), gradient)):
                assert value.dtype == dtype
                assert (value - right).abs().max() < step * right.abs().max(), (layout, size, beta, dtype)
x = torch.full((1, 8, 2, 2), 3e38)
assert lrn(x, x, 5, 1e-4, 0.75, 2.0, 1).isfinite().all()
"""


def test_interpreted_kernels_are_the_formula():
    pytest.importorskip("triton", reason="this build of torch has no Triton")
    path = str(Path(alexnet.__file__).parents[1]) + os.pathsep + os.environ.get("PYTHONPATH", "")
    command = [sys.executable, "-c", INTERPRETED]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


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
