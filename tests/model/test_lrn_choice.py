"""Triton's kernels compute where they agree with the formula, and nowhere else: kernels of other kinds stand in."""

import warnings

import pytest
import torch

from alexnet.model import lrn_choice, lrn_triton
from alexnet.model.lrn_operators import _on_cuda
from alexnet.model.lrn_reference import reference_lrn, reference_lrn_backward

RULE = (5, 1e-4, 0.75, 2.0, 2)


def right(x, grad, *rule):
    return reference_lrn(x, *rule) if grad is None else reference_lrn_backward(grad, x, *rule)


def wrong(x, grad, *rule):
    return right(x, grad, *rule) * 1.01


def wrong_backward(x, grad, *rule):
    return right(x, grad, *rule) * (1 if grad is None else 1.03)


def across_columns(x, grad, size, alpha, beta, k, columns):
    return right(x, grad, size, alpha, beta, k, 1)


def not_a_number(x, grad, *rule):
    return right(x, grad, *rule) * float("nan")


def uncompiled(x, grad, *rule):
    raise RuntimeError("ptxas is missing\nand more lines")


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(lrn_choice, "_chosen", {})


def compute(x, grad=None, name="lrn"):
    return _on_cuda(name, x, grad, RULE if name == "lrn" else RULE[:4])


@pytest.mark.parametrize(
    "kernels, said",
    [
        (wrong, "its results in float32 differ from the formula's by 1.0e-02 of the largest, where 1.0e-05 is allowed"),
        (wrong_backward, "its gradients in float32 differ from the formula's by 3.0e-02"),
        (across_columns, "its results in float32 differ"),
        (not_a_number, "differ from the formula's by nan"),
        (uncompiled, r"its kernels do not run here \(RuntimeError: ptxas is missing\)$"),
    ],
)
def test_kernels_that_differ_are_left_with_one_warning_that_says_by_how_much(kernels, said, monkeypatch):
    monkeypatch.setattr(lrn_triton, "lrn", kernels)
    x, grad = (torch.randn(2, 8, 5, 5) * 40 for _ in range(2))
    with pytest.warns(RuntimeWarning, match=said) as warned:
        assert torch.equal(compute(x), reference_lrn(x, *RULE))
        assert torch.equal(compute(x, grad), reference_lrn_backward(grad, x, *RULE))
        compute(x.contiguous(memory_format=torch.channels_last))
        compute(x.bfloat16())
    assert len(warned) == 1


def test_kernels_that_agree_compute_after_one_comparison(monkeypatch):
    calls = []

    def counted(x, grad, *rule):
        calls.append(x.shape)
        return right(x, grad, *rule)

    monkeypatch.setattr(lrn_triton, "lrn", counted)
    x = torch.randn(2, 8, 5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compute(x), reference_lrn(x, *RULE))
        compute(x, x)
    assert calls == [(3, 14, 9, 11)] * 2 + [(2, 8, 5, 5)] * 2


def test_each_dtype_layout_and_rule_is_compared(monkeypatch):
    def wrong_in_bfloat16(x, grad, *rule):
        return right(x, grad, *rule) * (2 if x.dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(lrn_triton, "lrn", wrong_in_bfloat16)
    x = torch.randn(2, 8, 5, 5)
    compute(x)
    with pytest.warns(RuntimeWarning, match="in bfloat16"):
        assert torch.equal(compute(x.bfloat16()), reference_lrn(x.bfloat16(), *RULE))
    assert list(lrn_choice._chosen.values()) == [True, False]


def test_without_triton_the_formula_serves_and_it_is_said(monkeypatch):
    monkeypatch.setattr(lrn_triton, "triton", None)
    x = torch.randn(2, 8, 5, 5)
    with pytest.warns(RuntimeWarning, match="ModuleNotFoundError: Triton is not installed"):
        assert torch.equal(compute(x), reference_lrn(x, *RULE))


def test_what_triton_has_no_kernel_for_is_composed_without_a_word(monkeypatch):
    monkeypatch.setattr(lrn_triton, "lrn", uncompiled)
    x = torch.randn(2, 8, 5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compute(x.double()), reference_lrn(x.double(), *RULE))
        compute(x, name="map_norm")
