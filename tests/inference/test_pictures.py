"""Pictures named on the command line, and the tables of their predictions."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexnet.cli import main
from alexnet.errors import UsageError
from alexnet.inference.load import load
from alexnet.inference.pictures import find_pictures, predict_pictures


@pytest.fixture
def folder(seven: Path, tmp_path: Path) -> Path:
    """Two pictures, one of them below, a note, and a hidden file."""
    shutil.copy(seven / "test" / "ant" / "00.png", tmp_path / "b.png")
    (tmp_path / "below").mkdir()
    shutil.copy(seven / "test" / "bee" / "00.png", tmp_path / "below" / "a.jpg")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / ".hidden.png").write_text("hidden")
    return tmp_path


def test_folders_and_patterns_are_their_pictures(folder: Path) -> None:
    b, a = str(folder / "b.png"), str(folder / "below" / "a.jpg")
    assert find_pictures([str(folder)]) == [b, a]
    assert find_pictures([str(folder / "*.png"), b]) == [b, b]
    assert find_pictures([str(folder / "**" / "*.jpg"), "-", "absent.png"]) == [a, "-", "absent.png"]
    assert find_pictures([str(folder / "bel*")]) == [a]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(folder: Path) -> None:
    odd = folder / "[b].png"
    shutil.copy(folder / "b.png", odd)
    assert find_pictures([str(odd)]) == [str(odd)]


def test_a_folder_or_pattern_without_pictures_is_told(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no picture in the folder .*empty"):
        find_pictures([str(folder / "empty")])
    with pytest.raises(UsageError, match=r"no file matches .*\*\.gif"):
        find_pictures([str(folder / "*.gif")])


def test_good_pictures_are_answered_and_others_named_in_order(trained: Path, seven: Path, tmp_path: Path) -> None:
    net = load(trained)
    net.batch_size = 3
    good = sorted(str(path) for path in (seven / "test").glob("*/0[01].png"))
    (tmp_path / "odd.png").write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(1 << 30)
    bad = [str(tmp_path / name) for name in ("odd.png", "pipe.png", "huge.png", "absent.png")]
    bad += ["/dev/zero", str(tmp_path)]
    names = [*bad[:2], *good[:5], *bad[2:], *good[5:]]
    answers = list(predict_pictures(net, names, top=2, views=5))
    assert [answer.image for answer in answers] == names
    assert [answer.image for answer in answers if answer.reason] == bad
    for answer in answers:
        if answer.image in good:
            assert answer.prediction and answer.prediction.labels == net.predict(answer.image, 2, 5)[0].labels
        else:
            assert answer.prediction is None and answer.image not in answer.reason


Said = tuple[int, str, str]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`command("predict", …)`: exit code, standard output and standard error."""

    def call(*words: object) -> Said:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_folder_is_predicted_by_command(trained: Path, folder: Path, command: Callable[..., Said]) -> None:
    code, out, err = command("predict", trained, folder, "--top", 1, "--json")
    assert (code, err) == (0, "")
    assert [entry["image"] for entry in json.loads(out)["predictions"]] == find_pictures([str(folder)])


def test_unreadable_pictures_are_named_and_the_others_printed(
    trained: Path, folder: Path, command: Callable[..., Said]
) -> None:
    (folder / "a.png").write_bytes(b"no image")
    code, out, err = command("predict", trained, folder, "--top", 1)
    assert code == 1 and "b.png" in out and "a.jpg" in out and "a.png" not in out
    assert err.count("\n") == 1 and err.startswith(f"warning: {folder / 'a.png'}: ")
    code, out, _ = command("predict", trained, folder, "--json")
    result = json.loads(out)
    assert code == 1 and len(result["predictions"]) == 2
    assert [entry["image"] for entry in result["unreadable"]] == [str(folder / "a.png")]


def test_names_of_any_bytes_are_said_in_one_printable_line(
    trained: Path, folder: Path, command: Callable[..., Said]
) -> None:
    odd = "a\nb\x1b[31m" + os.fsdecode(b"\xe9")
    shutil.copy(folder / "b.png", folder / f"{odd}.png")
    (folder / f"{odd}.jpg").write_bytes(b"no image")
    code, out, err = command("predict", trained, folder, "--top", 1)
    assert code == 1 and len(out.splitlines()) == 6 and len(err.splitlines()) == 1
    assert (out + err).replace("\n", "").isprintable()
    assert err.count(".jpg") == 1
    result = json.loads(command("predict", trained, folder, "--json")[1])
    assert str(folder / f"{odd}.png") in [entry["image"] for entry in result["predictions"]]
    assert [entry["image"] for entry in result["unreadable"]] == [str(folder / f"{odd}.jpg")]


