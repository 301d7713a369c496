"""Exported networks against torch's logits, and weights that come back as they went."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from alexnet import create_model
from alexnet.architecture import LRN, Activation, Conv, Full, Local, MapNorm, Network, Pool
from alexnet.checkpoint import arrays
from alexnet.errors import MissingLibrary, UsageError
from alexnet.formats.export import Facts, export, import_model, onnx_model
from alexnet.model.net import Net
from alexnet.model.zoo import build

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: export)")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: export)")

SMALL = (
    Conv("conv1", 16, 5, stride=2, std=0.05),
    Activation("relu1"),
    LRN("norm1", alpha=1e-2),
    Pool("pool1"),
    Conv("conv2", 16, 3, pad=1, sees="own", std=0.1, bias=0.5),
    Activation("relu2"),
    LRN("norm2"),
    Conv("conv3", 8, 3, pad=1, std=0.1),
    Activation("relu3"),
    Conv("conv4", 8, 3, pad=1, sees="own", std=0.1),
    Pool("pool4", kind="avg"),
    Full("fc5", 12, std=0.1),
    Activation("relu5"),
    Full("fc6", std=0.1),
)


def small(**changes: object) -> Network:
    return Network("small", **{"image": 30, "classes": 5, "layers": SMALL, **changes})  # type: ignore[arg-type]


def written(model: Net, format: str, path: Path, facts: Facts | None = None) -> Path:
    return export(model.network, arrays(model.state_dict()), format, path, facts)


def graph_of(model: Net, products: bool = False) -> Any:
    return onnx_model(model.network, arrays(model.state_dict()), products)


def differs(model: Net, n: int = 3, products: bool = False) -> float:
    """The largest difference of ONNX Runtime's logits, relative to the largest logit."""
    proto = graph_of(model, products)
    onnx.checker.check_model(proto)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = torch.randn(n, 3, model.network.image, model.network.image) * 50
    with torch.no_grad():
        expected = model.eval()(images).numpy()
    (found,) = session.run(None, {"images": images.contiguous().numpy()})
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("preset", ["digits", "tiny-64", "cifar-26", "cifar-18"])
def test_an_exported_preset_gives_the_logits_of_torch(preset: str) -> None:
    assert differs(create_model(preset)) < 1e-5


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("columns", [1, 2])
def test_columns_stay_apart_where_the_description_says_so(columns: int, products: bool) -> None:
    assert differs(build(small(columns=columns)), products=products) < 1e-5


def test_a_tanh_network_and_one_normalized_over_all_maps_are_exported() -> None:
    layers = tuple(
        dataclasses.replace(layer, within="all", divide=True, k=1.0) if isinstance(layer, LRN) else layer
        for layer in SMALL
    )
    assert differs(build(small(layers=layers, activation="tanh"))) < 1e-5


def test_a_power_other_than_three_quarters_is_exported_as_a_product() -> None:
    layers = tuple(dataclasses.replace(layer, beta=0.6) if isinstance(layer, LRN) else layer for layer in SMALL)
    assert differs(build(small(layers=layers)), products=True) < 1e-5


def test_normalization_within_maps_is_exported_in_every_column() -> None:
    layers = (*SMALL[:7], MapNorm("mapnorm2", alpha=0.1), *SMALL[7:])
    assert differs(build(small(layers=layers))) < 1e-5


def test_an_even_window_and_a_local_layer_go_through_the_exporter_of_torch() -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    layers = (
        Conv("conv1", 6, 3, stride=4, std=0.05),
        LRN("norm1", size=4, alpha=1e-2),
        Local("local2", 4, 3, pad=1),
        Full("fc3"),
    )
    assert differs(build(small(layers=layers, columns=1))) < 1e-5


def test_the_graph_of_one_column_has_the_standard_normalization_node() -> None:
    nodes = [node.op_type for node in graph_of(build(small(columns=1))).graph.node]
    assert nodes.count("LRN") == 2 and "Pow" not in nodes


def test_any_number_of_images_may_be_given() -> None:
    model = build(small())
    assert max(differs(model, n) for n in (1, 2, 7)) < 1e-5


