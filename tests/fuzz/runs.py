"""Run directories that somebody has edited or half destroyed: resumed, evaluated, reported, loaded, asked about."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from alexnet import presets
from alexnet.checkpoint import CHECKSUM, KEY, VELOCITY, checksum
from alexnet.config import replace
from alexnet.data.store import prepare as store
from tests.fuzz.harness import Family, Limits
from tests.fuzz.mutations import dump, mutate, replace_place, spoil, text_bomb

JSON = ("config.json", "source.json", "environment.json", "trackers.json", "init.json")
LINES = ("metrics.jsonl", "evaluations.jsonl")
TENSORS = ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/previous.safetensors")
PLACES = (*JSON, *LINES, *TENSORS, "statistics.npz", ".lock", "checkpoints", "figures", "report.html", "tensorboard")
Case = tuple[Path, Random]


@functools.cache
def trained(name: str) -> Path:
    """A run on a few pictures of two classes, killed in its second epoch, evaluated once; made once per server.

    All that the cases do is done here first, so that what is imported for it is there in every case; for `models`
    only what they need.
    """
    if name != "warm":  # the server's home is empty, so that it would compile the engine
        os.environ["ALEXNET_ENGINE"] = "none"
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    train_run(folder)
    if name == "warm":
        store.prepare(folder / "pictures", folder / "store", size=16, workers=1)
    (folder / "first").mkdir()
    with contextlib.chdir(folder / "first"):
        case = (copy(folder / "first", folder / "run"), Random(0))
        for use in (predict,) if name == "models" else (resume, evaluate, report, predict, ask):
            use(case)
    return folder / "run"


def prepare(folder: Path) -> Path:
    """The run that all families edit."""
    return trained("runs")


def train_run(folder: Path) -> None:
    """Train the run; its pictures are remembered as `pictures`, beside it."""
    from PIL import Image

    from alexnet.inference.evaluate import evaluate
    from alexnet.progress import Progress
    from alexnet.run import Run
    from alexnet.training.loop import train

    class StopError(Exception):
        pass

    class Stop(Progress):
        left = 5

        def step(self, *_: Any) -> None:
            self.left -= 1
            if not self.left:
                raise StopError

    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("ant", "bee"):
            (folder / "pictures" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / split / name / f"{i}.png")
    changes = {
        "data.source": "pictures",
        "train.epochs": "3",
        "train.batch_size": "3",
        "train.log_every": "2",
        "train.threads": "1",
        "train.save_every": "0",
        "data.workers": "1",
        "optimizer.lr": "0.001",
    }
    with contextlib.chdir(folder):
        with contextlib.suppress(StopError):
            train(replace(presets.preset("digits"), changes), "run", Stop())
        run = Run.open("run")
        run.record_evaluation(evaluate("run").to_json())
    (folder / "run" / "trackers.json").write_text('{"wandb": "3f"}')
    init = {"origin": "x", "sha256": "0a", "copied": [], "fresh": [], "unused": []}
    (folder / "run" / "init.json").write_text(json.dumps(init))


def copy(folder: Path, run: Path) -> Path:
    """The run and its pictures in the case's own folder."""
    shutil.copytree(run.parent / "pictures", folder / "pictures")
    out = folder / "run"
    shutil.copytree(run, out)
    source = json.loads((out / "source.json").read_text())
    source["path"] = str(folder / "pictures")
    (out / "source.json").write_text(json.dumps(source))
    return out


def edited_json(rng: Random, folder: Path, run: Path) -> Case:
    """One of the JSON files with fields changed, or in its place a bomb or bytes."""
    out = copy(folder, run)
    path = out / rng.choice((JSON[0], *JSON[:3], *JSON))
    how = rng.random()
    if how < 0.8:
        path.write_bytes(dump(mutate(rng, json.loads(path.read_text()), rng.choice((1, 1, 1, 2, 5)))))
    elif how < 0.9:
        path.write_bytes(text_bomb(rng))
    else:
        path.write_bytes(spoil(rng, path.read_bytes()))
    return out, rng


def edited_lines(rng: Random, folder: Path, run: Path) -> Case:
    """Lines of metrics or evaluations changed, dropped, repeated, exchanged, or bytes of them."""
    out = copy(folder, run)
    path = out / rng.choice(LINES)
    lines = path.read_bytes().splitlines(keepends=True)
    at, how = rng.randrange(len(lines)), rng.randrange(8)
    if how < 3:
        lines[at] = dump(mutate(rng, json.loads(lines[at]), rng.choice((1, 1, 3)))) + b"\n"
    elif how == 3:
        del lines[at]
    elif how == 4:
        lines.insert(at, rng.choice(lines))
    elif how == 5:
        lines[at] = text_bomb(rng)[: 1 << 22] + b"\n"
    elif how == 6:
        lines = lines[:at] * rng.choice((1, 3, 20_000))
    content = b"".join(lines)
    path.write_bytes(spoil(rng, content) if how == 7 else content)
    return out, rng