def test_a_picture_of_a_format_that_is_not_read_is_named_with_what_to_do(
    trained: Path, folder: Path, command: Callable[..., Said]
) -> None:
    (folder / "c.heic").write_bytes(b"\0\0\0\x24ftypheic" + bytes(99))
    code, out, err = command("predict", trained, folder)
    assert code == 1 and "b.png" in out and "c.heic: it is a HEIC; convert it to JPEG or PNG" in err


def test_a_picture_comes_from_standard_input(
    trained: Path, folder: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (folder / "b.png").read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    code, out, _ = command("predict", trained, "-", folder / "b.png", "--json")
    piped, named = json.loads(out)["predictions"]
    assert code == 0 and piped["image"] == "-"
    assert [label["label"] for label in piped["labels"]] == [label["label"] for label in named["labels"]]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO()))
    code, _, err = command("predict", trained, "-")
    assert code == 1 and "-: the file is empty" in err
    monkeypatch.setattr("sys.stdin", None)  # closed
    assert command("predict", trained, "-") == (1, "", "warning: -: the file is empty\n")


def test_predictions_are_written_as_a_table(trained: Path, folder: Path, command: Callable[..., Said]) -> None:
    shutil.copy(folder / "b.png", folder / os.fsdecode(b"caf\xe9, one.png"))
    (folder / "odd.png").write_bytes(b"no image")
    out = folder.parent / f"{folder.name}.csv"
    code, said, _ = command("predict", trained, folder, "--top", 2, "--out", out)
    assert code == 1 and said == f"3 predictions written to {out}\n"
    with open(out, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "rank", "label", "probability", "words", "reason"]
    (odd,) = [row for row in rows if row["reason"]]
    assert odd["image"] == str(folder / "odd.png") and odd["rank"] == odd["label"] == ""
    rows.remove(odd)
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    net = load(trained)
    for row in rows[::2]:
        assert row["label"] == net.predict(row["image"])[0].labels[0]
    lines_out = out.with_suffix(".jsonl")
    command("predict", trained, folder, "--top", 2, "--out", lines_out)
    lines = [json.loads(line) for line in lines_out.read_text().splitlines()]
    assert len(lines) == 4 and [set(line) for line in lines].count({"image", "reason"}) == 1
    assert [line["labels"][0]["label"] for line in lines if "labels" in line] == [row["label"] for row in rows[::2]]


def test_a_table_that_cannot_be_written_is_told_before_anything_is_read(
    trained: Path, folder: Path, command: Callable[..., Said]
) -> None:
    code, said, err = command("predict", folder / "absent", folder, "--out", folder / "table.xlsx")
    assert (code, said) == (2, "") and "should end in .csv or .jsonl" in err and err.count("\n") == 1


def test_folders_that_are_missing_are_made_for_every_file_that_is_written(
    trained: Path, folder: Path, command: Callable[..., Said], tmp_path: Path
) -> None:
    places = {
        "a.csv": ("predict", trained, folder / "b.png", "--out"),
        "net.safetensors": ("export", trained, "--format", "safetensors", "--out"),
        "sheet.png": ("data", "info", "digits", "--contact-sheet"),
    }
    for name, words in places.items():
        out = tmp_path / "new" / name.partition(".")[0] / name
        assert command(*words, out)[0] == 0
        assert out.is_file()


def test_every_wrong_request_is_one_line(trained: Path, folder: Path, command: Callable[..., Said]) -> None:
    picture = folder / "b.png"
    requests = {
        "top 0 should be at least 1": ("predict", trained, picture, "--top", 0),
        "no file matches": ("predict", trained, folder / "*.gif"),
        "best or last": ("predict", trained, picture, "--checkpoint", "first"),
        "torch does not compute int8": ("predict", trained, picture, "--backend", "torch", "--precision", "int8"),
        "there are 0 CUDA devices": ("predict", trained, picture, "--device", "cuda:77"),
        "numbers, one per model": ("evaluate", trained, "--weights", "a,b"),
        "2 weights are given for 1 models": ("evaluate", trained, "--weights", "1,2"),
        "torchvision has no classifier": ("evaluate", "torchvision:alexnot"),
        "no such run directory": ("export", folder / "absent", "--format", "onnx", "--out", folder / "net.onnx"),
    }
    for reason, words in requests.items():
        if "CUDA" in reason and not cuda_less():
            continue
        code, out, err = command(*words)
        assert (code, out) == (2, "") and reason in err and err.count("\n") == 1, err


def cuda_less() -> bool:
    import torch

    return torch.cuda.device_count() == 0


def test_an_exported_run_is_measured_by_command(
    trained: Path, seven: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    out = tmp_path / "net.safetensors"
    code, said, _ = command("export", trained, "--format", "safetensors", "--out", out)
    assert code == 0 and str(out) in said
    measured = [
        json.loads(command("evaluate", model, "--data", seven, "--json")[1])["loss"] for model in (out, trained)
    ]
    assert measured[0] == measured[1]