def test_the_exported_file_says_what_it_is(tmp_path: Path) -> None:
    model = onnx.load(written(build(small()), "onnx", tmp_path / "net.onnx"))
    described = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(described["alexnet"])["network"]["name"] == "small"


def test_weights_come_back_as_they_went(tmp_path: Path) -> None:
    model = build(small(), seed=3)
    path = written(model, "safetensors", tmp_path / "net.safetensors")
    network, weights, facts = import_model(path)
    assert network == model.network and facts == Facts()
    assert weights.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(weights[name], value.numpy())


def test_a_file_of_weights_without_description_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="says nothing of its network"):
        import_model(tmp_path / "other.safetensors")


def test_a_graph_is_not_read_back_as_weights(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a" * 20)
    with pytest.raises(UsageError, match=r"net\.onnx is not a file that `alexnet export"):
        import_model(tmp_path / "net.onnx")


def test_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tflite' should be one of onnx, safetensors"):
        written(build(small()), "tflite", tmp_path / "net")


def test_the_metadata_of_the_weights_can_be_read_without_the_package(tmp_path: Path) -> None:
    path = written(build(small()), "safetensors", tmp_path / "net.safetensors")
    with safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["alexnet"])
    assert described["input"].startswith("float32 (N, 3, 30, 30)")


def facts(**changes: object) -> Facts:
    """Those of `small()` on pictures of 36 pixels with a mean image of noise."""
    mean = np.random.default_rng(0).uniform(0, 255, (36, 36, 3)).astype(np.float32)
    values = {"preset": "small", "classes": tuple("abcde"), "size": 36, "center": "mean-image", "mean_image": mean}
    return Facts(**{**values, **changes})  # type: ignore[arg-type]


def test_the_mean_image_and_the_facts_come_back_as_they_went(tmp_path: Path) -> None:
    wrote = facts(exif_rotate=True)
    path = written(build(small()), "safetensors", tmp_path / "net.safetensors", wrote)
    read = import_model(path)[2]
    assert read.to_json() == wrote.to_json()
    assert read.mean_image is not None and np.array_equal(read.mean_image, wrote.mean_image)  # type: ignore[arg-type]
    with safe_open(path, framework="numpy") as file:
        assert np.array_equal(file.get_tensor("mean_image"), wrote.mean_image)  # type: ignore[arg-type]


@pytest.mark.parametrize("center", ["mean-image", "imagenet", "none"])
@pytest.mark.parametrize("preset", [None, "traced"])
def test_a_graph_with_facts_takes_raw_pixels_and_centres_them_itself(
    preset: str | None, center: str, tmp_path: Path
) -> None:
    layers = SMALL
    if preset == "traced":  # a locally-connected layer goes through torch's exporter
        pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
        layers = (Conv("conv1", 6, 3, stride=4, std=0.05), Local("local2", 4, 3, pad=1), Full("fc3"))
    model = build(small(layers=layers, columns=1)).eval()
    mean = facts().mean_image if center == "mean-image" else None
    path = written(model, "onnx", tmp_path / "net.onnx", facts(center=center, mean_image=mean))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 36, 36, 3), dtype=np.uint8)[:, 3:33, 3:33].astype(np.float32)
    centred = pixels
    if mean is not None:
        centred = pixels - mean[3:33, 3:33]
    if center == "imagenet":
        centred = (pixels - np.float32([123.675, 116.28, 103.53])) / np.float32([58.395, 57.12, 57.375])
    with torch.no_grad():
        expected = model(torch.from_numpy(np.ascontiguousarray(centred.transpose(0, 3, 1, 2)))).numpy()
    onnx.checker.check_model(onnx.load(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    described = json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["alexnet"])
    assert described["classes"] == list("abcde") and "central crop" in described["input"]


@pytest.mark.parametrize("described", ["{", "[]", '{"network": {"name": 3}}', '{"network": {}, "classes": 5}'])
def test_a_description_that_makes_no_sense_is_refused(described: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"alexnet": described})
    with pytest.raises(UsageError, match=r"other\.safetensors"):
        import_model(tmp_path / "other.safetensors")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.formats.export.find_spec", lambda package: None)
    with pytest.raises(MissingLibrary, match=r"alexnet\[export\]"):
        graph_of(build(small()))
