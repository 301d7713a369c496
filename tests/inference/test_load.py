"""Models by name: runs, files and torchvision's networks, and what is wrong with a name in one line."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alexnet
from alexnet.checkpoint import read_header
from alexnet.errors import CheckpointError, RunError, UsageError
from alexnet.formats.export import export
from alexnet.inference.ensemble import Ensemble
from alexnet.inference.load import load
from alexnet.inference.network import NetworkPredictor


def squares(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def exported(net: NetworkPredictor, path: Path, facts: bool = True) -> Path:
    """The file that `alexnet export` writes of a model."""
    trained = net.trained
    return export(trained.network, trained.weights, "safetensors", path, trained.facts() if facts else None)


def opened(*args: object, **options: object) -> NetworkPredictor:
    net = load(*args, **options)  # type: ignore[arg-type]
    assert isinstance(net, NetworkPredictor)
    return net


def test_the_public_load_is_this_one_and_takes_several(trained: Path, second: Path) -> None:
    assert alexnet.load is load
    assert isinstance(load(trained, second), Ensemble)
    net = load(trained)
    assert load(net) is net


def test_a_file_that_export_wrote_predicts_as_its_run(trained: Path, tmp_path: Path) -> None:
    net = opened(trained)
    path = exported(net, tmp_path / "net.safetensors")
    back = opened(path)
    images = squares(3, 16)
    assert np.array_equal(back.probabilities(images, 10), net.probabilities(images, 10))
    assert (back.classes, back.size, back.exif_rotate) == (net.classes, net.size, net.exif_rotate)
    assert back.description["sha256"] == net.description["sha256"]
    assert back.description["run"] == str(path)


def test_a_file_that_cannot_predict_is_told(trained: Path, tmp_path: Path) -> None:
    net = opened(trained)
    plain = exported(net, tmp_path / "plain.safetensors", facts=False)
    with pytest.raises(UsageError, match="does not say its classes and preprocessing"):
        load(plain)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(UsageError, match=r"notes\.txt is not a file that `alexnet export"):
        load(tmp_path / "notes.txt")
    whole = exported(net, tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match="one file of weights"):
        load(whole, checkpoint="best")
    with pytest.raises(UsageError, match="is not a run directory"):
        load(whole, precision="int8")


def test_torchvisions_network_with_its_own_preprocessing() -> None:
    from torchvision.models import AlexNet_Weights

    net = opened("torchvision:alexnet", checkpoint="random")
    assert (net.size, len(net.classes), net.classes[1]) == (256, 1000, "goldfish")
    assert net.description["run"] == "torchvision:alexnet" and net.description["checkpoint"] == "random"
    picture = squares(1, 256)
    transforms = AlexNet_Weights.DEFAULT.transforms()
    with torch.no_grad():
        views = transforms(torch.from_numpy(picture).permute(0, 3, 1, 2))
        expected = net.trained.torch_model().body(views).softmax(1).numpy()
    np.testing.assert_allclose(net.probabilities(picture), expected, atol=1e-5)
    assert net.predict(picture, top=2)[0].labels[0] == net.classes[int(expected.argmax())]
    assert set(net.taps(picture, ["hidden"])) == {"hidden"}


def test_torchvisions_weights_come_from_a_file_or_from_where_torchvision_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"not on this machine: put https://.*squeezenet.* at .*checkpoints/squee"
    ):
        load("torchvision:squeezenet1_1")
    torch.manual_seed(1)
    theirs = models.squeezenet1_1().eval()
    published = models.SqueezeNet1_1_Weights.DEFAULT
    (tmp_path / "checkpoints").mkdir()
    kept = tmp_path / "checkpoints" / Path(published.url).name
    torch.save(theirs.state_dict(), kept)
    image = squares(1, 256)
    with torch.no_grad():
        expected = theirs(published.transforms()(torch.from_numpy(image).permute(0, 3, 1, 2))).softmax(1).numpy()
    for checkpoint in (None, str(kept)):
        net = load("torchvision:squeezenet1_1", checkpoint=checkpoint)
        np.testing.assert_allclose(net.probabilities(image), expected, atol=1e-5)
        assert net.description["checkpoint"] == (checkpoint or kept.name)
    kept.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is not a file of weights"):
        load("torchvision:squeezenet1_1", checkpoint=str(kept))
    torch.save(models.alexnet().state_dict(), kept)
    with pytest.raises(CheckpointError, match="is of another network"):
        load("torchvision:squeezenet1_1", checkpoint=str(kept))


def test_a_network_trained_on_other_colours_is_refused() -> None:
    with pytest.raises(UsageError, match="efficientnet_v2_l was trained on colours scaled otherwise"):
        load("torchvision:efficientnet_v2_l", checkpoint="random")


@pytest.mark.parametrize("name", ["torchvision:alexnot", "torchvision:"])
def test_an_unknown_network_of_torchvision_is_told(name: str) -> None:
    with pytest.raises(UsageError, match="torchvision has no classifier"):
        load(name)


def test_what_is_not_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run directory"):
        load(tmp_path / "absent")
    for device in ("gpu", "meta", "cuda:77"):
        with pytest.raises(UsageError, match=f"device '?{device}"):
            load(tmp_path, device=device)


class Call:
    """Calls a function when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (1 << 32,)


@pytest.mark.parametrize("old", [False, True])
def test_a_file_of_torchs_that_calls_anything_is_refused_before_it_is_read(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": Call()}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match="its pickle names .*bytearray"):
        load("torchvision:alexnet", checkpoint=str(path))


def test_a_file_of_torchs_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(9)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry) + bytes(1 << 20))
    with pytest.raises(CheckpointError, match="bytes unpack to"):
        load("torchvision:alexnet", checkpoint=str(tmp_path / "bomb.pt"))


def edited(
    net: NetworkPredictor, path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
) -> Path:
    """A model file whose description or tensors are changed."""
    exported(net, path)
    description, tensors = json.loads(read_header(path).texts["alexnet"]), load_file(path)
    edit(description, tensors)
    save_file(tensors, path, {"alexnet": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d, t: d.update(classes=3), r"its description\.classes 3 should be a list"),
        (lambda d, t: d.update(classes=["a"]), "names 1 classes, but its network has 7"),
        (lambda d, t: d.update(size="16"), r"its description\.size '16'"),
        (lambda d, t: d.update(size=8), "of another network: mean_image"),
        (lambda d, t: d.update(center="left"), r"data\.center 'left'"),
        (lambda d, t: d["network"].update(layers=[]), "has no layers"),
        (lambda d, t: d["network"]["layers"][0].update(kernels=2**50), "too large for any memory|another network"),
        (lambda d, t: t.update({"conv1.bias": t["conv1.bias"].double()}), "conv1.bias is float64"),
        (lambda d, t: t["mean_image"].fill_(-1), "mean image should be float32 within 0 to 255"),
        (lambda d, t: t["conv1.bias"].fill_(1e20), "values beyond"),
    ],
)
def test_a_model_file_that_was_edited_is_refused_by_field(
    edit: Callable[..., object], words: str, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words) as error:
        load(edited(opened(trained), tmp_path / "net.safetensors", edit))
    assert "net.safetensors" in str(error.value)
