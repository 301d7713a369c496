"""The two normalizations against loops written from the paper, in every layout, type and mode of use."""

import itertools

import pytest
import torch
from torch import nn

from alexnet.model.lrn import LRN, MapNorm, lrn, map_norm
from alexnet.model.lrn_reference import reference_lrn, reference_map_norm

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def loops_lrn(x, size, alpha, beta, k, columns):
    """Section 3.3 in float64, one number at a time."""
    x = x.double()
    out = torch.empty_like(x)
    images, maps, rows, places = x.shape
    own = maps // columns
    for n, i, r, c in itertools.product(range(images), range(maps), range(rows), range(places)):
        column = i // own
        first = max(column * own, i - size // 2)
        last = min((column + 1) * own - 1, i - size // 2 + size - 1)
        total = sum(float(x[n, j, r, c]) ** 2 for j in range(first, last + 1))
        out[n, i, r, c] = float(x[n, i, r, c]) / (k + alpha * total) ** beta
    return out


def loops_map_norm(x, size, alpha, beta, k):
    x = x.double()
    out = torch.empty_like(x)
    images, maps, rows, places = x.shape
    for n, i, r, c in itertools.product(range(images), range(maps), range(rows), range(places)):
        total = 0.0
        for rr in range(max(0, r - size // 2), min(rows, r - size // 2 + size)):
            for cc in range(max(0, c - size // 2), min(places, c - size // 2 + size)):
                total += float(x[n, i, rr, cc]) ** 2
        out[n, i, r, c] = float(x[n, i, r, c]) / (k + alpha * total) ** beta
    return out


def activations(*shape, layout="contiguous", dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 40
    return x.to(dtype).contiguous(memory_format=LAYOUTS[layout])


def relative(value, truth):
    return ((value.double() - truth).abs() / truth.abs().clamp_min(1e-300)).max().item()


def both_gradients(function, reference, x, grad):
    """The gradient of `function` in the type of `x`, and of `reference` in float64."""
    x = x.detach().requires_grad_()
    wide = x.detach().double().requires_grad_()
    (value,) = torch.autograd.grad(function(x), x, grad)
    (truth,) = torch.autograd.grad(reference(wide), wide, grad.double())
    return value, truth


RULES = [(5, 1e-4, 0.75, 2.0, 2), (5, 1e-2, 0.75, 1.0, 1), (3, 1e-2, 0.75, 2.0, 4), (4, 1e-2, 0.75, 2.0, 1)]
RULES += [(1, 1e-2, 0.75, 2.0, 1), (9, 1e-2, 0.75, 2.0, 2), (5, 1e-2, 0.5, 0.5, 1), (7, 1e-3, 1.3, 2.0, 2)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_normalization_across_maps_is_the_formula(rule, layout):
    x = activations(2, 12, 4, 5, layout=layout)
    assert relative(lrn(x, *rule), loops_lrn(x, *rule)) < 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_reference_across_maps_is_the_formula(rule):
    x = activations(2, 12, 3, 4)
    assert relative(reference_lrn(x.double(), *rule), loops_lrn(x, *rule)) < 1e-12


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", [(5, 1e-3, 0.75, 1.0), (3, 5e-3, 0.75, 1.0), (2, 1e-2, 0.75, 2.0), (7, 1e-2, 1.1, 1)])
def test_normalization_within_maps_is_the_formula(rule, layout):
    x = activations(2, 5, 6, 4, layout=layout)
    truth = loops_map_norm(x, *rule)
    assert relative(map_norm(x, *rule), truth) < 1e-6
    assert relative(reference_map_norm(x.double(), *rule), truth) < 1e-12


def test_columns_never_see_each_other():
    x = activations(1, 8, 3, 3)
    other = x.clone()
    other[:, 4:] = 1000
    before, after = (lrn(t, 5, 1.0, 0.75, 2.0, columns=2) for t in (x, other))
    assert torch.equal(before[:, :4], after[:, :4])


def test_divided_alpha_is_that_of_torch():
    x = activations(2, 12, 3, 3)
    theirs = nn.functional.local_response_norm(x.double(), 5, 1e-2, 0.75, 2.0)
    assert relative(lrn(x, 5, 1e-2, 0.75, 2.0, divide=True), theirs) < 1e-6


def test_divided_alpha_within_a_map_is_by_the_window_area():
    x = activations(2, 3, 6, 6)
    assert torch.equal(map_norm(x, 5, 0.5, 0.75, 1.0, divide=True), map_norm(x, 5, 0.02, 0.75, 1.0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_gradient_across_maps_is_that_of_the_formula(rule, layout):
    x, grad = activations(3, 24, 7, 5, layout=layout), activations(3, 24, 7, 5, layout=layout, seed=1)
    value, truth = both_gradients(lambda t: lrn(t, *rule), lambda t: reference_lrn(t, *rule), x, grad)
    assert (value - truth).abs().max() < 1e-6 * truth.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_gradient_within_maps_is_that_of_the_formula(size, layout):
    rule = (size, 1e-2, 0.75, 1.0)
    x, grad = activations(2, 20, 9, 7, layout=layout), activations(2, 20, 9, 7, layout=layout, seed=1)
    value, truth = both_gradients(lambda t: map_norm(t, *rule), lambda t: reference_map_norm(t, *rule), x, grad)
    assert (value - truth).abs().max() < 1e-6 * truth.abs().max()


@pytest.mark.parametrize("shape", [(2, 96, 9, 11), (1, 256, 27, 27), (130, 64, 8, 8)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_of_the_networks_agree_with_the_reference(shape, layout):
    x, grad = activations(*shape, layout=layout), activations(*shape, layout=layout, seed=1)
    for function, reference in (
        (LRN(columns=2), lambda t: reference_lrn(t, 5, 1e-4, 0.75, 2.0, 2)),
        (MapNorm(), lambda t: reference_map_norm(t, 5, 1e-3 / 25, 0.75, 1.0)),
    ):
        assert relative(function(x), reference(x.double())) < 1e-6
        value, truth = both_gradients(function, reference, x, grad)
        assert (value - truth).abs().max() < 1e-6 * truth.abs().max()


@pytest.mark.parametrize("module", [LRN(5, 1e-2, columns=2), LRN(4, 1e-2, 0.6, 1.0), MapNorm(3, 1e-2, divide=False)])
def test_gradients_hold_numerically_in_float64(module):
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


@pytest.mark.parametrize("module", [LRN(), MapNorm()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_the_gradient_is_refused(module, dtype):
    x = activations(1, 8, 4, 4, dtype=dtype).requires_grad_()
    (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype, step", [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("module", [LRN(5, 1e-2, 0.75, 2.0, 2), MapNorm(5, 1e-2)])
def test_half_types_are_exact_to_the_last_rounding(module, dtype, step, layout):
    x, grad = (activations(2, 16, 6, 7, layout=layout, dtype=dtype, seed=s) for s in (0, 1))
    truth = module(x.double())
    value = module(x)
    assert value.dtype == dtype
    assert relative(value, truth) < step * 1.01
    value, truth = both_gradients(module, module, x, grad)
    assert (value - truth).abs().max() <= step * 1.01 * truth.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("module", [LRN(), MapNorm()])
def test_result_and_gradient_keep_the_layout(module, layout):
    x = activations(2, 8, 5, 6, layout=layout).requires_grad_()
    y = module(x)
    (d,) = torch.autograd.grad(y, x, torch.ones(2, 8, 5, 6))
    assert y.is_contiguous(memory_format=LAYOUTS[layout])
    assert d.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("module", [LRN(columns=2), MapNorm()])
def test_a_view_in_neither_layout_is_normalized_right(module):
    x = activations(2, 8, 6, 5).transpose(2, 3)
    assert relative(module(x), module(x.double())) < 1e-6


@pytest.mark.parametrize("shape", [(8,), (2, 8), (2, 8, 5), (2, 8, 3, 2, 4)])
@pytest.mark.parametrize("module", [LRN(), MapNorm()])
def test_other_than_four_dimensions_are_refused(module, shape):
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        module(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 8, 0, 4)])
@pytest.mark.parametrize("module", [LRN(), MapNorm()])
def test_an_empty_batch_gives_an_empty_result(module, shape):
    x = torch.zeros(shape, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None and x.grad.shape == shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("module", [LRN(), LRN(beta=1.2), LRN(size=4, k=1e-3), MapNorm(), MapNorm(beta=0.5)])
def test_extreme_activations_give_no_nan(module, dtype, layout):
    top = torch.finfo(dtype).max
    edges = torch.tensor([0.0, -0.0, top, -top, torch.finfo(dtype).tiny, torch.finfo(dtype).smallest_normal, 1.0, -1e4])
    edges = torch.cat([edges, torch.logspace(-45, 38, 40)]).clamp(-top, top)
    x = edges[torch.randint(len(edges), (4, 16, 7, 7), generator=torch.Generator().manual_seed(0))]
    x = x.to(dtype).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    y = module(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert y.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("module", [LRN(), MapNorm(), LRN(size=4)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_nan_stays_in_its_image(module, layout):
    x = activations(3, 8, 6, 6, layout=layout)
    x[1, 7, 5, 5] = float("nan")
    x.requires_grad_()
    y = module(x)
    y.sum().backward()
    assert x.grad is not None
    for t in (y, x.grad):
        assert t[1].isnan().any() and t[[0, 2]].isfinite().all()


@pytest.mark.parametrize("module", [LRN(), MapNorm()])
def test_two_runs_agree_to_the_bit(module):
    x = activations(8, 32, 20, 20).requires_grad_()
    runs = [torch.autograd.grad(module(x).square().sum(), x)[0] for _ in range(3)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("module", [LRN(), MapNorm()])
def test_autocast_keeps_the_type_that_comes_in(module):
    with torch.autocast("cpu", torch.bfloat16):
        assert module(activations(1, 8, 4, 4)).dtype == torch.float32
        x = activations(1, 8, 4, 4, dtype=torch.bfloat16).requires_grad_()
        module(x).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_compiled_network_computes_the_same(layout):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), LRN(columns=2), MapNorm(), nn.MaxPool2d(3, 2))
    network = network.to(memory_format=LAYOUTS[layout])
    x = torch.randn(2, 3, 12, 12).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    y, z = network(x), torch.compile(network, fullgraph=True)(x)
    torch.testing.assert_close(z, y)
    for a, b in zip(torch.autograd.grad(z.sum(), x), torch.autograd.grad(y.sum(), x), strict=True):
        torch.testing.assert_close(a, b)


def test_an_exported_program_computes_the_same():
    network = nn.Sequential(LRN(columns=2), MapNorm()).eval()
    x = activations(2, 8, 6, 6)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert torch.equal(program.module()(x[:1].repeat(5, 1, 1, 1)), network(x[:1].repeat(5, 1, 1, 1)))


def test_the_operators_keep_torch_contracts():
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.alexnet.lrn.default, (x, 3, 0.01, 0.75, 2.0, 2))
    torch.library.opcheck(torch.ops.alexnet.map_norm.default, (x, 3, 0.01, 0.75, 2.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module, standard",
    [(LRN(5, 1e-2), True), (LRN(5, 1e-2, divide=True), True), (LRN(4, 1e-2), False), (LRN(5, 1e-2, columns=2), False)],
)
@pytest.mark.filterwarnings("ignore")
def test_onnx_export_computes_the_same_by_the_standard_node_where_it_means_the_same(module, standard, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    x = activations(2, 8, 4, 4)
    torch.onnx.export(module.eval(), (x,), tmp_path / "net.onnx", dynamo=True, input_names=["x"])
    nodes = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert ("LRN" in nodes) == standard
    (value,) = runtime.InferenceSession(tmp_path / "net.onnx").run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(value), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options, words",
    [({"size": 0}, "size"), ({"k": 0.0}, "k is 0"), ({"alpha": -1.0}, "alpha"), ({"columns": 3}, "columns")],
)
def test_a_wrong_rule_says_what_is_wrong(options, words):
    with pytest.raises(ValueError, match=words):
        LRN(**options)(torch.zeros(1, 8, 2, 2))