def edited_state(rng: Random, folder: Path, run: Path) -> Case:
    """The state, weights or velocities of a checkpoint changed, with a checksum made anew for what it now holds."""
    out = copy(folder, run)
    path = out / rng.choice((TENSORS[0], TENSORS[0], *TENSORS))
    tensors, texts = unpack(path.read_bytes())
    state = json.loads(texts[KEY])
    if rng.random() < 0.6:
        state = mutate(rng, state, rng.choice((1, 1, 2)))
    else:
        change_tensors(rng, tensors)
    texts[KEY] = dump(state).decode()
    try:
        content = {name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy() for name, tensor in tensors.items()}
        texts[CHECKSUM] = checksum(content, texts[KEY])
        path.write_bytes(pack(tensors, texts))
    except (RuntimeError, ValueError):
        path.write_bytes(b"")
    keep_alone(rng, path)
    return out, rng


def change_tensors(rng: Random, tensors: dict[str, torch.Tensor]) -> None:
    """Change one tensor: its type, shape, name or values."""
    name = rng.choice(list(tensors))
    tensor, how = tensors[name], rng.randrange(8)
    if how == 0:
        kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool)
        tensors[name] = tensor.to(rng.choice(kinds))
    elif how == 1:
        tensors[name] = tensor.clone().fill_(rng.choice((float("nan"), float("inf"), 1e38, -1e20)))
    elif how == 2:
        del tensors[name]
    elif how == 3:
        other = rng.choice(("../x", "velocity/velocity/x", "", "conv9.weight", "x" * 5000, VELOCITY + "x", "a\nb"))
        tensors[other] = tensor
    elif how == 4:
        tensors[name] = tensor.reshape(-1)[: rng.choice((0, 1))]
    elif how == 5:
        tensors[name] = tensor.reshape(-1)
    elif how == 6:
        view = tensor.clone().reshape(-1).view(torch.int32)  # the same bytes under another type
        tensors[name] = view.reshape(tensor.shape)
    else:
        changed = tensor.clone().reshape(-1)
        changed[rng.randrange(max(1, len(changed)))] = rng.choice((float("nan"), 1e30, float("-inf")))
        tensors[name] = changed.reshape(tensor.shape)


def edited_header(rng: Random, folder: Path, run: Path) -> Case:
    """A checkpoint whose header says what is not so: places, types, lengths, names twice; or damaged bytes."""
    out = copy(folder, run)
    path = out / rng.choice((TENSORS[0], TENSORS[0], *TENSORS))
    path.write_bytes(spoil_safetensors(rng, path.read_bytes()))
    keep_alone(rng, path)
    return out, rng


def spoil_safetensors(rng: Random, content: bytes) -> bytes:
    """The bytes of a safetensors file with another header, or spoilt."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length], content[8 + length :]
    how = rng.randrange(9)
    if how < 4:
        header = dump(mutate(rng, json.loads(header), rng.choice((1, 1, 3))))
    elif how == 4:
        entry = json.dumps({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}).encode()
        header = b'{"huge":' + entry + b"," + header[1:]
    elif how == 5:
        name = next(iter(json.loads(header)))
        header = b"{" + json.dumps(name).encode() + b':{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + header[1:]
    elif how == 6:
        size = rng.choice((2**63, 2**64 - 1, len(content), 100_000_001, 0, length + 1))
        return struct.pack("<Q", size) + content[8:]
    elif how == 7:
        header = rng.choice((text_bomb(rng), header + b" " * rng.choice((8, 1 << 24)), b'{"__metadata__":{"a":1}}'))
    else:
        return spoil(rng, content)
    return struct.pack("<Q", len(header)) + header + data


def edited_statistics(rng: Random, folder: Path, run: Path) -> Case:
    """The mean image and its companions of other shapes, types and values; or a bomb, or damaged bytes."""
    out = copy(folder, run)
    path = out / "statistics.npz"
    how = rng.randrange(5)
    if how == 0:
        path.write_bytes(spoil(rng, path.read_bytes()))
    elif how == 1:
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            head = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000,), }"
            archive.writestr("mean_image.npy", head.ljust(127) + b"\n" + bytes(rng.choice((10, 60 << 20))))
        path.write_bytes(bomb.getvalue())
    else:
        with np.load(path) as stored:
            arrays = dict(stored)
        name = rng.choice(list(arrays))
        array = arrays[name]
        changed: Any = rng.choice(
            (
                lambda: array.astype(rng.choice(("f8", "i4", "U9", "c8", "?", "S3"))),
                lambda: (
                    np.full_like(array, rng.choice((0, 255, 1)), dtype="f8") * rng.choice((np.nan, np.inf, 1e30, -1))
                ),
                lambda: array.reshape(-1)[:1],
                lambda: np.zeros((2000, 2000, 3), "f4"),
                lambda: np.array([{"a": 1}], object),
                lambda: None,
            )
        )()
        arrays[name] = changed
        if changed is None:
            del arrays[name]
        np.savez(path, **arrays)
    return out, rng


def other_places(rng: Random, folder: Path, run: Path) -> Case:
    """Pipes, folders, links and devices in the place of a run's files."""
    out = copy(folder, run)
    outside = folder.parent / f"{folder.name}-outside"
    for name in rng.sample(PLACES, rng.choice((1, 1, 2))):
        if (out / name).parent.is_dir():
            replace_place(rng, out / name, outside)
    return out, rng


