"""Settings: written and read back whole, changed by path, and refused in one line."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet import presets
from alexnet.config import Config, check, fields, flags, merge, replace, sections, text_of
from alexnet.errors import UsageError, suggestion

PRESETS = presets.names()


def digits() -> Config:
    return presets.preset("digits")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_back_from_its_json(name: str) -> None:
    config = presets.preset(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_library_network_is_read_back_from_its_json() -> None:
    config = presets.preset("torchvision:resnet18", classes=7)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("path", [f.path for f in fields(presets.preset("torchvision:resnet18"))])
def test_each_setting_survives_a_change_and_a_round_trip(path: str) -> None:
    config = presets.preset("torchvision:resnet18")
    setting = next(f for f in fields(config) if f.path == path)
    if setting.choices:
        text = next(choice for choice in setting.choices if choice != setting.default)
        value: object = text
    elif isinstance(setting.default, bool):
        value, text = not setting.default, str(not setting.default).lower()
    elif isinstance(setting.default, int):
        value, text = setting.default + 1, str(setting.default + 1)
    elif isinstance(setting.default, float):
        value = 0.25 if path == "optimizer.momentum" else setting.default / 2 + 0.125
        value, text = (12.5, "12.5") if path == "schedule.factor" else (value, repr(value))
    elif isinstance(setting.default, tuple):
        value, text = ((3, 5, 8), "3,5,8") if path == "schedule.milestones" else (("a", "b"), "a,b")
    else:
        value, text = ("cpu", "cpu") if path == "train.device" else ("some/folder", "some/folder")
    changed = replace(config, {path: text})
    assert {f.path: f.default for f in fields(changed)}[path] == value
    assert Config.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_the_file_of_a_config_needs_no_torch() -> None:
    code = "import sys, alexnet.config, alexnet.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_setting_has_a_help_text() -> None:
    assert all(f.about.strip() for f in fields(digits()))


def test_settings_are_listed_once_each() -> None:
    paths = [f.path for f in fields(digits())]
    expected = sum(len(dataclasses.fields(getattr(digits(), s.name))) for s in sections())
    assert len([path for path in paths if not path.startswith("network.")]) == expected
    assert len(paths) == len(set(paths))


def test_every_field_of_the_network_is_a_setting() -> None:
    network = digits().network
    paths = {f.path for f in fields(digits())}
    for part, prefix in ((network, "network"), *((layer, f"network.{layer.name}") for layer in network.layers)):
        names = {f.name for f in dataclasses.fields(part)} - {"name", "about", "layers"}
        assert {f"{prefix}.{name}" for name in names} <= paths


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits().train.epochs = 3  # type: ignore[misc]


def test_replacing_leaves_the_original_and_every_other_setting_alone() -> None:
    before = digits()
    after = replace(before, {"optimizer.lr": "0.02"})
    assert before == digits()
    assert dataclasses.replace(after, optimizer=before.optimizer) == before
    assert after.optimizer == dataclasses.replace(before.optimizer, lr=0.02)


@given(st.floats(1e-12, 1e6))
def test_a_rate_is_parsed_to_the_bit(lr: float) -> None:
    assert replace(digits(), {"optimizer.lr": repr(lr)}).optimizer.lr == lr


@given(st.integers(0, 2**63 - 1))
def test_a_seed_is_parsed_exactly(seed: int) -> None:
    assert replace(digits(), {"train.seed": str(seed)}).train.seed == seed


@given(st.lists(st.integers(1, 500), max_size=6), st.sampled_from([",", ", ", " "]))
def test_milestones_are_parsed_from_commas_or_spaces(epochs: list[int], separator: str) -> None:
    epochs = sorted(set(epochs))
    changed = replace(digits(), {"schedule.milestones": separator.join(map(str, epochs))})
    assert changed.schedule.milestones == tuple(epochs)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("1", True),
        ("0", False),
        ("yes", True),
        ("no", False),
        ("True", True),
        ("FALSE", False),
        ("on", True),
        ("off", False),
    ],
)
def test_switches_are_parsed(text: str, value: bool) -> None:
    assert replace(digits(), {"augment.mirror": text}).augment.mirror is value


def test_the_activation_of_all_layers_is_a_setting() -> None:
    assert replace(presets.preset("cifar-26"), {"network.activation": "tanh"}).network.activation == "tanh"


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("optimizer.rl", "optimizer.lr"),
        ("optimiser.lr", "optimizer.lr"),
        ("train.epoch", "train.epochs"),
        ("augment.color", "augment.colour"),
        ("schedule.milestone", "schedule.milestones"),
        ("train.batchsize", "train.batch_size"),
        ("network.conv1.kernel", "network.conv1.kernels"),
        ("network.fc44", "network.fc4"),
        ("network.column", "network.columns"),
    ],
)
def test_an_unknown_setting_suggests_the_nearest(path: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as error:
        replace(digits(), {path: "1"})
    message = str(error.value)
    assert path in message
    assert f"did you mean {suggestion}?" in message
    assert "\n" not in message


def test_an_unknown_setting_in_a_file_is_named_with_the_nearest() -> None:
    data = json.loads(json.dumps(presets.preset("torchvision:resnet18").to_dict()))
    data["optimizer"]["momentun"] = data["optimizer"].pop("momentum")
    with pytest.raises(UsageError, match="optimizer.momentun.*did you mean optimizer.momentum"):
        Config.from_dict(data)


def test_a_setting_of_the_wrong_type_in_a_file_is_named() -> None:
    data = json.loads(json.dumps(presets.preset("torchvision:resnet18").to_dict()))
    data["optimizer"]["lr"] = "fast"
    with pytest.raises(UsageError, match="optimizer.lr"):
        Config.from_dict(data)


def test_a_choice_that_does_not_exist_in_a_file_is_named() -> None:
    data = json.loads(json.dumps(presets.preset("torchvision:resnet18").to_dict()))
    data["train"]["precision"] = "float8"
    with pytest.raises(UsageError, match="train.precision"):
        Config.from_dict(data)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("optimizer.lr", "fast"),
        ("optimizer.lr", ""),
        ("optimizer.lr", "0"),
        ("optimizer.lr", "-0.1"),
        ("optimizer.lr", "nan"),
        ("optimizer.lr", "inf"),
        ("optimizer.momentum", "1"),
        ("optimizer.momentum", "-0.1"),
        ("optimizer.momentum", "nan"),
        ("optimizer.weight_decay", "-1"),
        ("optimizer.bias_lr", "-1"),
        ("optimizer.bias_decay", "-1"),
        ("optimizer.bias_lr_drops", "perhaps"),
        ("train.epochs", "0"),
        ("train.epochs", "2.5"),
        ("train.epochs", "many"),
        ("train.steps", "-1"),
        ("train.batch_size", "0"),
        ("train.precision", "float16"),
        ("train.seed", "-1"),
        ("train.seed", str(2**63)),
        ("train.threads", "-2"),
        ("train.log_every", "0"),
        ("train.evaluate_every", "0"),
        ("train.save_every", "-1"),
        ("train.save_every", "nan"),
        ("augment.crop", "2"),
        ("augment.colour", "-0.1"),
        ("augment.colour", "nan"),
        ("augment.colour_scale", "cube"),
        ("augment.colour_divisor", "0"),
        ("augment.colour_until", "-1"),
        ("augment.shared", "0"),
        ("data.size", "4"),
        ("data.validation", "0"),
        ("data.validation", "1"),
        ("data.center", "median"),
        ("data.workers", "-1"),
        ("data.memory", "-1"),
        ("schedule.kind", "cosine"),
        ("schedule.factor", "1"),
        ("schedule.drops", "-1"),
        ("schedule.patience", "0"),
        ("schedule.threshold", "nan"),
        ("schedule.threshold", "-1"),
        ("schedule.milestones", "3,a"),
        ("schedule.milestones", "-3"),
        ("train.margin", "-1"),
        ("train.task", "regression"),
        ("network.activation", "sigmoid"),
        ("network.classes", "1"),
        ("network.columns", "0"),
        ("network.image", "none"),
        ("network.conv1.kernels", "0"),
        ("network.conv1.kernels", "none"),
        ("network.conv1.std", "-1"),
        ("network.conv1.sees", "both"),
        ("network.norm1.k", "0"),
        ("network.drop4.rate", "1"),
        ("network.fc4.units", "0"),
        ("network.norm1", "gone"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_the_setting(path: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        replace(digits(), {path: text})
    message = str(error.value)
    assert path in message
    assert "should be" in message
    assert "\n" not in message


@given(st.text(max_size=20))
def test_no_text_for_a_number_raises_anything_but_a_one_line_value_error(text: str) -> None:
    try:
        lr = replace(digits(), {"optimizer.lr": text}).optimizer.lr
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert math.isfinite(lr)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_passes_its_own_check(name: str) -> None:
    check(presets.preset(name))


def test_the_defaults_are_the_papers() -> None:
    config = presets.preset("paper")
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (0.01, 0.9, 0.0005)
    assert (config.train.batch_size, config.data.size) == (128, 256)
    assert (config.schedule.kind, config.schedule.factor, config.schedule.drops) == ("plateau", 10, 3)
    assert (config.optimizer.bias_lr, config.optimizer.bias_decay) == (1, 1)


@pytest.mark.parametrize(
    ("name", "known", "hint"), [("papr", ["paper", "caffe"], "; did you mean paper?"), ("xyz", ["paper"], "")]
)
def test_the_nearest_name_is_suggested_if_any_is_near(name: str, known: list[str], hint: str) -> None:
    assert suggestion(name, known) == hint


# The network


def test_a_layer_is_changed_and_removed_by_path() -> None:
    config = replace(digits(), {"network.conv1.kernels": "16", "network.norm1": "none", "network.columns": "1"})
    layers = {layer.name: layer for layer in config.network.layers}
    assert layers["conv1"] == dataclasses.replace(digits().network.layers[0], kernels=16)
    assert "norm1" not in layers and len(layers) == len(digits().network.layers) - 1
    assert config.network.columns == 1


def test_a_setting_that_may_be_open_is_opened_by_none() -> None:
    config = replace(digits(), {"network.conv1.std": "none", "network.fc4.decay": "0.1"})
    layers = {layer.name: layer for layer in config.network.layers}
    assert layers["conv1"].std is None and layers["fc4"].decay == 0.1
    assert replace(config, {"network.fc4.decay": "none"}).network.layers[10].decay is None


def test_the_settings_of_a_removed_layer_are_gone() -> None:
    with pytest.raises(UsageError, match="network.norm1.size is not a setting"):
        replace(digits(), {"network.norm1": "none", "network.norm1.size": "3"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network.conv1.kernels": "31"}, "layer norm1: 31 maps do not divide into 2 columns"),
        ({"network.conv2.kernels": "63"}, "layer conv2: 63 kernels do not divide into 2 columns"),
        ({"network.conv1.size": "40"}, "layer conv1: a 40×40 window does not fit"),
        ({"network.fc5": "none"}, "one unit per class"),
        ({"network.fc5.units": "9"}, "one unit per class"),
        ({"network.image": "17"}, "data.size 16 should be at least the network's 17"),
    ],
)
def test_a_network_that_cannot_be_built_is_told_in_one_line(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        replace(digits(), changes)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_is_written_and_read_as_text(name: str) -> None:
    config = presets.preset(name)
    for entry in fields(config):
        assert entry.parse(text_of(entry.default)) == entry.default, entry.path


# A file's tables


def test_tables_change_only_what_they_name() -> None:
    document = {"optimizer": {"lr": 1}, "network": {"columns": 1, "norm1": "none", "conv1": {"kernels": 8}}}
    changes = {"optimizer.lr": "1", "network.columns": "1", "network.norm1": "none", "network.conv1.kernels": "8"}
    assert merge(digits(), document) == replace(digits(), changes)


def test_tables_that_name_their_kinds_are_the_whole_network() -> None:
    layers = {"conv1": {"layer": "Conv", "kernels": 4, "size": 3}, "fc2": {"layer": "Full"}}
    network = merge(digits(), {"network": layers}).network
    assert [layer.name for layer in network.layers] == ["conv1", "fc2"]
    assert network.layers[0].stride == 1 and network.layers[1].units is None


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"optimiser": {"lr": 0.1}}, "optimiser is not a section of settings; did you mean optimizer?"),
        ({"optimizer": {"rl": 0.1}}, "optimizer.rl is not a setting; did you mean optimizer.lr?"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr 'fast' should be a number above 0"),
        ({"optimizer": {"lr": True}}, "optimizer.lr true should be a number above 0"),
        ({"optimizer": {"lr": float("inf")}}, "optimizer.lr inf should be"),
        ({"optimizer": {"lr": 10**400}}, "optimizer.lr"),
        ({"optimizer": 3}, "optimizer 3 should be a table"),
        ({"train": {"epochs": 2.0}}, "train.epochs 2.0 should be a whole number of at least 1"),
        ({"schedule": {"milestones": [3, "7"]}}, "schedule.milestones [3, '7'] should be whole numbers"),
        ({"network": {"conv1": {"kernels": "many"}}}, "network.conv1.kernels 'many' should be a whole number"),
        ({"network": {"conv1": {"layer": "Conv", "kernels": 4}}}, "network.conv1.size is missing"),
        ({"network": {"conv1": {"layer": "Con", "size": 4}}}, "did you mean Conv?"),
        ({"network": {"conv9": {"size": 4}}}, "network.conv9 is not a setting or layer"),
        ({"network": {"conv1": 3}}, "network.conv1 3 should be none"),
        ({"network": {"conv1": {"layer": "Conv", "kernels": 4, "size": 3}, "norm1": "none"}}, "network.norm1 should"),
        ({"network": []}, "network [] should be a table"),
    ],
)
def test_what_a_file_has_wrong_is_told_in_one_line(document: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as error:
        merge(digits(), document)
    assert said in str(error.value) and "\n" not in str(error.value)


# Flags that make one config of another


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer.lr": "0.25", "schedule.milestones": "3,7", "augment.mirror": "true"},
        {"network.norm1": "none", "network.conv1.std": "none", "network.drop4.rate": "0.25", "network.columns": "1"},
    ],
)
def test_flags_repeat_what_was_changed(changes: dict[str, str]) -> None:
    config = replace(digits(), changes)
    assert flags(digits(), config).keys() == changes.keys()
    assert replace(digits(), flags(digits(), config)) == config


def test_flags_cannot_add_a_layer() -> None:
    with pytest.raises(UsageError, match="only a file"):
        flags(replace(digits(), {"network.norm1": "none"}), digits())
    with pytest.raises(UsageError, match="differ"):
        first, second, *rest = digits().network.layers
        network = dataclasses.replace(digits().network, layers=(second, first, *rest))
        flags(digits(), dataclasses.replace(digits(), network=network))
