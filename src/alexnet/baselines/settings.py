"""The settings of the two kinds of baseline, from which the command's flags and their help are made.

Imported without NumPy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alexnet.baselines.pyramid import Level, parse_levels
from alexnet.errors import UsageError, quoted, suggestion
from alexnet.setting import Field, checked, either, fields_of, setting

if TYPE_CHECKING:
    from alexnet.baselines.descriptors import Grid

CODES = ("llc", "l1")
MOST_FEATURES = 1 << 20  # of a picture


@dataclass(frozen=True)
class Descriptor:
    """The `length` of a patch's descriptor, and the `cells` along the patch's side, which must be whole.

    `needs_colour`: grey pictures have nothing of it to describe.
    """

    length: int
    cells: int
    needs_colour: bool = False


DESCRIPTORS: Mapping[str, Descriptor] = {
    "sift": Descriptor(128, 1),
    "hog": Descriptor(144, 4),
    "lbp": Descriptor(236, 2),
    "colour": Descriptor(96, 4, needs_colour=True),
}


@dataclass(frozen=True)
class Settings:
    """What both kinds have."""

    size: int = setting(
        64,
        "pixels: the shorter side is scaled to this, then the central square is cut; equal to a network's data.size, "
        "the two can be averaged",
        minimum=8,
        maximum=1024,
    )
    detail: int = setting(
        64, "pixels: smaller squares are enlarged to this before patches are described", minimum=8, maximum=1024
    )
    patches: tuple[int, ...] = setting((16, 24), "pixels: the sides of the patches", minimum=4, maximum=256)
    step: int = setting(4, "pixels from one patch to the next", minimum=1, maximum=64)
    pyramid: tuple[str, ...] = setting(("1x1", "2x2"), "regions in which codes are pooled, rows x columns")
    components: int = setting(64, "principal components of a descriptor that are kept", minimum=1, maximum=1024)
    whiten: float = setting(
        0.7, "0: components as they are; 1: all of variance 1; between: of that power", minimum=0, maximum=1
    )
    samples: int = setting(200_000, "descriptors of training images that a vocabulary is learned from", minimum=100)
    mirror: bool = setting(True, "learn from mirror images too, and average the scores of both at test time")
    penalties: tuple[float, ...] = setting(
        (1e-5, 1e-4),
        "the SVM's penalties λ that are tried; after three epochs the best on validation goes on alone",
        above=0,
    )
    epochs: int = setting(8, "passes of the SVM over the training set at most; the best on validation stays", minimum=1)
    batch_size: int = setting(64, "images per step of the SVM", minimum=1, maximum=4096)
    rate: float = setting(2.0, "the SVM's first learning rate", above=0)
    validation: float = setting(
        0.1, "share of train held out for validation when the source has no val split", above=0, below=1
    )
    exif_rotate: bool = setting(False, "turn pictures as their EXIF orientation says")
    seed: int = setting(0, "decides samples, vocabularies and the order of images", minimum=0, below=2**31)
    threads: int = setting(0, "that compute, which changes no result; 0: one per core", minimum=0, maximum=1024)
    memory: int = setting(2048, "MiB: a split that fits is decoded once and kept", minimum=0)

    @property
    def grid(self) -> Grid:
        """Where the patches lie."""
        from alexnet.baselines.descriptors import Grid

        return Grid(self.detail, self.patches, self.step)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of the pyramid."""
        return parse_levels(self.pyramid)


@dataclass(frozen=True)
class SparseCoding(Settings):
    """Codes of descriptors by a dictionary (Lin et al., CVPR 2011, and the papers named in docs/baselines.md)."""

    members: tuple[str, ...] = setting(
        ("llc-sift", "llc-hog", "llc-lbp", "llc-colour", "l1-colour"),
        "the models that are averaged: a code, llc or l1, and a descriptor, hog, sift, lbp or colour",
    )
    words: int = setting(2048, "words of the dictionary of LLC codes", minimum=8, maximum=65536)
    neighbours: int = setting(5, "words of an LLC code", minimum=1, maximum=64)
    atoms: int = setting(256, "atoms of the dictionary of L1 codes", minimum=8, maximum=65536)
    l1: float = setting(0.15, "the penalty of L1 codes, of descriptors of length 1", above=0, below=1)
    iterations: int = setting(20, "steps that make an L1 code", minimum=1, maximum=1000)


