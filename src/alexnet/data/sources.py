"""Open anything labelled: `open_source` knows every kind of SRC that commands accept."""

import difflib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alexnet.data.decode import MAX_BYTES, Pixels, UnreadableImage
from alexnet.data.splits import DataError, Labels, Source, Split, Subset, check_source, draws, hold_out

__all__ = ["DataError", "Source", "Split", "Subset", "hold_out", "open_source"]

FOLDER_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# Files that live beside images; anything else is tried, and counted as unreadable if it is no image.
NOT_IMAGES = frozenset(
    (".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".md", ".html", ".htm", ".yaml", ".yml", ".py", ".pkl")
    + (".npy", ".npz", ".mat", ".pdf", ".zip", ".tar", ".gz", ".ini", ".log", ".db")
)


def open_source(spec: str | os.PathLike[str], download: bool = False) -> Source:
    """Open labelled images by their specification.

    `digits` (scikit-learn's, always there); a folder of class folders with or without train, val and test, of Parquet
    files in the Hugging Face layout, of official ILSVRC tars and devkit, of synset tars, or of tar shards in WebDataset
    layout; a store made by `alexnet data prepare`; `hf:owner/name`; a torchvision data set by name, fetched only if
    `download`. Raises `DataError` with one line that says what is wrong and how to mend it.
    """
    spec = os.fspath(spec)
    if spec == "digits":
        return _digits()
    if spec.startswith("hf:"):
        from alexnet.data.hub import open_hub

        return open_hub(spec)
    root = Path(spec).expanduser()
    if not root.exists():
        from alexnet.data.hub import TORCHVISION, open_torchvision

        if spec in TORCHVISION:
            return open_torchvision(spec, download)
        nearest = difflib.get_close_matches(spec, ["digits", *TORCHVISION], n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "give a folder of images, or `digits`"
        raise DataError(f"{spec}: there is no such folder or data set; {hint}")
    return _open_files(spec, root)


def _open_files(spec: str, root: Path) -> Source:
    """Open what is on disk by looking at the names of the files."""
    from alexnet.data import ilsvrc, parquet, store, webdataset

    if root.is_file():
        if root.suffix != ".tar":
            raise DataError(f"{spec}: it is a file, but a folder of images or a tar is needed")
        from alexnet.data.tars import members

        first = next(iter(members(root)), None)
        if first is not None and first.name.endswith(".tar"):
            return ilsvrc.open_synset_tars(spec, root)
        return webdataset.open_webdataset(spec, root.parent, {"train": [root]})
    if store.is_store(root):
        return store.open_store(spec, root)
    if (known := ilsvrc.edition(root)) is not None:
        return ilsvrc.open_ilsvrc(spec, root, known)
    if ilsvrc.is_synset_tars(root):
        return ilsvrc.open_synset_tars(spec, root)
    if parquet.shards(root):
        return parquet.open_parquet(spec, root)
    if found := webdataset.shards(root):
        return webdataset.open_webdataset(spec, root, found)
    return _folders(spec, root)


class ArraySplit(Split):
    """Images that are already pixels in memory: (N, H, W, 3) uint8."""

    def __init__(self, name: str, images: Pixels, labels: Labels, keys: Sequence[str]) -> None:
        self.name = name
        self.images = images
        self.labels = labels
        self._keys = keys

    def key(self, i: int) -> str:
        return self._keys[i]

    def encoded(self, i: int) -> bytes:
        import io

        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.images[i]).save(buffer, "PNG")
        return buffer.getvalue()

    def read(self, i: int, shortest: int = 0) -> Pixels:
        return self.images[i]


def _digits() -> Source:
    """Scikit-learn's 1,797 handwritten digits, 8×8, with a fixed stratified fifth of each class as the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.clip(np.rint(bunch.images * (255 / 16)), 0, 255).astype(np.uint8)
    images = np.repeat(grey[:, :, :, None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    words = draws(len(labels), 1998)
    tested = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        tested[members[np.argsort(words[members], kind="stable")[: len(members) // 5]]] = True
    splits: dict[str, Split] = {}
    for name, chosen in (("train", ~tested), ("test", tested)):
        keys = [f"digit-{i:04d}" for i in np.flatnonzero(chosen)]
        splits[name] = ArraySplit(name, np.ascontiguousarray(images[chosen]), labels[chosen], keys)
    return check_source("digits", [str(digit) for digit in range(10)], splits)


def read_file(path: str) -> bytes:
    """Return the bytes of an image file. Raises `UnreadableImage`, also for what would block or fill the memory."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage("it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(f"its {status.st_size} bytes are more than the limit of {MAX_BYTES}")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnreadableImage(f"the file cannot be read: {error.strerror}") from None


class FolderSplit(Split):
    """Image files in class folders."""

    def __init__(self, name: str, root: Path, paths: Sequence[str], labels: Labels) -> None:
        self.name = name
        self.root = os.fspath(root)
        self.paths = paths
        self.labels = labels

    def key(self, i: int) -> str:
        return self.paths[i]

    def encoded(self, i: int) -> bytes:
        return read_file(os.path.join(self.root, self.paths[i]))


def _class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read: {error.strerror}") from None


def _image_files(folder: Path) -> list[str]:
    """Return the files under a class folder that may be images, as sorted paths relative to it."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() not in NOT_IMAGES:
                found.append(os.path.relpath(os.path.join(parent, name), folder))
    return sorted(found)


def _folders(spec: str, root: Path) -> Source:
    """Open a folder of class folders; classes are sorted by name, those of train where there is a train folder."""
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
    for split, place in places.items():
        paths: list[str] = []
        labels: list[int] = []
        for name in _class_folders(place):
            files = _image_files(place / name)
            if name not in index:
                if not files:
                    continue
                raise DataError(
                    f"{spec}: class {name!r} is in {split} but not in {first.name}; "
                    f"add training images of it or remove it from {split}"
                )
            if not files and place == first:
                raise DataError(f"{spec}: class folder {name} in {place.name} holds no images; fill or remove it")
            prefix = os.path.relpath(place / name, root)
            paths.extend(os.path.join(prefix, file) for file in files)
            labels.extend([index[name]] * len(files))
        splits[split] = FolderSplit(split, root, paths, np.array(labels, dtype=np.int64))
    return check_source(spec, classes, splits)
