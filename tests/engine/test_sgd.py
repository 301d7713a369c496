"""The fused update against the paper's two lines in float64."""

import pytest
import torch

from alexnet.engine import build, sgd_step

pytestmark = pytest.mark.skipif(build.library() is None, reason="no native library here (no C++ compiler)")
LR, MOMENTUM, DECAY = 0.01, 0.9, 0.0005


def tensors(*shape, gradient=torch.float32):
    made = torch.Generator().manual_seed(0)
    w, v, g = (torch.randn(shape, generator=made) for _ in range(3))
    return w, v, g.to(gradient)


@pytest.mark.parametrize("gradient", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (37,), (96, 3, 11, 11), (300, 1001)])
def test_a_step_is_the_rule_of_the_paper(shape, gradient):
    w, v, g = tensors(*shape, gradient=gradient)
    new_v = MOMENTUM * v.double() - DECAY * LR * w.double() - LR * g.double()
    new_w = w.double() + new_v
    assert sgd_step(w, v, g, LR, MOMENTUM, DECAY)
    torch.testing.assert_close(v.double(), new_v, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(w.double(), new_w, rtol=1e-6, atol=1e-6)


def test_the_copy_is_the_new_weights_rounded_to_bfloat16():
    w, v, g = tensors(300, 1001)
    w[0, :3] = torch.tensor([float("nan"), float("inf"), 3e38])
    copy = torch.empty_like(w, dtype=torch.bfloat16)
    assert sgd_step(w, v, g, LR, MOMENTUM, DECAY, copy)
    torch.testing.assert_close(copy, w.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_channels_last_weights_are_updated_alike():
    w, v, g = tensors(16, 8, 3, 3)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (w, v, g)]
    assert sgd_step(w, v, g, LR, MOMENTUM, DECAY) and sgd_step(*last, LR, MOMENTUM, DECAY)
    assert torch.equal(w, last[0]) and torch.equal(v, last[1])


def test_tensors_it_cannot_serve_are_left_alone():
    w, v, g = tensors(16, 8, 3, 3)
    kept = w.clone()
    assert not sgd_step(w, v, g.contiguous(memory_format=torch.channels_last), LR, MOMENTUM, DECAY)
    assert not sgd_step(w, v, g.double(), LR, MOMENTUM, DECAY)
    assert not sgd_step(w, v, g[:8], LR, MOMENTUM, DECAY)
    assert not sgd_step(w, v, g, LR, MOMENTUM, DECAY, torch.empty_like(w))
    assert not sgd_step(w[:, ::2], v[:, ::2], g[:, ::2], LR, MOMENTUM, DECAY)
    assert not sgd_step(w.to("meta"), v.to("meta"), g.to("meta"), LR, MOMENTUM, DECAY)
    assert torch.equal(w, kept)


def test_autograd_notices_that_weights_changed():
    w, v, g = tensors(5)
    w.requires_grad_()
    loss = (w * w).sum()
    sgd_step(w, v, g, LR, MOMENTUM, DECAY)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_two_runs_agree_to_the_bit():
    results = []
    for _ in range(2):
        w, v, g = tensors(700, 301)
        for _ in range(3):
            sgd_step(w, v, g, LR, MOMENTUM, DECAY)
        results.append(w)
    assert torch.equal(*results)
