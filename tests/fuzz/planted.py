"""Faults planted on purpose, one per kind, so that the harness's own test sees it notice each of them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from random import Random

from alexnet.errors import DataError
from tests.fuzz.harness import Family, Limits


def _path(_: Random, folder: Path) -> Path:
    path = folder / "input"
    path.write_bytes(b"input")
    return path


def _path_and_another(rng: Random, folder: Path) -> Path:
    (folder.parent / "beside").write_bytes(b"secret")
    return _path(rng, folder)


def _read(path: Path) -> str:
    return path.read_text()


def _refuse(path: Path) -> str:
    raise DataError(f"{path} is not an image")


def _crash(_: Path) -> str:
    os.abort()


def _hang(_: Path) -> str:
    time.sleep(60)
    return ""


def _slow(_: Path) -> str:
    time.sleep(1.2)
    return ""


def _memory(_: Path) -> str:
    return str(len(b"\1" * (80 << 20)))


def _traceback(_: Path) -> str:
    return str(int("x"))


def _reads_outside(path: Path) -> str:
    return (path.parent.parent / "beside").open("rb").name


def _writes_outside(path: Path) -> str:
    (path.parent.parent / "outside").write_text("")
    return ""


def _starts_a_process(_: Path) -> str:
    return str(subprocess.run(["true"]).returncode)


def _message(_: Path) -> str:
    raise DataError("")  # one of many lines cannot be made


QUICK = Limits(seconds=1, memory=40)
FAMILIES = [
    Family("read", _path, _read, QUICK),
    Family("refused", _path, _refuse, QUICK),
    Family("crash", _path, _crash, QUICK),
    Family("hang", _path, _hang, QUICK),
    Family("slow", _path, _slow, QUICK),
    Family("memory", _path, _memory, QUICK),
    Family("traceback", _path, _traceback, QUICK),
    Family("reads outside", _path_and_another, _reads_outside, QUICK),
    Family("writes outside", _path, _writes_outside, QUICK),
    Family("process", _path, _starts_a_process, QUICK),
    Family("message", _path, _message, QUICK),
]
EXPECTED = {"slow": "hang", "reads outside": "outside", "writes outside": "outside", "process": "outside"}
