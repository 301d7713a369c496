"""Model files and settings that somebody has edited: what `alexnet export` wrote, weights of torch, TOML and JSON."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tests.fuzz.harness import Family
from tests.fuzz.mutations import dump, mutate, replace_place, spoil, text_bomb, value
from tests.fuzz.runs import change_tensors, pack, spoil_safetensors, trained, unpack

Case = tuple[Path, Random]


def prepare(folder: Path) -> Path:
    """A run; beside it a model file, weights as torch saves them, and settings."""
    from alexnet.config_file import to_toml
    from alexnet.formats.export import export
    from alexnet.inference.load import load
    from alexnet.presets import preset

    run = trained("models")
    if not (run.parent / "model.safetensors").exists():
        net = load(run)
        assert net.run is not None
        export(
            net.trained.network,
            net.trained.weights,
            "safetensors",
            run.parent / "model.safetensors",
            net.trained.facts(),
        )  # type: ignore[attr-defined]
        torch.save(net.trained.torch_model().state_dict(), run.parent / "weights.pt")  # type: ignore[attr-defined]
        torch.save(net.trained.torch_model().state_dict(), run.parent / "old.pt", _use_new_zipfile_serialization=False)  # type: ignore[attr-defined]
        (run.parent / "settings.toml").write_text(to_toml(preset("digits")))
        (run.parent / "settings.json").write_text(json.dumps(preset("digits").to_dict()))
        load_file((run.parent / "model.safetensors", Random(0)))
        read_weights((run.parent / "weights.pt", Random(0)))
        read_settings((run.parent / "settings.toml", Random(0)))
    return run.parent


def described(rng: Random, folder: Path, shared: Path) -> Case:
    """A model file whose description or tensors are others."""
    tensors, texts = unpack((shared / "model.safetensors").read_bytes())
    if rng.random() < 0.7:
        texts["alexnet"] = dump(mutate(rng, json.loads(texts["alexnet"]), rng.choice((1, 1, 1, 3)))).decode()
    elif rng.random() < 0.2:
        texts["alexnet"] = text_bomb(rng).decode(errors="replace")[: 1 << 22]
    else:
        change_tensors(rng, tensors)
    path = folder / "model.safetensors"
    path.write_bytes(pack(tensors, texts))
    return path, rng


def headed(rng: Random, folder: Path, shared: Path) -> Case:
    """A model file with another header, or spoilt, or something else in its place."""
    path = folder / "model.safetensors"
    path.write_bytes(spoil_safetensors(rng, (shared / "model.safetensors").read_bytes()))
    if rng.random() < 0.1:
        replace_place(rng, path, folder / "nowhere")
    return path, rng


class Call:
    """Calls something when it is unpickled."""

    def __init__(self, *what: Any) -> None:
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what[0], tuple(self.what[1:])


def torch_file(rng: Random, folder: Path, shared: Path) -> Case:
    """A file of torch's, spoilt; or one that calls, unpacks to much, or holds other things than weights."""
    path = folder / "weights.pt"
    calls = (Call(os.mkdir, str(folder.parent / "called")), Call(eval, "1"), Call(bytearray, 1 << 32), Call(print, "x"))
    how = rng.randrange(7)
    if how < 2:
        path.write_bytes(spoil(rng, (shared / rng.choice(("weights.pt", "old.pt"))).read_bytes()))
    elif how == 2:
        path.write_bytes(pickle.dumps(rng.choice(calls), rng.choice((0, 2, 4))))
    elif how == 3:
        path.write_bytes(with_pickle(shared / "weights.pt", pickle.dumps({"a": rng.choice(calls)}, 2)))
    elif how == 4:
        path.write_bytes(zip_bomb(rng, shared / "weights.pt"))
    elif how == 5:
        torch.save(rng.choice((3, "x", [], {"a": 1}, {3: torch.zeros(1)}, torch.zeros(3), {"a": []})), path)
    else:
        wide = torch.zeros(1).expand(rng.choice((10**6, 10**10)))
        torch.save({rng.choice(("features.0.weight", "x" * 9999, "a\nb")): wide}, path)
    if rng.random() < 0.05:
        replace_place(rng, path, folder / "nowhere")
    return path, rng


