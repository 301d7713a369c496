"""The surface: command lines of the parser's own flags with odd values, files of settings, calls, lists of words."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from alexnet import cli, presets
from alexnet.ablations import ABLATIONS
from alexnet.config import fields
from alexnet.config_file import to_toml
from alexnet.data.readers.open import open_source
from alexnet.errors import UsageError
from alexnet.training.train import train
from tests.fuzz.harness import LONGEST_MESSAGE, Family

# What no command gets past, so that nothing is trained or measured: none of these names is there.
NEEDED = {
    "train": ["--data", "absent"],
    "evaluate": ["absent"],
    "predict": ["absent", "absent.png"],
    "baseline sparse-coding": ["--data", "absent"],
    "baseline sift-fv": ["--data", "absent"],
    "summary": ["digits"],
    "presets": ["digits"],
    "config": ["digits"],
    "data prepare": ["absent", "store"],
    "data verify": ["absent"],
    "data info": ["absent"],
    "report": ["absent"],
    "export": ["absent", "--format", "onnx", "--out", "absent.onnx"],
    "completion": ["bash"],
}
ODD: tuple[Any, ...] = (
    *("", " ", "x", "-", "--", "-1", "0", "1", "2", "7", "nan", "inf", "-inf", "1e999", "1e-999", "1_0", "0x10", "0.5"),
    *(
        "１",
        "٣",
        "½",
        "²",
        "1" * 300,
        "9" * 5000,
        "x" * 5000,
        "true",
        "none",
        "None",
        "auto",
        "cpu",
        "cuda:99999999999",
    ),
    *(
        "a\nb",
        "a\0b",
        "\x1b[2J",
        "\u202e",
        "caf\udce9",
        "é" * 300,
        "[]",
        "{}",
        "{0}",
        "%s",
        "%(prog)s",
        "*",
        "[",
        "~",
        "~x",
    ),
    *("a=b", "a.b", ".", ",", ",,", "1,2", "1,x", "conv1@1=x2", "conv1@=", "@", "=", "torchvision:", "torchvision:x"),
    *("hf:", "hf:x", "hf:a/b/c", "digits", "paper", "lrn,lrn", "lrn", "absent.toml", "absent.json", "absent.tar"),
)

PYTHON = re.compile(  # what Python says, and no command should
    r"invalid literal|unpack|NoneType|operand|object has no attribute|Errno|could not convert|embedded null|codec can|"
    r"recursion|argument must be|out of range|is not defined|invalid (int|float) value|not subscriptable|not iterable"
)


def _verbs(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, list[str]]]:
    subs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for word, sub in (item for action in subs for item in action.choices.items()):
        yield from _verbs(sub, f"{name} {word}".strip())
    if not subs:
        yield name, [option for action in parser._actions for option in action.option_strings if option != "--debug"]


FLAGS = {verb: flags for verb, flags in _verbs(cli.command_parser()) if verb in NEEDED}
SETTINGS = [entry.path for name in ("digits", "paper", "cifar-13") for entry in fields(presets.preset(name))]


def value(rng: Random) -> str:
    """A text as a flag's value: odd, of the tables, or one of these with a character changed."""
    text = str(rng.choice((*ODD, *ABLATIONS, *presets.names())))
    if rng.random() < 0.3:
        place = rng.randint(0, len(text))
        text = text[:place] + chr(rng.choice((*range(1, 0x300), 0xDC80, 0x202E, 0x1F600))) + text[place + 1 :]
    return text.replace("/", "-")  # nothing outside the folder is meant to be named


def command_line(rng: Random, folder: Path) -> list[str]:
    """A command, its flags and settings with odd values, and words too many or too few."""
    verb = rng.choice(list(FLAGS))
    words = verb.split()
    for _ in range(rng.randint(0, 4)):
        flag = rng.choice(FLAGS[verb]) if rng.random() < 0.6 else f"--{rng.choice(SETTINGS)}"
        if rng.random() < 0.1:
            flag = flag.replace(rng.choice(flag), rng.choice("abc-._"), 1)
        words += [f"{flag}={value(rng)}"] if rng.random() < 0.5 else [flag, value(rng)][: rng.choice((1, 2, 2, 2))]
    words += [value(rng)] * (rng.random() < 0.1)
    if verb == "predict" and "-" in words:
        words.remove("-")  # standard input is the harness's
    return words + NEEDED[verb]