def unpack(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and texts of a safetensors file."""
    from safetensors.torch import load

    length = struct.unpack("<Q", content[:8])[0]
    return load(content), json.loads(content[8 : 8 + length]).get("__metadata__", {})


def pack(tensors: dict[str, torch.Tensor], texts: dict[str, str]) -> bytes:
    """A safetensors file."""
    from safetensors.torch import save

    return save({name: value.contiguous().clone() for name, value in tensors.items()}, metadata=texts)


def keep_alone(rng: Random, path: Path) -> None:
    """Mostly without the checkpoint that could take the place of this one."""
    if rng.random() < 0.8 and path.stem == "last":
        path.with_stem("previous").unlink()


def resume(case: Case) -> str:
    """Two steps more, sometimes with a changed setting."""
    from alexnet.training.loop import resume

    run, rng = case
    changes: list[dict[str, str]] = [{}, {}, {"schedule.drops": "4"}, {"data.memory": "9"}]
    return str(resume(run, changes={"train.steps": "7", **rng.choice(changes)}).steps)


def evaluate(case: Case) -> str:
    """The errors of the test split, kept in the run as the command does."""
    from alexnet.inference.evaluate import evaluate
    from alexnet.run import Run

    result = evaluate(case[0])
    Run.open(case[0]).record_evaluation(result.to_json())
    assert np.isfinite(result.loss), "nonsense was measured"
    return f"{result.top1_error}"


def report(case: Case) -> str:
    """The page."""
    from alexnet.report.report import write_report
    from alexnet.run import Run

    return write_report(Run.open(case[0])).name


def predict(case: Case) -> str:
    """The labels of a picture, by either checkpoint."""
    from alexnet.inference.load import load

    run, rng = case
    net = load(run, checkpoint=rng.choice((None, "last", "last")))
    picture = np.zeros((20, 30, 3), np.uint8)
    (prediction,) = net.predict([picture])
    assert abs(sum(prediction.probabilities) - 1) < 1e-3, "nonsense was predicted"
    return prediction.labels[0][:50]


def ask(case: Case) -> str:
    """The network's summary, and the run's settings for another."""
    from alexnet.commands.frame import named_config
    from alexnet.config_file import to_toml
    from alexnet.model.summary import summary

    config = named_config(str(case[0]))
    return f"{summary(config.network).total.parameters} {len(to_toml(config))}"


EDITS: dict[str, Callable[..., Case]] = {
    "json": edited_json,
    "lines": edited_lines,
    "state": edited_state,
    "header": edited_header,
    "statistics": edited_statistics,
    "places": other_places,
}
DRAWING = Limits(seconds=20)  # of figures, about a second where the processor is not shared
USES: dict[str, Callable[[Case], str]] = {"resume": resume, "evaluate": evaluate, "predict": predict}
FAMILIES = [
    *(
        Family(f"{use} {edit}", make, take, allowed=(OSError,), prepare=prepare)
        for use, take in USES.items()
        for edit, make in EDITS.items()
        if (use, edit) not in (("evaluate", "state"), ("evaluate", "header"), ("predict", "lines"))
    ),
    *(
        Family(f"report {edit}", EDITS[edit], report, DRAWING, allowed=(OSError,), prepare=prepare)
        for edit in ("json", "lines", "places")
    ),
    Family("ask json", edited_json, ask, allowed=(OSError,), prepare=prepare),
]