@dataclass(frozen=True)
class SiftFv(Settings):
    """Fisher vectors (Sánchez and Perronnin, CVPR 2011)."""

    members: tuple[str, ...] = setting(
        ("sift", "colour"), "the descriptors whose classifiers are averaged: sift, colour, hog or lbp"
    )
    gaussians: int = setting(64, "Gaussians of a mixture", minimum=1, maximum=4096)


KINDS: Mapping[str, type[Settings]] = {"sparse-coding": SparseCoding, "sift-fv": SiftFv}


def settings_of(kind: str, values: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a kind, some of them given by name. Raises UsageError naming what is wrong."""
    if kind not in KINDS:
        raise UsageError(
            f"unknown kind {quoted(kind)}{suggestion(kind, KINDS) or f'; it should be {either(list(KINDS))}'}"
        )
    settings = checked(KINDS[kind], kind, values or {})
    check(settings)
    return settings


def fields(kind: str) -> Iterator[Field]:
    """The settings of a kind with their defaults."""
    for entry in fields_of(KINDS[kind], kind):
        yield dataclasses.replace(entry, path=entry.path.rpartition(".")[2])


def members(settings: Settings) -> list[tuple[str, str, str]]:
    """Name, code and descriptor of each member, the code `fisher`, `llc` or `l1`. Raises UsageError."""
    found = []
    for name in settings.members:  # type: ignore[attr-defined]
        code, _, descriptor = name.rpartition("-") if isinstance(settings, SparseCoding) else ("fisher", "", name)
        if descriptor not in DESCRIPTORS or code not in ("fisher", *CODES):
            codes = [f"{code}-{name}" for code in CODES for name in DESCRIPTORS]
            known = codes if isinstance(settings, SparseCoding) else list(DESCRIPTORS)
            raise UsageError(f"members {quoted(name)} should be {either(known)}{suggestion(name, known)}")
        found.append((name, code, descriptor))
    if not found or len(set(found)) < len(found):
        raise UsageError("members should name at least one, and each once")
    return found


def check(settings: Settings) -> None:
    """Raise UsageError for settings that do not go together."""
    side, names = max(settings.size, settings.detail), members(settings)
    if not settings.patches:
        raise UsageError("patches should name at least one side, as 16,24")
    for patch in settings.patches:
        if patch > side:
            raise UsageError(
                f"a patch of {patch} pixels does not fit into squares of {side}: choose smaller --patches or a larger "
                "--size or --detail"
            )
        for _, _, descriptor in names:
            if patch % (cells := DESCRIPTORS[descriptor].cells):
                raise UsageError(f"patches {patch} should be a multiple of {cells}, the cells of {descriptor}")
    if not settings.penalties:
        raise UsageError("penalties should name at least one, as 1e-6,1e-5")
    if isinstance(settings, SparseCoding) and settings.neighbours > settings.words:
        raise UsageError(f"neighbours {settings.neighbours} should be at most the {settings.words} words")
    regions = sum(rows * columns for rows, columns in settings.levels)
    largest = max(_length(settings, code) for _, code, _ in names) * regions
    if largest > MOST_FEATURES:
        raise UsageError(f"a picture would become {largest:,} numbers, more than {MOST_FEATURES:,}")


def _length(settings: Settings, code: str) -> int:
    """The features of a region at most."""
    if isinstance(settings, SparseCoding):
        return settings.words if code == "llc" else 2 * settings.atoms
    assert isinstance(settings, SiftFv)
    return 2 * settings.gaussians * settings.components