def run_command(words: list[str]) -> str:
    """Give a command; it is refused as its one line says, or done. Raises AssertionError for anything else."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
    except SystemExit as stop:  # --help and --version
        code = int(stop.code or 0)
    said = err.getvalue()
    assert "bug:" not in said and "Traceback" not in said, said
    if code == 0:
        return f"{len(out.getvalue())} characters"
    assert code in (1, 2) and said.startswith("alexnet: ") and said.count("\n") == 1, (code, said)
    assert said[:-1].isprintable() and len(said) < LONGEST_MESSAGE, said
    assert not PYTHON.search(said), said
    raise UsageError(said.removeprefix("alexnet: ").rstrip("\n"))


def settings_file(rng: Random, folder: Path) -> list[str]:
    """A file of settings with lines, values or bytes changed, for `summary`, `config`, `presets` or `train`."""
    config = presets.preset(rng.choice(presets.names()))
    if rng.random() < 0.3:
        path, text = folder / "run.json", json.dumps(_mutated(rng, config.to_dict()))
    else:
        path, lines = folder / "run.toml", to_toml(config).splitlines()
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(lines))
            name = lines[place].partition("=")[0]
            odd = rng.choice(
                (*ODD, "[" * 2000, "{a=1}", '"""', "1979-05-27", "[[x]]", "0b1", "1e9", '"\\udcff"', "'x'")
            )
            lines[place : place + rng.choice((0, 1, 1, 1))] = [rng.choice((f"{name}= {odd}", str(odd), lines[place]))]
        text = "\n".join(lines)
    content = text.encode(errors="surrogateescape")
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        place = rng.randrange(len(content))
        content = content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    path.write_bytes(content[: rng.choice((len(content),) * 4 + (rng.randrange(len(content)),))])
    return rng.choice((["summary"], ["config"], ["presets", "paper"], ["train", "--data", "absent", "--config"])) + [
        str(path)
    ]


def _mutated(rng: Random, document: Any) -> Any:
    """JSON with a few of its values replaced, renamed or dropped."""
    for _ in range(rng.randint(1, 3)):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and rng.random() < 0.8:
                place = place[key]
                continue
            choice = rng.random()
            if choice < 0.2:
                del place[key]
            elif choice < 0.3 and isinstance(place, dict):
                place[value(rng)] = place.pop(key)
            else:
                deep: Any = 0
                for _ in range(500):
                    deep = [deep]
                place[key] = rng.choice((None, True, -1, 0, 10**400, 1e308, [], {}, [[1]], {"a": 1}, deep, value(rng)))
            break
    return document


def call(rng: Random, folder: Path) -> dict[str, Any]:
    """The arguments of `alexnet.train`, with settings of all types; no images are there."""
    odd = (
        *ODD,
        None,
        1,
        -1,
        2.5,
        10**400,
        float("nan"),
        b"x",
        [],
        [1, "x"],
        (),
        {},
        {"a": 1},
        Path("absent"),
        object(),
    )
    names = [rng.choice((*SETTINGS, *(path.rpartition(".")[2] for path in SETTINGS))) for _ in range(rng.randint(0, 3))]
    names = [name for name in names if name not in ("source", "init", "data.source")]
    arguments = {name: rng.choice(odd) for name in names}
    arguments["settings"] = rng.choice(("digits", "paper", *odd)) if rng.random() < 0.5 else "digits"
    if rng.random() < 0.3:
        arguments["without"] = rng.choice((["lrn"], ["lrn", "lrn"], [""], [3], ["x" * 5000], [None]))
    return {"out": folder / "run", "data": "absent", **arguments}


def run_call(arguments: dict[str, Any]) -> str:
    """Train; it is refused at last where there are no images."""
    train(**arguments)
    raise AssertionError("there were no images")


def words_file(rng: Random, folder: Path) -> Path:
    """A folder of two wnids with a list of words that is odd in some way."""
    wnids = ("n02085936", "n02123045")
    for name in wnids:
        (folder / "set" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "set" / name / "a.png")
    text = "".join(f"{rng.choice((*wnids, 'n0', 'x', ''))}{rng.choice(chr(9) + ' ,;')}{value(rng)}\n" for _ in range(9))
    content = text.encode(errors="surrogateescape") * rng.choice((1, 1, 1, 1000))
    for _ in range(rng.randint(0, 20)):
        place = rng.randrange(len(content))
        content = content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    path = folder / rng.choice(("", "set")) / rng.choice(("words.txt", "LOC_synset_mapping.txt"))
    path.write_bytes(content)
    return folder / "set"


def read_words(folder: Path) -> str:
    """Open the folder; what it says of its classes can be shown."""
    words = open_source(folder).words
    assert words is None or (len(words) == 2 and all(text.isprintable() and len(text) <= 200 for text in words))
    return "no words" if words is None else "words"


FAMILIES = [
    Family("command-line", command_line, run_command),
    Family("settings-file", settings_file, run_command),
    Family("call", call, run_call),
    Family("words-file", words_file, read_words),
]
