"""The command line: what it prints where, its exit codes, and one clear line for whatever goes in that is wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from alexnet import cli, presets
from alexnet.commands.frame import CHECKPOINT_HELP
from alexnet.commands.train import SHORT
from alexnet.config import Config, fields
from alexnet.config_file import from_document
from alexnet.run import Run

Said = tuple[int, str, str]
QUICK = ("--epochs", "2", "--train.batch_size", "16", "--train.threads", "1", "--data.workers", "1")


@pytest.fixture
def alexnet(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command here: exit code, stdout, stderr."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def wrong(alexnet: Callable[..., Said]) -> Callable[..., str]:
    """Run a command that must fail: one line on stderr, one JSON object on stdout, the code; returns the line."""

    def call(code: int, *words: object) -> str:
        found, out, err = alexnet(*words, "--json")
        assert found == code, err
        assert err.startswith("alexnet: ") and err.count("\n") == 1, err
        assert "Traceback" not in err
        error = json.loads(out)
        assert set(error) == {"error"} and f"alexnet: {error['error']}\n" == err
        return error["error"]

    return call


# Speaking twice


def test_a_folder_with_splits_is_trained_and_measured_by_command(
    seven: Path, tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    run = tmp_path / "run"
    code, out, err = alexnet("train", "--data", seven, "--out", run, *QUICK, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert set(result) == {"run", "epochs", "steps", "seconds", "images_per_second", "best", "last"}
    assert (result["run"], result["epochs"], result["steps"]) == (str(run), 2, 8)
    assert err.count("validation error") == 2
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
        "source.json",
        "statistics.npz",
    ):
        assert (run / name).is_file()
    assert not (run / "tensorboard").exists()
    assert Run.open(run).environment["command"][:2] == ["alexnet", "train"]

    code, out, err = alexnet("evaluate", run, "--json")
    assert code == 0, err
    measured = json.loads(out)
    assert set(measured) == {
        "top1_error",
        "top5_error",
        "loss",
        "count",
        "views",
        "data",
        "split",
        "runs",
        "models",
        "unreadable",
        "chance_error",
        "majority_error",
        "answered",
        "present",
        "path",
    }
    assert (measured["chance_error"], measured["majority_error"]) == (85.7143, 85.7143)
    assert (measured["split"], measured["count"], measured["runs"]) == ("test", 28, [str(run)])
    assert Run.open(run).evaluations() == [measured]


def test_a_folder_without_splits_is_trained_and_measured_by_command(
    pictures: Callable[..., Path], tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    folder = pictures(tmp_path / "some", {"": 10}, ("ant", "bee", "cat"))
    code, out, _ = alexnet("train", "--data", folder, "--out", tmp_path / "run", *QUICK, "--json")
    assert code == 0
    assert json.loads(out)["last"]["count"] == 3
    code, out, _ = alexnet("evaluate", tmp_path / "run", "--json")
    assert (json.loads(out)["split"], json.loads(out)["top5_error"]) == ("val", None)


def test_without_json_the_result_is_prose(seven: Path, tmp_path: Path, alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("train", "--data", seven, "--out", tmp_path / "run", *QUICK)
    assert code == 0
    assert f"alexnet evaluate {tmp_path / 'run'}" in out and "top-1 error" in out
    assert out.count("(chance 85.71 %, majority 85.71 %)") == 2  # of the best and the last epoch


def test_the_errors_of_last_weights_that_were_not_validated_are_said_to_be_of_another_step(
    seven: Path, tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    _, out, _ = alexnet("train", "--data", seven, "--out", tmp_path / "run", *QUICK, "--train.steps", "6")
    assert "\nlast: step 6, not validated since step 4: epoch 1, validation top-1 error" in out
    _, out, _ = alexnet("train", "--data", seven, "--out", tmp_path / "one", *QUICK, "--train.steps", "1")
    assert "\nlast: step 1, not validated\n" in out
    code, out, _ = alexnet("evaluate", tmp_path / "run")
    assert code == 0 and "top-5 error" in out and "28 images" in out and "(chance 85.71 %, majority 85.71 %)" in out
    image = seven / "test" / "ant" / "00.png"
    code, out, _ = alexnet("predict", tmp_path / "run", image, "--top", 2)
    assert code == 0 and out.splitlines()[0] == str(image) and len(out.splitlines()) == 3


def test_predictions_are_json_in_the_order_asked(trained: Path, seven: Path, alexnet: Callable[..., Said]) -> None:
    images = [str(seven / "test" / name / "00.png") for name in ("gnu", "ant")]
    code, out, _ = alexnet("predict", trained, *images, "--top", 3, "--json")
    assert code == 0
    result = json.loads(out)
    assert set(result) == {"predictions"}
    assert [entry["image"] for entry in result["predictions"]] == images
    for entry in result["predictions"]:
        assert set(entry) == {"image", "labels"}
        assert [set(label) for label in entry["labels"]] == [{"label", "probability"}] * 3
        probabilities = [label["probability"] for label in entry["labels"]]
        assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1


def test_an_image_whose_name_is_no_text_is_predicted(
    trained: Path, seven: Path, tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(seven / "test" / "ant" / "00.png", path)
    except OSError:
        pytest.skip("this file system takes only text as names")
    code, out, err = alexnet("predict", trained, path)
    assert (code, err) == (0, "") and "caf" in out


def test_ten_views_of_a_run_without_mirror_images_are_warned_of(
    trained: Path, tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    code, out, err = alexnet("evaluate", tmp_path / "run", "--views", 10, "--json")
    assert code == 0 and json.loads(out)["views"] == 10
    assert "warning: " in err and "--views 5" in err


def test_an_ensemble_is_measured_by_command(trained: Path, second: Path, alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("evaluate", trained, second, "--json")
    assert code == 0 and json.loads(out)["runs"] == [str(trained), str(second)]
    assert "2 models averaged" in alexnet("evaluate", trained, second)[1]


@pytest.mark.parametrize("preset", ["paper", "digits", "cifar-13"])
def test_summary_is_json_with_the_fields_promised(preset: str, alexnet: Callable[..., Said]) -> None:
    code, out, err = alexnet("summary", preset, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert {"preset", "layers", "total"} <= set(result) and result["preset"] == preset
    for layer in result["layers"]:
        assert {"name", "shape", "neurons", "weights", "connections"} <= set(layer)


def test_presets_are_a_table_or_a_difference(alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("presets", "--json")
    assert code == 0 and {entry["preset"] for entry in json.loads(out)["presets"]} >= set(presets.names())
    code, out, _ = alexnet("presets", "paper", "code-145", "caffe", "--json")
    result = json.loads(out)
    assert code == 0 and result["compared"] == ["paper", "code-145", "caffe"]
    assert {len(row["values"]) for row in result["differences"]} == {3}
    values = {(row["where"], row["field"]): row["values"] for row in result["differences"]}
    assert values["norm1", "divide"] == [False, True, True] and values["network", "image"] == [224, 224, 227]
    assert values["optimizer", "bias_lr"] == [1.0, 2.0, 2.0] and values["schedule", "milestones"][0] == []
    head = alexnet("presets", "paper", "code-145", "caffe")[1].splitlines()[0]
    assert head.split() == ["where", "what", "paper", "code-145", "caffe"]
    assert "paper, paper and paper do not differ" in alexnet("presets", "paper", "paper", "paper")[1]
    assert "code-145" in alexnet("presets")[1]
    assert "code-145" in alexnet("presets", "paper", "code-145")[1]


@pytest.mark.parametrize("command", ["presets", "summary"])
def test_a_recipe_without_layers_says_so(command: str, alexnet: Callable[..., Said]) -> None:
    code, _, err = alexnet(command, "fine-tune")
    assert code == 2 and "--init MODEL" in err and "alexnet config fine-tune" in err


def test_the_table_of_presets_has_a_line_for_each(alexnet: Callable[..., Said]) -> None:
    lines = alexnet("presets")[1].splitlines()
    assert [line.split()[0] for line in lines[2:]] == presets.names()


def test_a_preset_alone_is_summed_up_with_what_else_may_be_asked(alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("presets", "paper")
    assert code == 0 and out.startswith(alexnet("summary", "paper")[1].rstrip())
    assert "alexnet presets paper code-145: how they differ" in out.splitlines()[-1]
    assert json.loads(alexnet("presets", "digits", "--json")[1])["total"]["parameters"] == 198_922


def test_a_preset_beside_itself_without_an_idea(alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("presets", "paper", "--without", "lrn,columns", "--optimizer.lr", "0.02")
    assert code == 0
    assert "paper without lrn, columns --optimizer.lr 0.02" in out.splitlines()[0]
    assert "conv1 → relu1 → norm1 → pool1" in out and "conv1 → relu1 → pool1" in out
    code, out, _ = alexnet("presets", "paper", "--without", "lrn", "--without", "columns", "--json")
    assert {"network", "norm1", "norm2"} <= {row["where"] for row in json.loads(out)["differences"]}
    assert "paper and paper do not differ" in alexnet("presets", "paper", "paper")[1]


def test_a_network_without_an_idea_is_summed_up(alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("summary", "paper", "--without", "columns", "--network.conv1.kernels", "48", "--json")
    assert code == 0
    result = json.loads(out)
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert result["columns"] == 1 and layers["conv2"]["weights"] == 5 * 5 * 48 * 256
    assert "quoted" not in result and "Numbers people quote" not in alexnet("summary", "paper", "--without", "lrn")[1]
    assert "Numbers people quote" in alexnet("summary", "paper")[1]


def test_a_run_is_summed_up_and_its_settings_are_printed(
    trained: Path, alexnet: Callable[..., Said], wrong: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text(alexnet("config", trained)[1])
    for name in (trained, tmp_path / "run.toml", trained / "config.json"):
        code, out, _ = alexnet("summary", name, "--json")
        assert code == 0 and json.loads(out)["classes"] == 7 and json.loads(out)["name"] == str(name)
        assert alexnet("summary", name)[1].startswith(f"{name}: digits, 3×14×14 in, ")
    (tmp_path / "odd.toml").write_text("preset = ")
    (tmp_path / "net.safetensors").write_bytes(b"")
    assert wrong(2, "summary", tmp_path / "odd.toml").startswith(f"{tmp_path / 'odd.toml'}: ")
    assert "is not a file of settings" in wrong(2, "summary", tmp_path / "net.safetensors")
    assert "not a run directory" in wrong(2, "summary", tmp_path)
    code, out, _ = alexnet("config", trained)
    assert code == 0 and from_document(tomllib.loads(out)) == Run.open(trained).config
    code, out, _ = alexnet("config", trained, "--json")
    assert Config.from_dict(json.loads(out)) == Run.open(trained).config


@pytest.mark.parametrize("preset", presets.names())
def test_a_presets_file_is_printed(preset: str, alexnet: Callable[..., Said]) -> None:
    code, out, err = alexnet("config", preset)
    assert (code, err) == (0, "") and from_document(tomllib.loads(out)) == presets.preset(preset)


def test_a_file_and_flags_make_a_run_and_the_flags_win(
    seven: Path, tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(alexnet("config", "digits", "--without", "lrn", "--optimizer.lr", "0.25", "--train.seed", "7")[1])
    words = ("--data", seven, "--out", tmp_path / "run", *QUICK, "--train.steps", 1)
    code, _, err = alexnet("train", "--config", file, *words, "--optimizer.lr", "0.002", "--without", "dropout")
    assert code == 0, err
    config = Run.open(tmp_path / "run").config
    assert (config.optimizer.lr, config.train.seed, config.train.steps) == (0.002, 7, 1)
    assert not [layer.name for layer in config.network.layers if layer.name.startswith(("norm", "drop"))]
    code, _, err = alexnet("train", "--config", tmp_path / "run", "--out", tmp_path / "again")  # as that run
    assert code == 0, err
    assert Run.open(tmp_path / "again").config == config
    assert "leave --preset paper out" in alexnet("train", "--config", file, "--preset", "paper")[2]


def test_a_source_is_described_and_verified(seven: Path, alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("data", "info", seven, "--json")
    assert code == 0 and json.loads(out)["classes"] == 7
    code, out, _ = alexnet("data", "verify", seven, "--json")
    assert code == 0 and json.loads(out)["issues"] == []
    code, out, _ = alexnet("data", "info", seven)
    assert code == 0 and "train: 56 images, 8 per class; the largest class is 14.3 % of them" in out
    assert "files 16 pixels wide, 16 high" in out and "{" not in out
    assert alexnet("data", "verify", seven)[0] == 0


def test_a_store_is_prepared_and_trained_on(seven: Path, tmp_path: Path, alexnet: Callable[..., Said]) -> None:
    code, out, _ = alexnet("data", "prepare", seven, tmp_path / "store", "--size", 16, "--workers", 1, "--json")
    assert code == 0 and json.loads(out)["out"] == str(tmp_path / "store")
    code, out, err = alexnet("train", "--data", tmp_path / "store", "--out", tmp_path / "run", *QUICK, "--json")
    assert code == 0, err


@pytest.mark.slow
def test_a_torchvision_network_trains_by_the_same_commands(
    pictures: Callable[..., Path], tmp_path: Path, alexnet: Callable[..., Said]
) -> None:
    folder = pictures(tmp_path / "some", {"train": 4, "val": 1}, ("ant", "bee"), side=256)
    code, out, err = alexnet(
        "train",
        "--preset",
        "torchvision:squeezenet1_1",
        "--data",
        folder,
        "--out",
        tmp_path / "run",
        "--train.steps",
        2,
        "--train.batch_size",
        4,
        "--train.threads",
        1,
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["steps"] == 2
    code, out, err = alexnet("evaluate", tmp_path / "run", "--json")
    assert code == 0 and json.loads(out)["count"] == 2, err
    code, out, err = alexnet("summary", "torchvision:squeezenet1_1", "--json")
    assert code == 0 and json.loads(out)["layers"], err


def test_settings_reach_the_run_in_every_spelling(seven: Path, tmp_path: Path, alexnet: Callable[..., Said]) -> None:
    code, _, err = alexnet(
        "train",
        "--data",
        seven,
        "--out",
        tmp_path / "run",
        "--train.steps=1",
        "--optimizer.lr",
        "2e-3",
        "--seed",
        "5",
        "--precision",
        "bfloat16",
        "--augment.mirror",
        "yes",
        "--schedule.milestones",
        "3,7",
        "--device",
        "cpu",
        "--epochs=4",
    )
    assert code == 0, err
    config = Run.open(tmp_path / "run").config
    assert (config.train.steps, config.train.seed, config.train.precision) == (1, 5, "bfloat16")
    assert (config.optimizer.lr, config.augment.mirror, config.train.epochs) == (0.002, True, 4)
    assert (config.schedule.milestones, config.train.device) == ((3, 7), "cpu")


def test_runs_without_a_name_are_numbered(
    seven: Path, tmp_path: Path, alexnet: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "digits-2", "digits-3"):
        code, out, err = alexnet("train", "--data", seven, "--train.steps", 1, "--json")
        assert code == 0, err
        assert Path(json.loads(out)["run"]) == Path("runs") / name


# Help


@pytest.mark.parametrize(
    "words",
    [
        [],
        *[[command.name] for command in cli.COMMANDS],
        *[["data", action] for action in ("prepare", "verify", "info")],
    ],
    ids=" ".join,
)
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: alexnet") and err == ""


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "130 stopped by Ctrl-C or SIGUSR1, 143 by SIGTERM" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("short", SHORT)
def test_a_short_flag_takes_what_its_setting_takes(short: str) -> None:
    parser = cli.command_parser("train")
    (action,) = [action for action in cli._actions(parser) if f"--{short}" in action.option_strings]
    (setting,) = [entry for entry in fields(presets.preset("digits")) if entry.path == SHORT[short]]
    assert action.choices is None or tuple(action.choices) == tuple(setting.choices)


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_commands_say_the_same_of_a_checkpoint(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert CHECKPOINT_HELP in " ".join(capsys.readouterr().out.split())


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    said = " ".join(out.split())
    for command in cli.COMMANDS:
        assert f" {command.name} {command.about} " in said


def test_train_help_has_a_text_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for entry in fields(presets.preset("digits")):
        assert len(entry.about) > 8
        if entry.path.count(".") > 1:
            continue  # of a layer: `alexnet config` tells these
        assert entry.about in lines[f"--{entry.path}"]
        assert not entry.choices or all(choice in lines[f"--{entry.path}"] for choice in entry.choices)


def test_network_settings_are_explained_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert "--network.norm1 none removes a layer" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("alexnet ")


def imported(*statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", *statement], capture_output=True, text=True, check=True)
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "words",
    [
        None,
        "--help",
        "summary paper",
        "presets",
        "presets paper code-145",
        "presets paper --without lrn",
        "config paper",
        "completion bash",
        "train --help",
    ],
)
def test_light_commands_import_neither_torch_nor_numpy(words: str | None) -> None:
    code = (
        "import alexnet.cli"
        if words is None
        else (f"import sys, alexnet.cli\ntry: sys.exit(alexnet.cli.main({words.split()!r}))\nexcept SystemExit: pass")
    )
    found = imported("-c", code)
    assert "alexnet" in found
    assert not found & {"torch", "numpy", "sklearn", "matplotlib", "PIL", "pyarrow"}


def test_a_reader_that_leaves_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m alexnet presets paper digits | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_help_is_printed_where_only_ascii_is() -> None:
    words = [sys.executable, "-m", "alexnet", "train", "--help"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and b"\\u03c3 of the PCA colour noise" in done.stdout


# What goes in that is wrong


def test_an_unknown_command_is_told_with_the_nearest(wrong: Callable[..., str]) -> None:
    assert "did you mean train?" in wrong(2, "trian", "--data", "digits")
    assert "commands: train" in wrong(2, "zzz")
    wrong(2)


def test_an_unknown_preset_is_told_with_the_nearest(wrong: Callable[..., str], tmp_path: Path) -> None:
    assert "did you mean digits?" in wrong(2, "train", "--preset", "digit", "--out", tmp_path / "run")
    assert "did you mean paper?" in wrong(2, "summary", "papers")
    assert "did you mean caffe?" in wrong(2, "presets", "paper", "cafe")
    assert "did you mean paper?" in wrong(2, "presets", "papr")
    for verb in (("summary",), ("presets",), ("config",), ("train", "--preset")):
        assert "runs/nosuch: there is no such run or file of settings" in wrong(2, *verb, "runs/nosuch")
    assert "did you mean resnet18?" in wrong(
        2,
        "train",
        "--preset",
        "torchvision:resnet81",
        "--data",
        "digits",
        "--out",
        tmp_path / "run",
        "--data.size",
        "256",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--optimiser.lr", "0.1"), "did you mean optimizer.lr?"),
        (("--train.epoch", "3"), "did you mean train.epochs?"),
        (("--optimizer.lr", "fast"), "optimizer.lr 'fast' should be a number above 0"),
        (("--optimizer.lr", "-1"), "optimizer.lr '-1' should be a number above 0"),
        (("--optimizer.lr", "nan"), "optimizer.lr 'nan' should be a number above 0"),
        (("--epochs", "0"), "train.epochs '0' should be a whole number of at least 1"),
        (("--epochs", "many"), "train.epochs 'many' should be a whole number"),
        (("--data.center", "left"), "mean-image, imagenet or none"),
        (("--augment.crop", "maybe"), "true or false"),
        (("--optimizer.lr",), "--optimizer.lr needs a value"),
        (("digits",), "unexpected argument 'digits'"),
        (("--bogus", "3"), "unknown flag --bogus"),
        (("--foo", "3"), "unknown flag --foo; see `alexnet train --help`"),
        (("--data.size", "99999"), "of at least 1 and of at most 4096"),
        (("--data", "/dev/zero"), "/dev/zero: it is no folder of images, no tar and no Parquet file"),
        (("--lr", "3"), "unknown flag --lr; did you mean --optimizer.lr?"),
        (("--epoch=3",), "unknown flag --epoch; did you mean --epochs"),
        (("--network.conv1.kernels", "31"), "31 maps do not divide into 2 columns"),
        (("--network.conv1.kernel", "32"), "did you mean network.conv1.kernels?"),
        (("--network.fc5", "none"), "one unit per class"),
        (("--without", "lrm"), "did you mean lrn?"),
        (("--without", "conv5"), "does not apply to digits"),
        (("--config", "/nowhere.toml"), "/nowhere.toml: No such file"),
        (("--precision", "float8"), "float32"),
        (("--data.size", "8"), "at least the network's 14"),
        (("--device", "cuda:77"), "use cpu"),
        (("--device", "abacus"), "auto, cpu, cuda"),
        (("--data", "digit"), "did you mean digits?"),
        (("--data", "/nowhere/at/all"), "/nowhere/at/all: there is no such folder"),
    ],
)
def test_a_wrong_setting_is_told_and_leaves_nothing(
    words: tuple[str, ...], said: str, wrong: Callable[..., str], tmp_path: Path
) -> None:
    assert said in wrong(2, "train", "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_told(wrong: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty: there are no class folders" in wrong(
        2, "train", "--data", tmp_path / "empty", "--out", tmp_path / "run"
    )


def test_empty_class_folders_are_told(wrong: Callable[..., str], tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "some" / name).mkdir(parents=True)
    assert "class folders 'ant', 'bee' hold no pictures" in wrong(
        2, "train", "--data", tmp_path / "some", "--out", tmp_path / "run"
    )


def test_a_folder_with_one_class_is_told(
    pictures: Callable[..., Path], wrong: Callable[..., str], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"": 5}, ("ant",))
    assert "1 class (ant)" in wrong(2, "train", "--data", folder, "--out", tmp_path / "run")


def test_a_class_in_test_but_not_in_train_is_named(
    pictures: Callable[..., Path], wrong: Callable[..., str], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 3, "test": 2}, ("ant", "bee", "cat"))
    shutil.rmtree(folder / "train" / "bee")
    assert "class 'bee' is in test but not in train" in wrong(2, "train", "--data", folder, "--out", tmp_path / "run")


@pytest.mark.parametrize("content", ["text", "truncated JPEG"])
def test_one_bad_file_among_many_is_left_out_and_listed(
    content: str, pictures: Callable[..., Path], alexnet: Callable[..., Said], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 60, "val": 2}, ("ant", "bee"))
    bad = folder / "train" / "bee" / "zz.jpg"
    if content == "text":
        bad.write_text("these are notes")
    else:
        Image.effect_noise((64, 64), 90).convert("RGB").save(bad)
        bad.write_bytes(bad.read_bytes()[:300])
    code, _, err = alexnet("train", "--data", folder, "--out", tmp_path / "run", *QUICK)
    assert code == 0, err
    assert "1 of 121 training images cannot be read" in err and "zz.jpg" in err
    assert list(Run.open(tmp_path / "run").source["unreadable"]) == [os.path.join("train", "bee", "zz.jpg")]


def test_too_many_bad_files_stop_the_training(
    pictures: Callable[..., Path], alexnet: Callable[..., Said], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 10, "val": 2}, ("ant", "bee"))
    for i in range(21):
        (folder / "train" / "bee" / f"zz{i:02d}.jpg").write_text("these are notes")
    code, out, err = alexnet("train", "--data", folder, "--out", tmp_path / "run", *QUICK, "--json")
    assert code == 1 and set(json.loads(out)) == {"error"}
    assert "more than 1 %" in err.splitlines()[-1] and "zz00.jpg" in err.splitlines()[-1]


def test_a_source_of_nothing_but_bad_files_is_told(
    pictures: Callable[..., Path], alexnet: Callable[..., Said], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "some", {"train": 5, "val": 2}, ("ant", "bee"))
    for path in folder.glob("train/*/*"):
        path.write_text("these are notes")
    code, out, err = alexnet("train", "--data", folder, "--out", tmp_path / "run", *QUICK, "--json")
    assert code in (1, 2) and set(json.loads(out)) == {"error"}
    assert "no readable images" in err.splitlines()[-1] or "cannot be read" in err.splitlines()[-1]


def test_a_run_that_exists_is_refused_with_the_way_on(trained: Path, wrong: Callable[..., str], seven: Path) -> None:
    assert f"{trained} exists; go on with `--resume {trained}`" in wrong(2, "train", "--data", seven, "--out", trained)


def test_resume_takes_a_run_and_nothing_else(
    trained: Path, seven: Path, wrong: Callable[..., str], tmp_path: Path
) -> None:
    assert "not a run directory" in wrong(2, "train", "--resume", seven)
    assert "no such run directory" in wrong(2, "train", "--resume", tmp_path / "absent")
    assert "leave --preset out" in wrong(2, "train", "--resume", trained, "--preset", "paper")
    for words in (("--optimizer.lr", "1"), ("--train.seed", "1"), ("--train.batch_size", "4")):
        message = wrong(2, "train", "--resume", trained, *words)
        assert f"{words[0][2:]} cannot be changed in a run; begin another with `--init {trained}`" in message
    assert "--without cannot be changed" in wrong(2, "train", "--resume", trained, "--without", "lrn")


def test_a_broken_config_is_told(trained: Path, wrong: Callable[..., str], tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for text in ("{", "[]", '{"preset": "digits"}'):
        (tmp_path / "run" / "config.json").write_text(text)
        for words in (("train", "--resume"), ("evaluate",), ("report",)):
            assert "config.json cannot be read" in wrong(2, *words, tmp_path / "run")


def test_a_truncated_checkpoint_is_told(trained: Path, wrong: Callable[..., str], tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for name in ("last", "previous", "best"):
        path = tmp_path / "run" / "checkpoints" / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
    assert "last.safetensors" in wrong(2, "train", "--resume", tmp_path / "run")
    assert "best.safetensors" in wrong(2, "evaluate", tmp_path / "run")


def test_a_checkpoint_of_another_network_is_told(trained: Path, wrong: Callable[..., str], tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    for layer in config["network"]["layers"]:
        if layer["name"] == "conv1":
            layer["kernels"] = 48
    path.write_text(json.dumps(config))
    for words in (("train", "--resume"), ("evaluate",)):
        assert "is of another network: conv1" in wrong(2, *words, tmp_path / "run")


def test_a_run_that_has_not_saved_yet_is_told(
    trained: Path, seven: Path, alexnet: Callable[..., Said], wrong: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("config.json", "source.json", "statistics.npz"):
        shutil.copy(trained / name, tmp_path / name)
    image = seven / "test" / "ant" / "00.png"
    assert "has not saved yet" in wrong(2, "evaluate", tmp_path)
    assert "has not saved yet" in wrong(2, "predict", tmp_path, image)
    assert alexnet("report", tmp_path)[0] == 2


def test_what_predict_cannot_read_is_named(
    trained: Path, seven: Path, alexnet: Callable[..., Said], wrong: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("these are notes")
    image = seven / "test" / "ant" / "00.png"
    code, out, err = alexnet("predict", trained, image, tmp_path / "notes.jpg", tmp_path / "absent.jpg", "--json")
    result = json.loads(out)
    assert (code, [entry["image"] for entry in result["predictions"]]) == (1, [str(image)])
    assert [Path(entry["image"]).name for entry in result["unreadable"]] == ["notes.jpg", "absent.jpg"]
    assert "notes.jpg: " in err and "absent.jpg: the file cannot be read: No such file" in err
    (tmp_path / "empty").mkdir()
    assert "no picture in the folder" in wrong(2, "predict", trained, tmp_path / "empty")
    assert "IMAGE" in wrong(2, "predict", trained)


def test_what_evaluate_cannot_do_is_told(
    trained: Path,
    seven: Path,
    short: Callable[..., Any],
    pictures: Callable[..., Path],
    wrong: Callable[..., str],
    tmp_path: Path,
) -> None:
    from alexnet.training.loop import train

    other = pictures(tmp_path / "other", {"": 6}, ("ant", "bee"))
    train(short(other, train__steps="1"), tmp_path / "run")
    assert "--views: 3 should be 1, 5 or 10" in wrong(2, "evaluate", trained, "--views", "3")
    assert "has other classes" in wrong(2, "evaluate", trained, tmp_path / "run")
    assert "has no test split" in wrong(2, "evaluate", tmp_path / "run", "--split", "test")
    assert "should be train, val or test" in wrong(2, "evaluate", trained, "--split", "validation")
    assert "no such folder" in wrong(2, "evaluate", trained, "--data", tmp_path / "absent")
    assert "not a run directory" in wrong(2, "evaluate", seven)
    assert "there are" in wrong(2, "evaluate", trained, "--device", "cuda:77")
    assert "MODEL" in wrong(2, "evaluate")


def test_other_commands_tell_wrong_requests_too(wrong: Callable[..., str], tmp_path: Path) -> None:
    assert "with one preset (what that changes)" in wrong(2, "presets", "--without", "lrn")
    assert "with one preset (what that changes)" in wrong(2, "presets", "paper", "caffe", "--without", "lrn")
    assert "PRESET" in wrong(2, "summary")
    assert "at least 2" in wrong(2, "summary", "paper", "--classes", "1")
    assert "no such run directory" in wrong(2, "report", tmp_path / "absent")
    assert "no such folder" in wrong(2, "data", "info", tmp_path / "absent")
    assert "no such folder" in wrong(2, "data", "verify", tmp_path / "absent")
    assert "no such folder" in wrong(2, "data", "prepare", tmp_path / "absent", tmp_path / "store")
    assert "ACTION" in wrong(2, "data")
    assert wrong(2, "summary", "paper", "--top", "3") == "unknown flag --top; see `alexnet summary --help`"
    assert wrong(2, "evaluate", "run", "--view", "10") == "unknown flag --view; did you mean --views?"
    assert "unknown flag --codecs; did you mean --codec?" in wrong(2, "data", "prepare", "a", "b", "--codecs", "raw")
    assert "unknown flag --optimizer.lr" in wrong(2, "evaluate", "run", "--optimizer.lr", "3")
    assert "unknown flag --verson; did you mean --version?" in wrong(2, "--verson")


def test_a_loss_that_is_not_finite_ends_with_the_step(
    seven: Path, alexnet: Callable[..., Said], tmp_path: Path
) -> None:
    code, out, err = alexnet(
        "train", "--data", seven, "--out", tmp_path / "run", *QUICK, "--optimizer.lr", "1e6", "--json"
    )
    assert code == 1 and set(json.loads(out)) == {"error"}
    assert "at step " in err.splitlines()[-1] and "lower --optimizer.lr" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_too_little_memory_is_told(
    seven: Path, alexnet: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")

    monkeypatch.setattr("alexnet.training.loop.build", fail)
    code, out, err = alexnet("train", "--data", seven, "--out", tmp_path / "run", "--json")
    assert code == 1 and set(json.loads(out)) == {"error"}
    assert "out of memory; try a smaller --train.batch_size" in err.splitlines()[-1] and "Traceback" not in err


def test_an_evaluation_that_cannot_be_kept_is_still_told(
    trained: Path, alexnet: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "evaluations.jsonl.new")

    monkeypatch.setattr(Run, "record_evaluation", refuse)
    code, out, err = alexnet("evaluate", trained, "--json")
    assert code == 0 and json.loads(out)["count"] == 28
    assert "the result is not kept in the run: evaluations.jsonl.new: Permission denied" in err


def test_a_bug_is_told_in_one_line_and_its_traceback_kept(
    alexnet: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("shapes (2, 3) and\n(4, 5) do not match")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("alexnet.commands.frame.named_config", fail)
    monkeypatch.setattr("alexnet.commands.summary.named_config", fail)
    code, out, err = alexnet("summary", "paper", "--json")
    assert code == 1 and err.count("\n") == 1
    assert err.startswith("alexnet: bug: ValueError: shapes (2, 3) and (4, 5) do not match; the traceback is in ")
    kept = Path(err.strip().rpartition("the traceback is in ")[2])
    assert kept.is_relative_to(tmp_path / "alexnet" / "bugs")
    assert (
        "alexnet summary paper --json" in kept.read_text() and "Traceback (most recent call last)" in kept.read_text()
    )
    assert json.loads(out)["error"].startswith("bug: ValueError")
    assert "Traceback (most recent call last)" in alexnet("summary", "paper", "--debug")[2]
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert "--debug" in alexnet("summary", "paper")[2]


def test_an_action_of_data_takes_debug_too(alexnet: Callable[..., Said], tmp_path: Path) -> None:
    code, _, err = alexnet("data", "info", tmp_path / "absent", "--debug")
    assert code == 2 and "Traceback" in err and "no such folder" in err.splitlines()[-1]


def test_a_warning_is_one_line_without_a_place_in_the_code(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    os.truncate(tmp_path / "run" / "checkpoints" / "last.safetensors", 1000)
    words = ("export", tmp_path / "run", "--checkpoint", "last", "--format", "safetensors", "--out", tmp_path / "net")
    done = subprocess.run([sys.executable, "-m", "alexnet", *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"warning: {tmp_path}/run/checkpoints/last.safetensors is damaged")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("flag", ["--json", "--debug"])
def test_a_full_disk_below_stdout_is_told_in_one_line(flag: str) -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "alexnet", "presets", flag]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "alexnet: No space left on device"


def test_a_folder_where_a_file_should_be_is_named(trained: Path, alexnet: Callable[..., Said], tmp_path: Path) -> None:
    said = alexnet("export", trained, "--format", "safetensors", "--out", tmp_path)
    assert said == (1, "", f"alexnet: {tmp_path}: Is a directory\n")


PLANTED = {
    "train": ("alexnet.training.loop.build", ("train", "--preset", "digits", "--out", "{out}")),
    "evaluate": ("alexnet.inference.evaluate.measure_split", ("evaluate", "{run}")),
    "predict": ("alexnet.inference.network.NetworkPredictor.probabilities", ("predict", "{run}", "{image}")),
    "summary": ("alexnet.commands.summary.named_config", ("summary", "paper")),
    "presets": ("alexnet.comparison.difference", ("presets", "paper", "digits")),
    "config": ("alexnet.config_file.to_toml", ("config", "paper")),
    "data": ("alexnet.data.store.info.info", ("data", "info", "{data}")),
    "report": ("alexnet.report.report.write_report", ("report", "{run}")),
    "export": (
        "alexnet.formats.export.export",
        ("export", "{run}", "--format", "safetensors", "--out", "{out}.safetensors"),
    ),
    "doctor": ("alexnet.commands.doctor.missing", ("doctor",)),
    "completion": ("alexnet.commands.completion.bash", ("completion", "bash")),
}


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, AttributeError])
@pytest.mark.parametrize("command", PLANTED)
def test_a_bug_in_any_command_is_one_line_and_a_kept_traceback(
    command: str,
    kind: type[Exception],
    alexnet: Callable[..., Said],
    trained: Path,
    seven: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("planted")

    place, words = PLANTED[command]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(place, fail)
    image = next((seven / "test").rglob("*.png"))
    places = {"out": tmp_path / "out", "run": trained, "image": image, "data": seven}
    code, _, err = alexnet(*(word.format(**places) for word in words))
    assert code == 1 and err.startswith(f"alexnet: bug: {kind.__name__}: ") and err.count("\n") == 1, err
    (kept,) = (tmp_path / "cache" / "alexnet" / "bugs").iterdir()
    assert "planted" in kept.read_text() and "Traceback (most recent call last)" in kept.read_text()


def test_a_wrong_request_with_debug_shows_where_it_was_refused(alexnet: Callable[..., Said]) -> None:
    code, _, err = alexnet("summary", "papers", "--debug")
    assert code == 2 and "Traceback" in err and "did you mean paper?" in err.splitlines()[-1]


def assert_same_weights(out: Path, reference: Path) -> None:
    """The last checkpoints of two runs have the same weights and velocities, to the bit."""
    ours, theirs = (load_file(path / "checkpoints" / "last.safetensors") for path in (out, reference))
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "full_at", [100, 1000, 3000, 4000, 100_000, "checkpoints/last.safetensors", "checkpoints/best.safetensors"]
)
def test_a_full_disk_is_told_and_the_run_goes_on_after_it(
    full_at: int | str, seven: Path, trained: Path, alexnet: Callable[..., Said], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = ("--data", seven, "--out", out, *QUICK, "--train.log_every", "3", "--optimizer.lr", "0.003")
    with largest_file(full_at if isinstance(full_at, int) else (trained / full_at).stat().st_size - 1):
        code, said, err = alexnet("train", *settings, "--json")
    assert code == 1 and set(json.loads(said)) == {"error"}
    assert f"{out}: File too large" in err.splitlines()[-1] and "Traceback" not in err
    again = ("train", "--resume", out) if f"--resume {out}" in err else ("train", *settings)
    code, _, err = alexnet(*again)
    assert code == 0, err
    assert_same_weights(out, trained)


# Stopping


def started(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "alexnet", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(seven: Path, alexnet: Callable[..., Said], tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = (
        "--data",
        seven,
        "--train.log_every",
        "1",
        "--train.threads",
        "1",
        "--train.batch_size",
        "8",
        "--epochs",
        "20",
    )
    process = started("train", *settings, "--out", out, "--json")
    wait_for(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert f"alexnet train --resume {out}" in err.splitlines()[-1] and "Traceback" not in err
    assert f"alexnet train --resume {out}" in json.loads(said)["error"]
    assert (out / "checkpoints" / "last.safetensors").is_file()
    assert alexnet("train", "--resume", out)[0] == 0
    assert alexnet("train", *settings, "--out", tmp_path / "whole")[0] == 0
    assert_same_weights(out, tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_command_is_resumed_by_command(alexnet: Callable[..., Said], tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--preset", "digits", *QUICK, "--train.save_every", "0")
    process = started("train", *settings, "--out", out)
    wait_for(out / "checkpoints" / "last.safetensors", process)
    time.sleep(0.05)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    code, said, err = alexnet("train", "--resume", out, "--json")
    assert code == 0, err
    assert json.loads(said)["epochs"] == 2
    assert alexnet("train", *settings, "--out", tmp_path / "whole")[0] == 0
    assert_same_weights(out, tmp_path / "whole")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGUSR1, 130), (signal.SIGTERM, 143)])
def test_a_stop_before_the_run_began_promises_nothing(
    number: int, expected: int, alexnet: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet.training import loop

    def stop(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(loop, "open_run_data", stop)
    code, _, err = alexnet("train", "--out", tmp_path / "run")
    assert code == expected and "--resume" not in err and err.count("\n") == 1


def test_resuming_a_finished_run_is_done_at_once(trained: Path, alexnet: Callable[..., Said], tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    code, out, _ = alexnet("train", "--resume", tmp_path / "run", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 2
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
