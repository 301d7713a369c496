"""Settings as a TOML file: written with every help text as a comment, read whole or in part.

A file names its `preset` and changes some of its settings, or has them all, as `alexnet config` prints them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alexnet import presets
from alexnet.architecture import Network
from alexnet.config import Config, merge, sections
from alexnet.errors import UsageError, one_line, quoted
from alexnet.files import read_regular
from alexnet.records import parse_json
from alexnet.setting import Field, fields_of

MAX_BYTES = 1 << 20  # of a file of settings
MAX_VALUES = 100_000


def read_config(path: str | Path, preset: str | None = None) -> Config:
    """The config of a TOML file, or of a run's `config.json`. `preset` is the base where the file names none.

    Raises UsageError for a file that cannot be read as settings, naming the file and the setting.
    """
    path = Path(path)
    try:
        text = read_regular(path, MAX_BYTES).decode()
        document = parse_json(text) if path.suffix == ".json" else _parse_toml(text)
        return from_document(document, preset)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {path}: it is not UTF-8") from None
    except RecursionError:
        raise UsageError(f"--config {path}: it is nested too deep") from None
    except ValueError as error:  # UsageError among them
        raise UsageError(f"--config {path}: {error}") from None


def _parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError in words, for numbers beyond any setting too."""
    if sum(map(text.count, "[{,.=")) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML ({one_line(error)})") from None
    except ValueError:  # as int says it
        raise ValueError("it is not TOML: a number has too many digits") from None
    left: list[Any] = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and value.bit_length() > 128:
            raise ValueError(f"{quoted(value)} is larger than any setting")
    return document


def from_document(document: Any, preset: str | None = None) -> Config:
    """The config that a file's tables describe, on top of its preset's. Raises UsageError."""
    if not isinstance(document, Mapping):
        raise UsageError("settings should be tables")
    values = dict(document)
    own = values.pop("preset", None)
    if own is not None and preset is not None and own != preset:
        raise UsageError(f"the file is for preset {own}; leave --preset {preset} out")
    base = own or preset
    if not isinstance(base, str):
        raise UsageError('the file should name a preset, as preset = "digits"; or give --preset')
    if isinstance(values.get("network"), Mapping) and "layers" in values["network"]:  # a run's config.json
        return Config.from_dict({**values, "preset": base})
    return merge(presets.preset(base), values)


def to_toml(config: Config) -> str:
    """Every setting as TOML; `from_document(tomllib.loads(text))` is the same config."""
    lines = [
        f"# The settings of {config.preset}, for `alexnet train --config FILE`.",
        "# Settings left out are the preset's; flags win over the file.",
        f"preset = {_value(config.preset)}",
    ]
    for section in sections():
        lines += ["", f"[{section.name}]"]
        for field in fields_of(getattr(config, section.name), section.name):
            lines += [f"# {_help(field)}", f"{_name(field)} = {_value(field.default)}"]
    return "\n".join([*lines, "", *_network(config.network)]) + "\n"


def _network(network: Network) -> Iterator[str]:
    """The network's own settings, what the fields of its layers mean, and one line per layer."""
    yield "[network]"
    yield f"name = {_value(network.name)}"
    yield f"about = {_value(network.about)}"
    for field in fields_of(network, "network"):
        yield f"# {_help(field)}"
        yield f"{_name(field)} = {_value(field.default)}"
    if not network.layers:
        return
    yield "# The layers in the order in which an image meets them. Their settings:"
    for kind in dict.fromkeys(type(layer) for layer in network.layers):
        settings = list(fields_of(kind, kind.__name__))
        yield f"# {kind.__name__}{'' if settings else ': no settings'}"
        yield from (f"#   {_name(field)}: {_help(field)}" for field in settings)
    for layer in network.layers:
        values = {"layer": type(layer).__name__} | {_name(f): f.default for f in fields_of(layer, "")}
        yield f"{layer.name} = {{ {', '.join(f'{name} = {_value(value)}' for name, value in values.items())} }}"


def _name(field: Field) -> str:
    return field.path.rpartition(".")[2]


def _help(field: Field) -> str:
    """The help text, and the choices where it does not name them."""
    choices = field.choices or ()
    named = all(choice in field.about for choice in choices)
    return field.about if named else f"{field.about} ({' or '.join(choices)})"


def _value(value: Any) -> str:
    """A string, number, truth value or list as TOML; None as "none"."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML string, but for the one character more that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
