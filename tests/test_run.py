"""A run directory is opened, refused and read in one clear line, and never found half written."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet import presets
from alexnet.config import Config
from alexnet.environment import commit, environment
from alexnet.errors import RunError
from alexnet.files import write_json, write_json_lines
from alexnet.run import Run

CONFIG = presets.preset("digits")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_new_run_holds_its_config_and_environment(tmp_path: Path) -> None:
    Run.create(tmp_path / "a" / "run", CONFIG, ["alexnet", "train"])
    run = Run.open(tmp_path / "a" / "run")
    assert run.config == CONFIG
    assert run.environment["command"] == ["alexnet", "train"]
    assert run.checkpoints.is_dir()


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_survives_the_config_file(name: str, tmp_path: Path) -> None:
    config = presets.preset(name)
    Run.create(tmp_path / "run", config)
    assert Run.open(tmp_path / "run").config == config


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert Run.create(tmp_path, CONFIG).config == CONFIG


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    (run.checkpoints / "last.safetensors").write_bytes(b"")
    with pytest.raises(RunError) as error:
        Run.create(tmp_path / "run", presets.preset("paper"))
    assert f"--resume {tmp_path / 'run'}" in one_line(error)
    assert Run.open(tmp_path / "run").config == CONFIG


def test_a_folder_of_other_things_is_not_written_into_nor_offered_for_resume(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError) as error:
        Run.create(tmp_path, CONFIG)
    assert "--resume" not in one_line(error)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="is a file"):
        Run.create(tmp_path / "run", CONFIG)


@pytest.mark.parametrize("at", range(2))
def test_a_run_killed_while_it_is_made_can_be_made_again(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    real, count = os.replace, iter(range(9))

    def replace(*args: Any) -> None:
        if next(count) == at:
            raise KilledError
        real(*args)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KilledError):
        Run.create(tmp_path / "run", CONFIG)
    monkeypatch.undo()
    assert Run.create(tmp_path / "run", CONFIG).config == CONFIG


def test_a_run_without_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG, source={"source": "digits"})
    for name in ("statistics.npz", "init.json", "metrics.jsonl", "source.json.3f.part"):
        (run.path / name).write_text("")
    (run.checkpoints / "last.safetensors.part").write_text("")
    again = Run.create(tmp_path / "run", presets.preset("paper"))
    assert again.config == presets.preset("paper")
    assert not (run.path / "metrics.jsonl").exists() and not (run.path / "source.json").exists()


@pytest.mark.parametrize("name", ["notes.txt", "evaluations.jsonl", "checkpoints/best.safetensors", "report.html"])
def test_a_run_that_holds_anything_of_value_is_not_begun_anew(name: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    (run.path / name).write_text("precious")
    with pytest.raises(RunError, match="--resume"):
        Run.create(tmp_path / "run", CONFIG)
    assert (run.path / name).read_text() == "precious" and run.config == CONFIG


def test_a_config_of_another_program_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match="exists and is not a run"):
        Run.create(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == "{}"


def test_a_run_that_another_process_holds_is_not_begun_anew(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    with run.held(), pytest.raises(RunError, match="is being trained by another process"):
        Run.create(tmp_path / "run", CONFIG)


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", ".lock", "checkpoints", "checkpoints/last.safetensors"]
)
def test_links_pipes_and_folders_are_no_files_of_a_run(name: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    run.metrics_file.write_text("")
    (run.checkpoints / "last.safetensors").write_text("")
    place, kept = run.path / name, tmp_path / "kept"
    place.rename(kept)
    other = "a file" if kept.is_dir() else None
    makes = [
        lambda: place.symlink_to(kept),
        lambda: os.mkfifo(place),
        lambda: place.write_text("") if other else place.mkdir(),
    ]
    for make in makes:
        make()
        with pytest.raises(RunError, match="should be a plain f"):
            Run.open(run.path)
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        Run.open(tmp_path / "nowhere")
    assert "nowhere: there is no such run directory" in one_line(error)


def test_a_folder_without_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run directory: it has no config\.json"):
        Run.open(tmp_path)


def broken(edit: Callable[[dict[str, Any]], Any]) -> str:
    value = CONFIG.to_dict()
    made = edit(value)
    return json.dumps(value if made is None else made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        broken(lambda config: config.pop("preset") and None),
        broken(lambda config: config.pop("network") and None),
        broken(lambda config: config["train"].update(epoch=3)),
        broken(lambda config: config["train"].update(epochs="3")),
        broken(lambda config: config["train"].update(epochs=0)),
        broken(lambda config: config.update(train=3)),
        broken(lambda config: config.update(network=3)),
        broken(lambda config: config["network"].update(layers=3)),
        broken(lambda config: config["network"].update(layers=[3])),
        broken(lambda config: config["network"].update(about=3)),
        broken(lambda config: config["network"]["layers"][0].update(layer=[])),
        broken(lambda config: config["network"]["layers"][0].update(name={})),
        "[" * 100_000,
    ],
)
def test_a_broken_config_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError) as error:
        _ = Run.open(tmp_path).config
    assert f"{tmp_path / 'config.json'} cannot be read: " in one_line(error)


def test_a_config_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(RunError, match="cannot be read"):
        _ = Run.open(tmp_path).config


@pytest.mark.parametrize("name", ["source", "environment"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_missing_or_broken_file_is_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    Run.create(tmp_path / "run", CONFIG)
    path = tmp_path / "run" / f"{name}.json"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError) as error:
        getattr(Run.open(tmp_path / "run"), name)
    assert f"{name}.json" in one_line(error)


TRAIN = {"kind": "train", "epoch": 1, "step": 1, "lr": 0.1, "images_per_second": 9.0}
EPOCH = {"kind": "epoch", "epoch": 1, "step": 2, "lr": 0.1, "seconds": 1.0}
MEASURED = {"top1_error": 9.0, "top5_error": None, "loss": 0.5, "count": 28}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3", "line 2 is not an object"),
        ("[]", "line 2 is not an object"),
        ("{}", "line 2 is not an object with kind, epoch, step"),
        ('{"kind": "train"}', "line 2 is not an object with kind, epoch, step"),
        ('{"kind": "trian", "epoch": 1, "step": 1}', "line 2.kind 'trian' should be train, epoch, validation"),
        (json.dumps(TRAIN | {"kind": []}), "line 2.kind [] should be"),
        (json.dumps(TRAIN | {"epoch": -1}), "line 2.epoch -1"),
        (json.dumps(TRAIN | {"lr": "0.1"}), "line 2.lr '0.1'"),
        (json.dumps(TRAIN | {"top1_error": [3]}), "line 2.top1_error [3]"),
        (json.dumps(EPOCH | {"seconds": float("nan")}), "line 2: NaN"),
        (json.dumps(EPOCH | {"seconds": 1e200}), "line 2.seconds 1e+200"),
        ('{"kind": "epoch", "kind": "train"}', "line 2: 'kind' is there twice"),
        ('{"kind": ' + "[" * 50_000, "line 2: it is nested too deep"),
        ("x" * 100_000, "line 2: it is longer than 65536 bytes"),
        (json.dumps(TRAIN | {f"top{i}": 1 for i in range(30)}), "line 2 has 35 fields, more than 32"),
    ],
)
def test_lines_that_are_no_metrics_are_named_by_number(line: str, message: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text(f"{json.dumps(TRAIN)}\n{line}\n")
    with pytest.raises(RunError) as error:
        run.metrics()
    assert "metrics.jsonl" in one_line(error) and message in one_line(error)


def test_a_bug_in_reading_settings_is_not_told_as_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: object) -> Config:
        raise TypeError("a bug")

    run = Run.create(tmp_path / "run", CONFIG)
    monkeypatch.setattr(Config, "from_dict", fail)
    with pytest.raises(TypeError):
        _ = Run.open(run.path).config


def test_metrics_are_read_by_kind_and_are_none_before_the_first(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.metrics() == []
    write_json_lines(run.metrics_file, [TRAIN, EPOCH])
    assert [line["step"] for line in run.metrics()] == [1, 2]
    assert run.metrics("epoch") == [EPOCH]


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text(json.dumps(TRAIN) + '\n{"kind": "tr')
    assert run.metrics() == [TRAIN]


def test_metrics_of_a_long_run_are_read_a_line_at_a_time(tmp_path: Path) -> None:
    run = Run(tmp_path)
    line = json.dumps(TRAIN).encode().ljust(65_000) + b"\n"
    with run.metrics_file.open("wb") as file:
        file.writelines(line for _ in range(1100))
    assert run.metrics_file.stat().st_size > 64 << 20
    tracemalloc.start()
    try:
        assert sum(1 for _ in run.read_metrics()) == 1100
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert len(list(run.read_metrics(2 * len(line)))) == 2
    assert len(list(run.read_metrics(2 * len(line) - 1))) == 1


@pytest.mark.parametrize(
    ("length", "message"),
    [(1 << 30, "line 1: it is longer than 65536 bytes"), ((1 << 30) + 1, "more than the limit of 1073741824")],
)
def test_a_file_of_metrics_without_end_is_refused_at_once(length: int, message: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.metrics_file.open("wb") as file:
        file.truncate(length)  # a hole, which takes no room
    with pytest.raises(RunError) as error:
        run.metrics()
    assert message in one_line(error)


def test_epochs_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr("alexnet.run.MAX_EPOCHS", 3)
    write_json_lines(run.metrics_file, [TRAIN, EPOCH] * 3 + [TRAIN])
    assert len(run.metrics("epoch")) == 3
    write_json_lines(run.metrics_file, [TRAIN, EPOCH] * 4)
    with pytest.raises(RunError, match=r"line 8 is of an epoch, of which it has more than 3 lines"):
        run.metrics()


def test_broken_metrics_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text('{"kind": "tr\n{"kind": "train", "step": 1}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        run.metrics()


def test_an_evaluation_takes_the_place_of_an_earlier_one_of_its_kind(tmp_path: Path) -> None:
    run = Run(tmp_path)
    model = {"checkpoint": "best", "backend": "torch", "precision": "float32", "sha256": "0a"}
    first = {"data": "digits", "split": "test", "views": 1, **MEASURED, "models": [model]}
    ten = {**first, "views": 10}
    for result in (first, ten, {**first, "top1_error": 8.0}):
        run.record_evaluation(result)
    assert [(entry["views"], entry["top1_error"]) for entry in run.evaluations()] == [(10, 9.0), (1, 8.0)]


@pytest.mark.parametrize(
    "change", [{"checkpoint": "last"}, {"backend": "engine"}, {"precision": "int8"}, {"sha256": "0b"}]
)
def test_evaluations_of_other_weights_or_backends_stay(change: dict[str, str], tmp_path: Path) -> None:
    run = Run(tmp_path)
    model = {"checkpoint": "best", "backend": "torch", "precision": "float32", "sha256": "0a"}
    first = {"data": "digits", "split": "test", "views": 1, **MEASURED, "models": [model]}
    second = {**first, "models": [model | change]}
    for result in (first, second, first):
        run.record_evaluation(result)
    assert run.evaluations() == [second, first]


def test_json_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_the_environment_has_what_a_record_needs() -> None:
    found = environment(["alexnet"])
    assert set(found) == {"versions", "hardware", "platform", "commit", "command"}
    assert {"python", "alexnet", "torch", "torchvision", "numpy"} <= set(found["versions"])
    assert all(found["versions"].values())
    assert found["hardware"]["cores"] == os.cpu_count() and found["hardware"]["cpu"]
    json.dumps(found)


def test_no_commit_is_told_where_git_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_the_config_of_a_trained_run_knows_its_classes(trained: Path) -> None:
    run = Run.open(trained)
    config: Config = run.config
    assert config.network.classes == len(run.classes) == 7
    assert run.source["splits"] == {"train": 56, "val": 21, "test": 28}


def test_a_run_is_held_by_one_process(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG)
    with run.held(), pytest.raises(RunError, match="is being trained by another process"), Run(run.path).held():
        pass
    with Run(run.path).held():
        pass


def test_a_file_is_no_run_and_is_not_offered_as_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", Path(os.devnull)):
        with pytest.raises(RunError) as error:
            Run.open(path)
        assert one_line(error) == f"{path} is not a run directory: it is not a folder"


def test_a_change_of_no_setting_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", presets.preset("digits"), ["alexnet", "train"])
    change = {"epoch": 1, "step": 3, "exact": True, "settings": {}}
    (run.path / "environment.json").write_text(json.dumps(run.environment | {"changes": [change]}))
    with pytest.raises(RunError, match=r"environment\.json: changes\.settings should name what was changed"):
        _ = Run(run.path).environment
