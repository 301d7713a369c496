"""What every family of edited files does to JSON, bytes and places of files: a seed decides which, where and how."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

REMOVED = object()
NAMES = ("", "../../etc/passwd", "/etc/passwd", "a\x00b", "\ud800", "x" * 100_000, "a\nb\x1b[2J", "<script>", "ß" * 300)
NUMBERS = (0, -1, 1, 2, 10**6, 2**31, 2**53, 2**63, 10**30, 10**400, -0.0, 0.5, -1.5, 1e308, 1e-320)
CONSTANTS = (float("nan"), float("inf"), -float("inf"), None, True, False)


def value(rng: Random, depth: int = 0) -> Any:
    """Some value of JSON, seldom what a field should hold."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(NAMES)
    if kind in (1, 2):
        return rng.choice(NUMBERS)
    if kind == 3:
        return rng.choice(CONSTANTS)
    if kind == 4 and depth < 3:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 5 and depth < 3:
        return {str(rng.choice(NAMES[1:4])) + str(i): value(rng, depth + 1) for i in range(rng.randrange(4))}
    if kind == 6:
        deep: Any = []
        for _ in range(rng.choice((5, 300, 20_000)) if depth == 0 else 5):
            deep = [deep]
        return deep
    return str(rng.randrange(10**9))


def places(document: Any) -> list[tuple[Any, ...]]:
    """The place of every value in a document, its own among them, but for those nested very deep."""
    found: list[tuple[Any, ...]] = []
    left: list[tuple[tuple[Any, ...], Any]] = [((), document)]
    while left:
        path, one = left.pop()
        found.append(path)
        keys = list(one) if isinstance(one, dict) else range(min(len(one), 20)) if isinstance(one, list) else ()
        if len(path) < 8:
            left += [((*path, key), one[key]) for key in keys]
    return found


def mutate(rng: Random, document: Any, changes: int = 1) -> Any:
    """The document with values changed, removed, invented, nudged or exchanged."""
    for _ in range(changes):
        place = rng.choice(places(document))
        if not place:
            if rng.random() < 0.2:
                return value(rng)
            continue
        parent = document
        for key in place[:-1]:
            parent = parent[key]
        key, old = place[-1], parent[place[-1]]
        how = rng.randrange(7)
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[rng.choice(NAMES)] = value(rng)
        elif how == 2 and isinstance(old, int | float) and not isinstance(old, bool) and abs(old) < 1e300:
            parent[key] = rng.choice((old + 1, old - 1, -old, old * 2, old * 1000, float(old), str(old)))
        elif how == 3 and isinstance(old, str):
            parent[key] = rng.choice((old + "x", old[:-1], old.upper(), old * 50, [old]))
        elif how == 4 and isinstance(parent, list):
            parent.append(rng.choice((old, value(rng))))
        else:
            parent[key] = value(rng)
    return document


def dump(document: Any) -> bytes:
    """A document as JSON text; values that Python's own writer refuses (depth, half characters) are written anyhow."""
    try:
        return json.dumps(document).encode(errors="replace")
    except RecursionError:
        return b"[" * 100_000


def text_bomb(rng: Random) -> bytes:
    """A JSON text that is much: deep, wide, long numbers, or a name twice."""
    return rng.choice(
        (
            lambda: b"[" * rng.choice((1000, 100_000, 5_000_000)),
            lambda: b'{"a":' * rng.choice((1000, 100_000)),
            lambda: b"[" + b"[]," * rng.choice((1000, 4_000_000)) + b"[]]",
            lambda: b'{"a": ' + b"9" * rng.choice((50, 5000, 1_000_000)) + b"}",
            lambda: b'{"a": 1e' + b"9" * rng.choice((4, 400)) + b"}",
            lambda: b'{"classes": 1, "classes": 2}',
            lambda: b'{"a": "' + b"\\u0000" * 100_000 + b'"}',
            lambda: b'{"a": "\\ud800"}',
            lambda: b"\xff\xfe{\x00}\x00",
            lambda: b"\xef\xbb\xbf{}",
            lambda: b"",
            lambda: b"null",
        )
    )()


def spoil(rng: Random, content: bytes) -> bytes:
    """Bytes cut short, turned over, overwritten, repeated or replaced."""
    how, at = rng.randrange(6), rng.randrange(max(1, len(content)))
    if how == 0:
        return content[:at]
    if how == 1:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 5, 50))):
            changed[rng.randrange(len(changed))] = rng.randrange(256) if changed else 0
        return bytes(changed)
    if how == 2:
        return content[:at] + rng.randbytes(rng.choice((1, 8, 4096))) + content[at:]
    if how == 3:
        return content + content[at:]
    if how == 4:
        return rng.randbytes(rng.choice((0, 1, 7, 8, 9, 5000)))
    length = rng.choice((1, 8, 100))
    return content[:at] + bytes(length) + content[at + length :]


def replace_place(rng: Random, path: Path, outside: Path) -> str:
    """Put something else where a file or folder is: a pipe, a folder, a link, or nothing."""
    if path.is_dir():
        path.rename(path.with_name(path.name + " moved"))
    else:
        path.unlink(missing_ok=True)
    how = rng.choice(("pipe", "folder", "link", "device", "loop", "file", "nothing"))
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(outside)
    elif how == "device":
        path.symlink_to(rng.choice(("/dev/urandom", "/dev/null", "/proc/self/mem")))
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "file":
        path.write_bytes(rng.randbytes(20))
    return how
