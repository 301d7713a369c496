"""JSON that anybody may have edited: parsed within limits, each value checked for its type, range and place.

What is read is a run's files, the headers of files of weights, and settings.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
import re
import sys
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alexnet.errors import AlexnetError, RunError, quoted
from alexnet.files import open_regular, read_regular

MAX_VALUES = 2_000_000  # of one text: some hundred MiB of objects
MAX_DIGITS = 40  # of a whole number
MAX_LINE = 1 << 16  # bytes of a line
LARGEST = 1e100  # of a number: sums of float32 numbers are far below
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
Record = TypeVar("Record")


def parse_json(text: str, most: int = MAX_VALUES) -> Any:
    """The value of a JSON text of at most `most` values, whose numbers are finite and whose names stand once.

    Raises ValueError in words.
    """
    if sum(map(text.count, "[{,")) > most:
        raise ValueError(f"it has more than {most:,} values")
    try:
        value = _decoder.decode(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half characters, which are no text") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = {sys.intern(name): entry for name, entry in pairs}
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{quoted(next(name for name in names if names.count(name) > 1))} is there twice")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {quoted(digits)} is not finite")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_refuse_constant
)


def read_json(path: str | os.PathLike[str], limit: int, error: type[AlexnetError] = RunError) -> dict[str, Any]:
    """The object in a JSON file of at most `limit` bytes. Raises FileNotFoundError, and `error` naming the file."""
    try:
        value = parse_json(read_regular(path, limit).decode())
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise error(f"{path} cannot be read: it is not UTF-8") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise error(f"{path} cannot be read: {problem}") from None
    if not isinstance(value, dict):
        raise error(f"{path} cannot be read: it should hold an object in braces")
    return value


def read_json_lines(path: Path, limit: int, length: int | None = None) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one per line, none where it is missing; of its first `length` bytes where given.

    Only a line at a time is in memory. A last line still being written is left out. Raises RunError naming the line.
    """
    try:
        file = open_regular(path, limit)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise RunError(f"{path} cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise RunError(f"{path} cannot be read: {problem}") from None
    read = 0
    with file:
        for number in itertools.count(1):
            try:
                line = file.readline(MAX_LINE + 1)
            except OSError as problem:
                raise RunError(f"{path} cannot be read: {problem.strerror or problem}") from None
            read += len(line)
            over = read > (limit if length is None else length)  # another process may be writing
            if over or not line.endswith(b"\n") and len(line) <= MAX_LINE:
                return
            value = _json_line(path, number, line)
            if value is not None:
                yield value


def _json_line(path: Path, number: int, line: bytes) -> dict[str, Any] | None:
    """The object in a line, None where it is blank."""
    try:
        if len(line) > MAX_LINE:
            raise ValueError(f"it is longer than {MAX_LINE} bytes")
        text = line.strip().decode()
        value = parse_json(text) if text else {}
    except UnicodeDecodeError:
        raise RunError(f"{path} is not one JSON object per line: line {number} is not UTF-8") from None
    except ValueError as problem:
        raise RunError(f"{path} is not one JSON object per line: line {number}: {problem}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: line {number} is not an object in braces")
    return value if text else None


def read_record(kind: type[Record], value: Any, where: str, error: type[AlexnetError] = RunError) -> Record:
    """A dataclass from JSON, each field checked: whole numbers from 0 on, numbers, texts, ….

    Raises `error` naming the first field that is missing, unknown or of another type.
    """
    if not isinstance(value, dict):
        raise error(f"{where} {quoted(value)} should be an object in braces")
    hints = _hints(typing.cast(Hashable, kind))
    for name in [*hints, *value]:
        if name not in value:
            raise error(f"{where}.{name} is missing")
        if name not in hints:
            raise error(f"{where}.{quoted(name)[1:-1]} is not known")
    return kind(**{name: checked(hint, value[name], f"{where}.{name}", error) for name, hint in hints.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, which takes longer to find than a record to read."""
    return typing.get_type_hints(kind)


def checked(hint: Any, value: Any, where: str, error: type[AlexnetError] = RunError) -> Any:
    """A value of JSON as its type says, where a list may become a tuple. Raises `error` naming its place."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else checked(parts[0], value, where, error)
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast(type, hint), value, where, error)
    if origin is dict and isinstance(value, dict):
        return {key: checked(parts[1], entry, f"{where}.{quoted(key)[1:-1]}", error) for key, entry in value.items()}
    if origin in (tuple, list) and isinstance(value, list):
        entries = (checked(parts[0], entry, f"{where}[{i}]", error) for i, entry in enumerate(value))
        return tuple(entries) if origin is tuple else list(entries)
    if hint is float:
        if type(value) in (int, float) and abs(value) < LARGEST:
            return float(value)
    elif type(value) is hint and not (hint is int and not 0 <= value < 2**53):
        return value
    wanted = {
        int: f"a whole number from 0 to {2**53 - 1:,}",
        float: f"a number within ±{LARGEST:g}",
        bool: "true or false",
        str: "a text",
    }
    kind = "an object" if origin is dict else "a list"
    raise error(f"{where} {quoted(value)} should be {wanted.get(hint, kind)}")


def check_fields(record: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raise RunError naming the first of the `wanted` fields (name → type) that is missing or of another type.

    Other fields may be there too. A name that ends in `?` may be missing.
    """
    for name, hint in wanted.items():
        if name.removesuffix("?") in record:
            checked(hint, record[name.removesuffix("?")], f"{where}.{name.removesuffix('?')}")
        elif not name.endswith("?"):
            raise RunError(f"{where}.{name} is missing")
