"""What a source's own names, hashes and known facts say about it: the checks that `verify` makes of any source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from alexnet.data.dataset import Labels, too_many_unreadable
from alexnet.data.readers.words import wnid

# The odd files of the ILSVRC-2012 training set, known to every tool that reads it.
PNG_NAMED_JPEG = ("n02105855_2933",)
CMYK = (
    ("n01739381_1309", "n02077923_14822", "n02447366_23489", "n02492035_15739", "n02747177_10752", "n03018349_4028")
    + ("n03062245_4620", "n03347037_9675", "n03467068_12171", "n03529860_11437", "n03544143_17228", "n03633091_5218")
    + ("n03710637_5125", "n03961711_5286", "n04033995_2932", "n04258138_17003", "n04264628_27969", "n04336792_7448")
    + ("n04371774_5854", "n04596742_4225", "n07583066_647", "n13037406_4650")
)
# The categories of the first images of the ILSVRC-2012 validation set, by which a wrong order shows at once.
FIRST_OF_VAL = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189") + (
    "n02346627",
    "n02776631",
    "n03794056",
    "n02328150",
    "n01917289",
    "n02125311",
)
UNREADABLE = "unreadable: "  # how a message about such a file begins
FEW = 3  # duplicates that are named
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\b")
_TRAIN_NAME = re.compile(r"(n\d{8})_")


@dataclass(frozen=True)
class Issue:
    """Something to know about a source.

    `level` is error (do not train on it), warning (look at it) or note; `where` names a file or split.
    """

    level: str
    where: str
    message: str


@dataclass
class FileRecords:
    """What is known of a split's files: name, label, sha256 (empty if unread), oddness and reason for not reading."""

    split: str
    labels: Labels
    names: list[str] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def labels_against_names(classes: Sequence[str], files: FileRecords) -> list[Issue]:
    """Compare labels with the classes that files are named after, and name a wrong order of classes."""
    wnids = {number: label for label, title in enumerate(classes) if (number := wnid(title))}
    titles = {title: label for label, title in enumerate(classes)}
    votes: dict[int, Counter[str]] = {}
    wrong: list[tuple[str, str, int]] = []
    for name, label in zip(files.names, files.labels.tolist(), strict=True):
        named = _named_after(name, wnids, titles)
        if named is not None:
            votes.setdefault(label, Counter())[named] += 1
            if wnids.get(named, titles.get(named, -1)) != label:
                wrong.append((name, named, label))
    if not wrong:
        return []
    leaders = {label: counter.most_common(1)[0][0] for label, counter in votes.items()}
    moved = {label: named for label, named in leaders.items() if wnids.get(named, titles.get(named, -1)) != label}
    if moved:
        label, named = next(iter(sorted(moved.items())))
        order = [leaders[label] for label in sorted(leaders)]
        kind = ", the sorted order of their names" if order == sorted(order) and len(order) > 2 else ""
        message = (
            f"wrong order of classes: label {label} is called {classes[label]!r}, but {votes[label][named]} of its "
            f"{votes[label].total()} images are named after {named!r}; {len(moved)} of {len(leaders)} classes are "
            f"off, so the labels were numbered in another order than the class names{kind}"
        )
        return [Issue("error", files.split, message)]
    name, named, label = wrong[0]
    message = f"{len(wrong)} files are in another class than they are named after, first {name}: in {classes[label]!r}"
    return [Issue("warning", files.split, message)]


def _named_after(name: str, wnids: dict[str, int], titles: dict[str, int]) -> str | None:
    """Return the class a file says it is of: its wnid prefix, or the class folder it lies in."""
    path = PurePath(name)
    match = _TRAIN_NAME.match(path.name)
    if match and wnids:
        return match[1]
    for folder in reversed(path.parts[:-1]):
        if folder in titles or folder in wnids:
            return folder
    return None


def validation_order(classes: Sequence[str], files: FileRecords) -> list[Issue]:
    """Compare the first validation images of ILSVRC-2012 with their known categories."""
    if len(classes) != 1000:
        return []
    wrong = []
    for name, label in zip(files.names, files.labels.tolist(), strict=True):
        match = _VAL_NAME.search(name)
        if match and 1 <= int(match[1]) <= len(FIRST_OF_VAL):
            true = FIRST_OF_VAL[int(match[1]) - 1]
            if wnid(classes[label]) not in (None, true):
                wrong.append((name, classes[label], true))
    if len(wrong) < 2:
        return []
    name, title, true = wrong[0]
    message = (
        f"wrong order of classes: {name} is labelled {title!r} but shows {true}, and so on for {len(wrong)} of the "
        f"first {len(FIRST_OF_VAL)}; ids of the ground truth are those of meta.mat, not ranks of sorted names"
    )
    return [Issue("error", files.split, message)]


