"""Image files in class folders, with or without train, val and test, and folders of pictures without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet.data.dataset import Labels, Source, Split, check_source
from alexnet.data.preprocess import read_image_file
from alexnet.errors import DataError, quoted, several

FOLDER_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# Files that live beside images; anything else is tried, and counted as unreadable if it is not an image.
NOT_IMAGES = frozenset(
    (".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".md", ".html", ".htm", ".yaml", ".yml", ".py", ".pkl")
    + (".npy", ".npz", ".mat", ".pdf", ".zip", ".tar", ".gz", ".ini", ".log", ".db")
)
# Pictures of formats that are not read: left out of class folders, and counted in the source's notes.
NOT_READ = frozenset(
    (".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".exr", ".ico")
    + (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
)
# What systems and archives put beside the user's own files.
NOT_THE_USERS = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Icon\r")
)


class FolderSplit(Split):
    """Image files in class folders."""

    def __init__(self, name: str, root: Path, paths: Sequence[str], labels: Labels) -> None:
        self.name = name
        self.root = os.fspath(root)
        self.paths = paths
        self.labels = labels

    def image_name(self, i: int) -> str:
        """The path below the source's folder."""
        return self.paths[i]

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`."""
        return read_image_file(os.path.join(self.root, self.paths[i]))


def _hidden(name: str) -> bool:
    """Whether a file or folder is not the user's."""
    return name.startswith(".") or name in NOT_THE_USERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False


def _class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry) and not _hidden(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read: {error.strerror}") from None


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files anywhere under a folder that may be images, sorted; hidden ones and other kinds are left out.

    Raises `DataError` if the folder cannot be read.
    """
    root = Path(folder)
    _class_folders(root)  # else an unreadable folder would look empty
    paths: list[Path] = []
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in files:
            if not _hidden(name) and os.path.splitext(name)[1].lower() not in NOT_IMAGES:
                paths.append(Path(parent, name))
    return sorted(paths, key=lambda path: os.fspath(path.relative_to(root)))


def open_pictures(folder: str | os.PathLike[str]) -> FolderSplit:
    """Open the pictures anywhere under a folder as a split without labels: all are −1.

    Raises `DataError` if there are none.
    """
    root = Path(folder)
    paths = [os.fspath(path.relative_to(root)) for path in image_files(root)]
    if not paths:
        raise DataError(f"{root}: there are no pictures in it")
    return FolderSplit("pictures", root, paths, np.full(len(paths), -1, np.int64))


def open_folders(spec: str, root: Path) -> Source:
    """Open a folder of class folders; classes are sorted by name, those of train where there is a train folder.

    A class folder of train without pictures is an error, since nobody could learn the class; in val and test it is
    none, since a class need not be measured.
    """
    top = _class_folders(root)
    # A class may be called "train" (the locomotive), so a split folder is one that has folders of its own.
    places: dict[str, Path] = {}
    for split, names in FOLDER_NAMES.items():
        for name in names:
            if name in top and _class_folders(root / name):
                places[split] = root / name
                break
    if not places:
        if not top:
            raise DataError(
                f"{spec}: there are no class folders in it; put the images of each class into a folder of its own"
            )
        places["train"] = root
    elif "train" not in places and "train" in top:
        raise DataError(f"{spec}: train holds no class folders; put the images of each class into a folder of its own")
    first = places["train"] if "train" in places else next(iter(places.values()))
    classes = _class_folders(first)
    index = {name: label for label, name in enumerate(classes)}
    splits: dict[str, Split] = {}
    not_read: Counter[str] = Counter()
    empty: dict[str, Counter[str]] = {}  # class folders of the first split without pictures, and what is in them
    for split, place in places.items():
        paths: list[str] = []
        labels: list[int] = []
        for name in _class_folders(place):
            found = image_files(place / name)
            files = [os.fspath(path.relative_to(root)) for path in found if path.suffix.lower() not in NOT_READ]
            others = Counter(path.suffix.lower() for path in found if path.suffix.lower() in NOT_READ)
            not_read += others
            if name not in index:
                if not files:
                    continue
                raise DataError(
                    f"{spec}: class {quoted(name)} is in {split} but not in {first.name}; "
                    f"add training images of it or remove it from {split}"
                )
            if not files and place == first:
                empty[name] = others
            paths.extend(files)
            labels.extend([index[name]] * len(files))
        if empty and place == first:
            raise DataError(
                f"{spec}: {_empty(empty)}; put pictures in, or remove what is no class (a name like .x hides a folder)"
            )
        splits[split] = FolderSplit(split, root, paths, np.array(labels, dtype=np.int64))
    return replace(check_source(spec, classes, splits), notes=(_kinds(not_read),) if not_read else ())


def _empty(folders: Mapping[str, Counter[str]]) -> str:
    """That class folders, given with what is in them, hold no pictures."""
    others = sum(folders.values(), Counter[str]())
    many = "class folder {} holds" if len(folders) == 1 else "class folders {} hold"
    return many.format(several(folders)) + " no pictures" + (f", only {_kinds(others)}," if others else "")


def _kinds(suffixes: Counter[str]) -> str:
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(suffixes.items()))
    if suffixes.total() == 1:
        return f"{counts} file, which is not read (convert it to JPEG or PNG)"
    return f"{counts} files, which are not read (convert them to JPEG or PNG)"