def with_pickle(path: Path, content: bytes) -> bytes:
    """A file of torch's with another pickle in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else old.read(entry))
    return out.getvalue()


def zip_bomb(rng: Random, path: Path) -> bytes:
    """A file of torch's in which a part unpacks to 300 MB, whatever it says."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        part = rng.choice([entry.filename for entry in old.infolist()])
        for entry in old.infolist():
            new.writestr(entry.filename, bytes(300 << 20) if entry.filename == part else old.read(entry))
    content = out.getvalue()
    if rng.random() < 0.5:  # the directory lies about the size
        content = content.replace(struct.pack("<I", 300 << 20), struct.pack("<I", 100))
    return content


def settings(rng: Random, folder: Path, shared: Path) -> Case:
    """Settings of either kind with values changed, spoilt, bombs, or something else in their place."""
    path = folder / rng.choice(("settings.toml", "settings.json"))
    content = (shared / path.name).read_bytes()
    how = rng.random()
    if path.suffix == ".json" and how < 0.6:
        content = dump(mutate(rng, json.loads(content), rng.choice((1, 1, 3))))
    elif how < 0.6:
        lines = content.decode().splitlines()
        at = rng.choice([i for i, line in enumerate(lines) if "=" in line and not line.startswith("#")])
        name = lines[at].partition("=")[0]
        texts = (
            "[" * 5000,
            "9" * 5000,
            "1e999",
            "nan",
            "1979-05-27",
            '"x"',
            "[1, {a = 1}]",
            "0x" + "f" * 4000,
            "-inf",
            "",
        )
        lines[at] = rng.choice(
            (f"{name} = {rng.choice(texts)}", f"{name} = {dump(value(rng)).decode()}", lines[at] * 2)
        )
        content = "\n".join(lines).encode(errors="replace")
    elif how < 0.75:
        content = rng.choice(
            (
                b"a." * 200_000 + b"a = 1",
                b"[" + b"a." * 100_000 + b"a]",
                b"a = " + b"[" * 400_000,
                b"a = {" + b"b = {" * 100_000,
                b"".join(b"[a.b%d.c]\n" % i for i in range(60_000)),
                b"".join(b"[[a]]\n" for _ in range(150_000)),
                b'preset = "digits"\n' + b"x = 1\n" * 2,
                b'preset = "' + b"\\u0000" * 100_000 + b'"',
                b"\xff\xfe",
                b"# " + b"x" * (1 << 21),
                text_bomb(rng)[: 1 << 20],
            )
        )
    else:
        content = spoil(rng, content)
    path.write_bytes(content)
    if rng.random() < 0.08:
        replace_place(rng, path, folder / "nowhere")
    return path, rng


def load_file(case: Case) -> str:
    """Load a model file, predict by it and export it again."""
    from alexnet.formats.export import export
    from alexnet.inference.load import load

    net = load(case[0])
    (prediction,) = net.predict([np.zeros((20, 30, 3), np.uint8)])
    assert abs(sum(prediction.probabilities) - 1) < 1e-3, "nonsense was predicted"
    export(
        net.trained.network,
        net.trained.weights,
        "safetensors",
        case[0].parent / "again" / "model.safetensors",
        net.trained.facts(),
    )  # type: ignore[attr-defined]
    return prediction.labels[0][:50]


def read_weights(case: Case) -> str:
    """The weights of a file of torch's, as for a network of torchvision's."""
    from alexnet.inference import torchvision_weights

    return str(len(torchvision_weights.read_weights(str(case[0]))))


def begin_from(case: Case) -> str:
    """The weights of a file for a run to begin from."""
    from alexnet.training.init import open_initial

    return str(len(open_initial(str(case[0])).weights))


def read_settings(case: Case) -> str:
    """The settings, and the counts of their network."""
    from alexnet.config_file import read_config, to_toml
    from alexnet.model.summary import summary

    config = read_config(case[0])
    return f"{summary(config.network).total.parameters} {len(to_toml(config))}"


KINDS: dict[str, tuple[Callable[..., Case], Callable[[Case], str]]] = {
    "model description": (described, load_file),
    "model header": (headed, load_file),
    "initial weights": (headed, begin_from),
    "torch weights": (torch_file, read_weights),
    "settings": (settings, read_settings),
}
FAMILIES = [Family(name, make, use, allowed=(OSError,), prepare=prepare) for name, (make, use) in KINDS.items()]
