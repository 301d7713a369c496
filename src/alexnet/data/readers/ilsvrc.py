"""The official ImageNet archives as they are downloaded: ILSVRC-2010, ILSVRC-2012, and folders of synset tars.

Labels come from the devkit's `meta.mat` and ground-truth files: label = ILSVRC id - 1, never the rank of a name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alexnet.data.dataset import Labels, Source, Split, check_source
from alexnet.data.readers.matlab import read_records
from alexnet.data.readers.tar import Member, inflated, members, walk
from alexnet.data.readers.words import WNID
from alexnet.errors import DataError, quoted
from alexnet.files import read_regular

# Bytes of a devkit, packed or not, and of its files that are read at most; the real ones have about three megabytes.
_MAX_DEVKIT = 1 << 26
_MAX_META = 1 << 23
_MAX_TRUTH = 1 << 21
_ID = re.compile(rb"[0-9]{1,9}")


@dataclass(frozen=True)
class Edition:
    """The file names of one year's archives and what is known of them (counts, md5 sums)."""

    year: int
    archives: dict[str, str]
    devkit: str
    devkit_folder: str
    truths: dict[str, str]
    counts: dict[str, int]
    md5: dict[str, str]


EDITIONS = (
    Edition(
        year=2012,
        archives={"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"},
        devkit="ILSVRC2012_devkit_t12.tar.gz",
        devkit_folder="ILSVRC2012_devkit_t12",
        truths={"val": "ILSVRC2012_validation_ground_truth.txt"},
        counts={"train": 1_281_167, "val": 50_000},
        md5={
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
            "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        },
    ),
    Edition(
        year=2010,
        archives={
            "train": "ILSVRC2010_images_train.tar",
            "val": "ILSVRC2010_images_val.tar",
            "test": "ILSVRC2010_images_test.tar",
        },
        devkit="ILSVRC2010_devkit-1.0.tar.gz",
        devkit_folder="devkit-1.0",
        truths={"val": "ILSVRC2010_validation_ground_truth.txt", "test": "ILSVRC2010_test_ground_truth.txt"},
        counts={"val": 50_000, "test": 150_000},
        md5={},
    ),
)


@dataclass(frozen=True)
class Synset:
    """A category of the devkit: its ILSVRC id (from 1), wnid and words."""

    ilsvrc_id: int
    wnid: str
    words: str

    @property
    def title(self) -> str:
        """The wnid and its first word, as classes are named here."""
        return f"{self.wnid} {self.words.split(',')[0].strip()}".strip()


def edition(root: Path) -> Edition | None:
    """Return the edition whose archives lie in a folder, or None."""
    for known in EDITIONS:
        if any((root / name).is_file() for name in known.archives.values()):
            return known
    return None


def open_ilsvrc(spec: str, root: Path, known: Edition) -> Source:
    """Open a folder with one edition's official tars and its devkit (the tar.gz or its unpacked folder)."""
    from alexnet.data.readers.tar_index import TarSplit, build_index

    synsets = read_synsets(root, known)
    label_of = {synset.wnid: synset.ilsvrc_id - 1 for synset in synsets}
    splits: dict[str, Split] = {}
    for name, archive in known.archives.items():
        path = root / archive
        if not path.is_file():
            continue
        if name == "train":
            index = build_index([path], "tar of tars", _synset_members)
            unknown = sorted(set(index.groups) - set(label_of))
            if unknown:
                raise DataError(
                    f"{path}: it holds {unknown[0]}.tar, which is not a category of the {known.year} devkit"
                )
            label_of_group = np.array([label_of[wnid] for wnid in index.groups], dtype=np.int64)
            splits[name] = TarSplit(name, [path], label_of_group[index.group], index)
        else:
            # The ground truth has one line per image in order of the names, which is not the archive's.
            index = build_index([path], "flat tar", _flat_members).sorted_by_name()
            truth = known.truths[name]
            labels = np.array(_ground_truth(root, known, truth), dtype=np.int64) - 1
            if len(labels) != len(index):
                raise DataError(f"{path}: it holds {len(index)} images, but {truth} has {len(labels)} lines")
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(synsets):
                wrong = int(labels.max() if labels.max() >= len(synsets) else labels.min()) + 1
                raise DataError(f"{root}: {truth} names id {wrong}, but the ids of meta.mat are 1 to {len(synsets)}")
            splits[name] = TarSplit(name, [path], labels, index)
    source = check_source(spec, [synset.title for synset in synsets], splits)
    return replace(source, words=tuple(synset.words for synset in synsets))


def read_synsets(root: Path, known: Edition) -> list[Synset]:
    """Return the categories without children of a devkit's `meta.mat`, by ILSVRC id. Raises `DataError`."""
    data = _devkit_file(root, known, "meta.mat", _MAX_META)
    if data is None:
        raise DataError(f"{root}: meta.mat is missing; put {known.devkit} beside the tars")
    fields = (f"ILSVRC{known.year}_ID", "WNID", "words", "num_children")
    try:
        rows = [tuple(row[field] for field in fields) for row in read_records(data, "synsets", fields)]
    except ValueError as error:
        raise DataError(f"{root}: meta.mat of {known.devkit} cannot be read: {error}") from None
    synsets = []
    for number, wnid, words, children in rows:
        if children != 0:
            continue
        if not isinstance(wnid, str) or not WNID.fullmatch(wnid) or not isinstance(words, str):
            raise DataError(f"{root}: meta.mat names a category {quoted(wnid)} with the words {quoted(words)}")
        synsets.append(Synset(number, wnid, words))
    if sorted(synset.ilsvrc_id for synset in synsets if isinstance(synset.ilsvrc_id, int | float)) != list(
        range(1, len(synsets) + 1)
    ):
        raise DataError(f"{root}: the ids of the categories in meta.mat are not 1 to {len(synsets)}")
    if len({synset.wnid for synset in synsets}) != len(synsets):
        raise DataError(f"{root}: meta.mat names a category twice")
    return sorted((replace(synset, ilsvrc_id=int(synset.ilsvrc_id)) for synset in synsets), key=lambda s: s.ilsvrc_id)


def is_synset_tars(root: Path) -> bool:
    """Return whether a folder holds one tar per synset (n01440764.tar and so on)."""
    return any(WNID.fullmatch(path.stem) for path in root.glob("n*.tar"))


def open_synset_tars(spec: str, root: Path) -> Source:
    """Open a folder of synset tars (Fall 2009 and 2011 style), or one tar of them; classes by wnid, all in train."""
    from alexnet.data.readers.tar_index import TarSplit, build_index

    if root.is_file():
        paths = [root]
        index = build_index(paths, "tar of tars", _synset_members)
    else:
        paths = sorted(path for path in root.glob("n*.tar") if WNID.fullmatch(path.stem))
        index = build_index(paths, "synset tars", lambda _, path: ((path.stem, member) for member in members(path)))
        empty = sorted({path.stem for path in paths} - set(index.groups))
        if empty:
            raise DataError(f"{spec}: {empty[0]}.tar holds no images; fetch it again or remove it")
    classes = sorted(index.groups)
    rank = {wnid: label for label, wnid in enumerate(classes)}
    label_of_group = np.array([rank[wnid] for wnid in index.groups], dtype=np.int64)
    labels: Labels = label_of_group[index.group] if len(index.group) else np.zeros(0, np.int64)
    return check_source(spec, classes, {"train": TarSplit("train", paths, labels, index)})


def _synset_members(_: int, path: Path) -> Iterable[tuple[str, Member]]:
    for inner in members(path):
        wnid = Path(inner.name).stem
        if Path(inner.name).suffix != ".tar" or not WNID.fullmatch(wnid):
            raise DataError(f"{path}: it holds {quoted(inner.name)} where tars of synsets (n01440764.tar) are expected")
        for member in members(path, inner.offset, inner.size):
            yield wnid, member


def _flat_members(_: int, path: Path) -> Iterable[tuple[str, Member]]:
    for member in members(path):
        name = member.name.rsplit("/", 1)[-1]
        if not name.startswith("."):
            yield "", Member(name, member.offset, member.size)


def _ground_truth(root: Path, known: Edition, truth: str) -> list[int]:
    data = _devkit_file(root, known, truth, _MAX_TRUTH)
    if data is None:
        raise DataError(f"{root}: {truth} is missing; put {known.devkit} or that file beside the tars")
    ids = data.split()
    for line, number in enumerate(ids, 1):
        if not _ID.fullmatch(number):
            raise DataError(f"{root}: {truth} must hold one id per line, but number {line} is {quoted(number)}")
    return [int(number) for number in ids]


def _devkit_file(root: Path, known: Edition, name: str, most: int) -> bytes | None:
    """Return a file of the devkit of at most so many bytes: beside the tars, from its unpacked folder or its tar.gz."""
    path = root / known.devkit
    try:
        for place in (root / name, root / known.devkit_folder / "data" / name, root / "data" / name):
            if place.exists():
                path = place
                return read_regular(place, most)
        if not path.exists():
            return None
        content = inflated(read_regular(path, _MAX_DEVKIT), _MAX_DEVKIT)
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    for member in walk(io.BytesIO(content), str(path), 0, len(content)):
        if member.name.rsplit("/", 1)[-1] == name:
            if member.size > most:
                raise DataError(f"{path}: {name} in it has {member.size:,} bytes; the limit is {most:,}")
            return content[member.offset : member.offset + member.size]
    return None
