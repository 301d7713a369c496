"""The Triton kernels as Triton's interpreter runs them on CPU tensors: `test_lrn_triton` runs this file on its own.

Triton decides when it is imported whether it interprets, so this needs a process with TRITON_INTERPRET=1.
"""

import os
import warnings

import pytest
import torch

from alexnet.model import lrn_choice, lrn_triton
from alexnet.model.lrn import lrn
from alexnet.model.lrn_operators import _on_cuda
from alexnet.model.lrn_reference import reference_lrn

assert os.environ.get("TRITON_INTERPRET") == "1"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
STEPS = {torch.float32: 1e-6, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7}  # the interpreter truncates bfloat16
CASES = [  # shape, rule, columns
    ((2, 12, 5, 7), (5, 1e-4, 0.75, 2.0), 3),
    ((3, 9, 11, 13), (5, 1e-2, 0.75, 1.0), 3),
    ((2, 7, 5, 3), (4, 1e-2, 0.6, 2.0), 1),
    ((1, 10, 1, 1), (9, 1e-2, 0.5, 0.5), 2),
    ((2, 3, 4, 4), (5, 1e-2, 0.75, 2.0), 3),
    ((2, 5, 3, 2), (1, 1e-2, 0.75, 2.0), 1),
]


def formula(x, grad, *rule):
    """The result and the gradient in float64."""
    wide = x.double().requires_grad_()
    truth = reference_lrn(wide, *rule)
    return truth.detach(), torch.autograd.grad(truth, wide, grad.double())[0]


def interpreted(x, grad, *rule):
    return lrn_triton.lrn(x, None, *rule), lrn_triton.lrn(x, grad, *rule)


@pytest.mark.parametrize("shape, rule, columns", CASES)
@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_and_gradient_are_the_formulas(layout, dtype, rule, shape, columns):
    generator = torch.Generator().manual_seed(len(shape) + columns)
    x, grad = ((torch.randn(shape, generator=generator) * 40).to(dtype) for _ in range(2))
    x, grad = (t.contiguous(memory_format=LAYOUTS[layout]) for t in (x, grad))
    for value, truth in zip(interpreted(x, grad, *rule, columns), formula(x, grad, *rule, columns), strict=True):
        assert value.dtype == dtype and value.stride() == x.stride()
        assert (value.double() - truth).abs().max() <= STEPS[dtype] * 1.01 * truth.abs().max()


@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "max", "tiny", "0"])
def test_numbers_that_are_not_finite_are_treated_as_by_the_formula_and_the_engine(bad, beta, dtype):
    facts = torch.finfo(dtype)
    value = {"max": facts.max, "tiny": facts.tiny}.get(bad) or float(bad if bad not in ("max", "tiny") else 0)
    x, grad = (torch.randn(1, 8, 1, 2, generator=torch.Generator().manual_seed(s)).to(dtype) for s in (0, 1))
    x[0, 3, 0, 1] = value
    rule = (5, 1e-2, beta, 2.0, 1)
    wanting = x.clone().requires_grad_()
    compiled = lrn(wanting, *rule)
    (gradient,) = torch.autograd.grad(compiled, wanting, grad)
    plain = reference_lrn(x, *rule)
    for result, ours, formulas in zip(
        interpreted(x, grad, *rule), (compiled.detach(), gradient), (plain, None), strict=True
    ):
        if bad != "nan":  # which the engine keeps to its own map, and the formula spreads to its neighbours
            assert torch.equal(result.isnan(), ours.isnan())
            torch.testing.assert_close(result, ours, equal_nan=True, rtol=2 * STEPS[dtype], atol=2 * STEPS[dtype])
        if formulas is not None:
            assert torch.equal(result.isnan(), formulas.isnan())
        assert result[..., 0].isfinite().all()  # the other place


def test_the_kernels_are_chosen_where_they_agree():
    x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    for dtype in STEPS:
        for layout in LAYOUTS.values():
            y = x.to(dtype).contiguous(memory_format=layout)
            for grad in (None, torch.ones_like(y)):
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    value = _on_cuda("lrn", y, grad, (5, 1e-2, 0.75, 2.0, 2))
                assert torch.equal(value, lrn_triton.lrn(y, grad, 5, 1e-2, 0.75, 2.0, 2))
    assert all(lrn_choice._chosen.values()) and len(lrn_choice._chosen) == 6