def known_odd_files(classes: Sequence[str], files: FileRecords) -> list[Issue]:
    """Say of each known odd file of ILSVRC-2012's training set whether it was met and handled."""
    if files.split != "train":
        return []
    present = {PurePath(name).stem: name for name in files.names}
    whole = len(classes) == 1000 and all(wnid(title) for title in classes) and len(files.names) > 1_000_000
    issues: list[Issue] = []
    for stem, sign in [(stem, "PNG") for stem in PNG_NAMED_JPEG] + [(stem, "CMYK") for stem in CMYK]:
        name = present.get(stem)
        if name is None:
            if whole:
                issues.append(Issue("warning", files.split, f"known odd file {stem} is absent: a cleaned copy?"))
        elif name in files.reasons:
            issues.append(Issue("error", name, f"known odd file ({sign}) was not read: {files.reasons[name]}"))
        elif sign in files.notes.get(name, ""):
            issues.append(Issue("note", name, f"known odd file ({sign}) met and read as RGB"))
        else:
            issues.append(Issue("warning", name, f"known odd file is no longer {sign}: a cleaned copy?"))
    return issues


def duplicates(splits: Sequence[FileRecords], classes: Sequence[str]) -> list[Issue]:
    """Find files with the same bytes in two splits, in two classes of a split (both errors), or twice in a class."""
    hashes = [digest for files in splits for digest in files.hashes]
    labels = [label for files in splits for label in files.labels.tolist()]
    names = [name for files in splits for name in files.names]
    split_of = np.repeat(np.arange(len(splits)), [len(files.hashes) for files in splits])
    met: dict[bytes, dict[int, dict[int, int]]] = {}  # hash → split → label → the first such file
    found: dict[tuple[int, int, str], list[tuple[int, int]]] = {}  # split, the other one, kind → pairs of files
    for at in _repeated(hashes):
        here, known = int(split_of[at]), met.setdefault(hashes[at], {})
        for there, firsts in known.items():
            other = next((label for label in firsts if label != labels[at]), None)
            kind = "split" if there != here else "file" if other is None else "class"
            pairs = found.setdefault((here, there, kind), [])
            pairs.append((at, firsts[labels[at] if other is None else other]))
        known.setdefault(here, {}).setdefault(labels[at], at)
    said = {
        "split": ("error", "also in {}, byte for byte"),
        "class": ("error", "also in another class, byte for byte"),
        "file": ("warning", "there twice, byte for byte"),
    }
    issues = []
    for (here, there, kind), pairs in found.items():
        level, words = said[kind]
        few = ", ".join(f"{names[at]} = {names[first]}" for at, first in pairs[:FEW])
        if kind == "class":
            few = ", ".join(
                f"{names[at]} in {classes[labels[at]]} = {names[first]} in {classes[labels[first]]}"
                for at, first in pairs[:FEW]
            )
        many = "1 file is" if len(pairs) == 1 else f"{len(pairs):,} files are"
        message = f"{many} {words.format(splits[there].split)}; first {few}"
        issues.append(Issue(level, splits[here].split, message))
    return issues


def _repeated(hashes: Sequence[bytes]) -> list[int]:
    """Places, in order, of hashes that stand there more than once; those that are empty do not count.

    Found by their first eight bytes, so that few of many millions are looked at one by one: perhaps some others too.
    """
    words = np.frombuffer(b"".join(digest[:8].ljust(8, b"\0") for digest in hashes), dtype="<u8")
    order = np.argsort(words, kind="stable")
    equal = words[order][1:] == words[order][:-1]
    repeated = np.zeros(len(words), dtype=bool)
    repeated[order[1:][equal]] = repeated[order[:-1][equal]] = True
    return [at for at in np.flatnonzero(repeated).tolist() if hashes[at]]


def unreadable(files: FileRecords) -> list[Issue]:
    """Report every file that cannot be read; more than training allows are an error."""
    issues = [Issue("warning", name, f"{UNREADABLE}{reason}") for name, reason in files.reasons.items()]
    if too_many_unreadable(len(files.reasons), len(files.names)):
        counts = f"{len(files.reasons):,} of its {len(files.names):,} files"
        message = f"{counts} are unreadable, too many to train on the rest"
        issues.append(Issue("error", files.split, message))
    return issues


def odd(files: FileRecords) -> list[Issue]:
    """Sum up the files that are read but odd: grey, transparent, misnamed, …"""
    if not files.notes:
        return []
    kinds = Counter(re.sub(r",? (from )?\d.*", "", note) for text in files.notes.values() for note in text.split("; "))
    summary = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    many = "1 file is" if len(files.notes) == 1 else f"{len(files.notes):,} files are"
    return [Issue("note", files.split, f"{many} odd but read and used all the same: {summary}")]
