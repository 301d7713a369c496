"""One setting: its default, help text and range; and the one checker of values from presets, flags and files.

Declared as a dataclass field, `lr: float = setting(0.01, "the learning rate", above=0)`; read back as a `Field`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alexnet.errors import UsageError, quoted, suggestion

REQUIRED: Any = dataclasses.MISSING  # as a default: there is none
LARGEST = {int: 2**63, float: math.inf}  # numbers are below it
SEVERAL = {int: ("whole numbers", "23,51,78"), float: ("numbers", "0.1,0.01")}
SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def setting(
    default: Any,
    about: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with its help text and the range of its number, or of each number of its tuple."""
    limits = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    metadata = {"help": about, "limits": {name: value for name, value in limits.items() if value is not None}}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Field:
    """One setting of a config: `path` is `optimizer.lr` or `network.conv1.kernels`, `default` the value there now."""

    path: str
    hint: Any
    default: Any
    about: str
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The only values that a setting may have, or None."""
        return typing.get_args(self.hint) if typing.get_origin(self.hint) is Literal else None

    @property
    def optional(self) -> bool:
        """Whether the setting may be left open: None in Python, `none` on the command line and in a file."""
        return isinstance(self.hint, types.UnionType)

    @property
    def several(self) -> bool:
        """Whether the value is a tuple."""
        return typing.get_origin(self.hint) is tuple

    @property
    def kind(self) -> Any:
        """The type of the value, or of each of several."""
        return typing.get_args(self.hint)[0] if self.optional or self.several else self.hint

    @property
    def wanted(self) -> str:
        """What the value should be, in words: `a number from 0 to below 1`."""
        if self.choices:
            return either(self.choices)
        if self.kind is bool:
            return "true or false"
        if self.several:
            word, example = SEVERAL.get(self.kind, ("texts", "conv1,fc8"))
            return f"{word}{self._range()}, as {example}"
        word = {int: "a whole number", float: "a number"}.get(self.kind, "a text")
        return word + self._range() + (", or none" if self.optional else "")

    def parse(self, text: str) -> Any:
        """The value that a text on the command line means. Raises UsageError."""
        try:
            return self.check(self._read(text))
        except (ValueError, KeyError):
            raise self._refusal(text) from None

    def check(self, value: Any) -> Any:
        """The value, if its type and range are right: a list becomes a tuple. Raises UsageError."""
        if self.optional and value in (None, "none"):
            return None
        if self.several:
            if not isinstance(value, list | tuple) or not all(self._holds(part) for part in value):
                raise self._refusal(value)
            return tuple(value)
        if not self._holds(value):
            raise self._refusal(value)
        return float(value) if self.kind is float else value

    def _read(self, text: str) -> Any:
        if self.several:
            return tuple(self._one(part) for part in text.replace(",", " ").split())
        if self.optional and text.lower() == "none":
            return None
        if self.kind is bool:
            return SWITCH[text.lower()]
        return self._one(text)

    def _one(self, text: str) -> Any:
        return number(text, self.kind) if self.kind in (int, float) else text

    def _holds(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind in (int, float):
            return type(value) in (self.kind, int) and self._within(value)
        return type(value) is self.kind

    def _within(self, number: float) -> bool:
        tests = {
            "minimum": lambda limit: number >= limit,
            "maximum": lambda limit: number <= limit,
            "above": lambda limit: number > limit,
            "below": lambda limit: number < limit,
        }
        return abs(number) < LARGEST[type(number)] and all(tests[name](limit) for name, limit in self.limits.items())

    def _range(self) -> str:
        words = {"minimum": "of at least", "maximum": "of at most", "above": "above", "below": "below"}
        return " and".join(f" {words[name]} {limit}" for name, limit in self.limits.items())

    def _refusal(self, value: Any) -> UsageError:
        shown = list(value) if isinstance(value, tuple) else value
        hint = suggestion(value, self.choices) if self.choices and isinstance(value, str) else ""
        return UsageError(f"{self.path} {quoted(shown)} should be {self.wanted}{hint}")


def number(text: str, kind: type) -> Any:
    """An int or float of a text in plain digits: none of other scripts, no 1_000. Raises ValueError."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return kind(text)


def either(choices: Sequence[object]) -> str:
    """Choices in words: `1, 5 or 10`."""
    words = [str(choice) for choice in choices]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def fields_of(owner: Any, path: str) -> Iterator[Field]:
    """The settings of a dataclass or an instance of one, below `path`; of a class, with the defaults (or REQUIRED)."""
    kind = owner if isinstance(owner, type) else type(owner)
    for entry in dataclasses.fields(kind):
        if "help" in entry.metadata:
            value = entry.default if isinstance(owner, type) else getattr(owner, entry.name)
            hint = _hints(kind)[entry.name]
            yield Field(f"{path}.{entry.name}", hint, value, entry.metadata["help"], entry.metadata["limits"])


def checked(kind: type, path: str, values: Mapping[str, Any], rest: Any = None, **own: Any) -> Any:
    """A `kind` of checked values, the others as in `rest` (an instance) or by default; `own` are no settings.

    Raises UsageError naming the first value that is unknown (with the nearest name), wrong or missing.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{path} {quoted(values)} should be a table of settings")
    known = {entry.path.rpartition(".")[2]: entry for entry in fields_of(kind, path)}
    for name in values:
        if name not in known:
            hint = suggestion(f"{path}.{name}", [entry.path for entry in known.values()])
            raise UsageError(f"{path}.{name} is not a setting{hint}")
    good = {name: known[name].check(value) for name, value in values.items()}
    if rest is not None:
        return dataclasses.replace(rest, **good)
    for name, entry in known.items():
        if entry.default is REQUIRED and name not in good:
            raise UsageError(f"{path}.{name} is missing; it should be {entry.wanted}")
    return kind(**own, **good)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
