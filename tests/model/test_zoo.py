"""Models by name: torchvision's classifiers behind the same interface, and errors that help."""

import copy
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet import presets
from alexnet.architecture import hidden_layer
from alexnet.checkpoint import shapes_of
from alexnet.model import native
from alexnet.model.alexnet import AlexNet
from alexnet.model.net import Net
from alexnet.model.zoo import LibraryNet, blank, build, create_model


def pictures(n: int, side: int = 224) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet() -> LibraryNet:
    return create_model("torchvision:resnet18", num_classes=5, seed=3)  # type: ignore[return-value]


def test_a_preset_is_built_from_its_description() -> None:
    model = create_model("digits")
    assert isinstance(model, AlexNet)
    assert model.network == presets.preset("digits").network


def test_the_number_of_classes_and_the_activation_are_taken() -> None:
    model = create_model("cifar-26", num_classes=4, activation="tanh")
    assert model(pictures(2, 32)).shape == (2, 4)
    assert model.taps(pictures(1, 32), ["tanh1"])["tanh1"].min() < 0  # type: ignore[operator]


def test_the_package_itself_creates_models() -> None:
    import alexnet

    assert isinstance(alexnet.create_model("digits", num_classes=3), AlexNet)


def test_a_torchvision_network_is_torchvisions(resnet: LibraryNet) -> None:
    from torchvision.models import resnet18

    theirs = resnet18(weights=None, num_classes=5)
    theirs.load_state_dict({key.removeprefix("body."): value for key, value in resnet.state_dict().items()})
    images = pictures(2)
    torch.testing.assert_close(resnet.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


class Products(TorchDispatchMode):
    """Notes the dtypes of the factors of products."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.addmm.default):
            self.dtypes |= {x.dtype for x in args[:2]}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("multiplies", [True, False])
def test_bfloat16_in_a_torchvision_network_is_emulated_where_the_processor_has_no_such_products(
    multiplies: bool, resnet: LibraryNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "multiplies_bfloat16", lambda: multiplies)
    resnet.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Products() as products:
        rounded = resnet(pictures(1))
    assert rounded.dtype == torch.bfloat16
    assert products.dtypes == {torch.bfloat16 if multiplies else torch.float32}


def test_every_parameter_of_a_torchvision_network_gets_a_gradient(resnet: LibraryNet) -> None:
    resnet.train()
    F.cross_entropy(resnet(pictures(2)), torch.tensor([1, 4])).backward()
    for name, parameter in resnet.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    resnet.zero_grad(set_to_none=True)


def test_the_seed_decides_the_weights_of_a_torchvision_network(resnet: LibraryNet) -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    same = create_model("torchvision:resnet18", num_classes=5, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(resnet.state_dict()["body.conv1.weight"], same["body.conv1.weight"])
    assert torch.equal(resnet.state_dict()["body.fc.weight"], same["body.fc.weight"])


def test_taps_of_a_torchvision_network_are_its_modules_by_name(resnet: LibraryNet) -> None:
    fresh = copy.deepcopy(resnet).eval()
    images = pictures(2)
    acts = fresh.taps(images)
    assert acts["conv1"].shape == (2, 64, 112, 112)
    assert acts["conv1"].min() < 0  # a copy taken before anything worked in place
    torch.testing.assert_close(acts["fc"], fresh(images))
    torch.testing.assert_close(acts["fc"], fresh.body.fc(acts[hidden_layer(fresh.network)]))
    assert acts[hidden_layer(fresh.network)].shape == (2, 512)
    assert all(len(act) == 2 for act in acts.values())


def test_taps_leave_a_torchvision_network_as_it_was(resnet: LibraryNet) -> None:
    fresh = copy.deepcopy(resnet).train()
    before = copy.deepcopy(fresh.state_dict())
    fresh.taps(pictures(2), ["conv1"])
    assert all(module.training for module in fresh.modules())
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in fresh.modules())


def test_several_threads_may_call_taps_and_forward_of_a_torchvision_network_at_once(resnet: LibraryNet) -> None:
    fresh = copy.deepcopy(resnet).eval()
    batches = [pictures(1) * (i + 1) for i in range(4)]
    with torch.no_grad():
        logits = [fresh(images) for images in batches]

    def work(i: int) -> bool:
        with torch.no_grad():
            again = fresh(batches[i])
        return all(torch.equal(fresh.taps(batches[i])["fc"], logits[i]) for _ in range(3)) and torch.equal(
            again, logits[i]
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_taps_of_a_torchvision_network_copy_no_weights(resnet: LibraryNet) -> None:
    with patch("torch.Tensor.__deepcopy__", side_effect=AssertionError("a tensor was copied")):
        assert resnet.taps(pictures(1), ["conv1"])["conv1"].shape == (1, 64, 112, 112)


@pytest.mark.parametrize("name", ["digits", "torchvision:squeezenet1_1"])
def test_every_network_is_a_net(name: str) -> None:
    model = create_model(name, num_classes=3)
    assert isinstance(model, Net)
    assert model.network.classes == 3
    acts = model.taps(pictures(2, model.network.image), [hidden_layer(model.network)])
    assert list(acts) == [hidden_layer(model.network)] and len(acts[hidden_layer(model.network)]) == 2


def test_an_unknown_tap_of_a_torchvision_network_is_named(resnet: LibraryNet) -> None:
    with pytest.raises(ValueError, match="conv9"):
        resnet.taps(pictures(1), ["conv9"])


def test_wrong_images_for_a_torchvision_network_are_refused(resnet: LibraryNet) -> None:
    for call in (resnet, resnet.taps):
        with pytest.raises(ValueError, match=r"\(N, 3, 224, 224\)"):
            call(torch.zeros(1, 3, 32, 32))
        with pytest.raises(ValueError, match="uint8.*float"):
            call(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    assert not any(module._forward_hooks for module in resnet.modules())


@pytest.mark.slow
def test_vgg16_builds_and_classifies() -> None:
    model = create_model("torchvision:vgg16", num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 138_357_544
    with torch.no_grad():
        assert model.eval()(pictures(1)).shape == (1, 1000)


@pytest.mark.parametrize(("name", "image"), [("squeezenet1_1", 224), ("googlenet", 224), ("inception_v3", 299)])
def test_networks_with_other_inputs_or_outputs_give_one_tensor_of_logits(name: str, image: int) -> None:
    model = create_model(f"torchvision:{name}", num_classes=3)
    assert model.train()(pictures(2, image)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("torchvision:resnet81", "resnet"), ("torchvision:vgg61", "vgg"), ("torchvision:alexnett", "alexnet")],
)
def test_an_unknown_torchvision_network_suggests_a_near_one(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError) as error:
        create_model(name, num_classes=5)
    assert "did you mean" in str(error.value)
    assert suggestion in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["torchvision:fasterrcnn_resnet50_fpn", "torchvision:deeplabv3_resnet50", "torchvision:raft_small"]
)
def test_a_torchvision_network_that_is_no_classifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="torchvision has no classifier"):
        create_model(name, num_classes=5)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:", ":resnet18"])
def test_a_name_of_another_library_is_refused(name: str) -> None:
    with pytest.raises(ValueError) as error:
        create_model(name)
    assert "\n" not in str(error.value)


def test_an_unknown_name_suggests_the_nearest_preset() -> None:
    with pytest.raises(ValueError, match="did you mean paper"):
        create_model("papre")


@pytest.mark.parametrize("classes", [1, 0, -1, True, 3.0])
def test_an_impossible_class_count_is_refused(classes: int) -> None:
    for name in ("digits", "torchvision:resnet18"):
        with pytest.raises(ValueError, match="num_classes.*at least 2"):
            create_model(name, num_classes=classes)


def test_a_description_is_built_as_a_preset_is() -> None:
    network = presets.preset("digits").network
    assert torch.equal(
        build(network, 4).state_dict()["fc4.weight"], create_model("digits", seed=4).state_dict()["fc4.weight"]
    )


@pytest.mark.parametrize("name", presets.names())
def test_the_shapes_of_weights_that_the_description_says_are_the_models(name: str) -> None:
    network = presets.preset(name).network
    assert shapes_of(network) == {key: tuple(value.shape) for key, value in blank(network).state_dict().items()}
