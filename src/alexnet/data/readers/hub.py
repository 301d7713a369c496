"""Other people's collections by name: torchvision's data sets, and the Hugging Face hub's as `hf:owner/name`."""

from __future__ import annotations

import http.client
import os
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.dataset import SPLITS, ArraySplit, Labels, Source, Split, check_source
from alexnet.data.preprocess import read_image_file
from alexnet.data.readers.folder import FolderSplit
from alexnet.errors import DataError, UnreadableImage, one_line, quoted
from alexnet.files import cache_folder

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_CONFIGURATION = re.compile(r"[\w.+-]{1,96}", re.ASCII)
_PATIENCE = 5.0  # seconds to wait for the hub's first answer


@dataclass(frozen=True)
class Known:
    """A data set of torchvision's: its class, the arguments of each split, and where its labels and images are."""

    kind: str
    splits: dict[str, dict[str, Any]]
    labels: str
    images: str


_BOTH = {"train": {"train": True}, "test": {"train": False}}
_NAMED = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
TORCHVISION = {
    "cifar10": Known("CIFAR10", _BOTH, "targets", "data"),
    "cifar100": Known("CIFAR100", _BOTH, "targets", "data"),
    "mnist": Known("MNIST", _BOTH, "targets", "data"),
    "fashion-mnist": Known("FashionMNIST", _BOTH, "targets", "data"),
    "kmnist": Known("KMNIST", _BOTH, "targets", "data"),
    "svhn": Known("SVHN", _NAMED, "labels", "data"),
    "stl10": Known("STL10", _NAMED, "labels", "data"),
    "imagenette": Known("Imagenette", {"train": {"split": "train"}, "val": {"split": "val"}}, "", "_samples"),
    "flowers102": Known("Flowers102", _THREE, "_labels", "_image_files"),
    "food101": Known("Food101", _NAMED, "_labels", "_image_files"),
    "dtd": Known("DTD", _THREE, "_labels", "_image_files"),
    "gtsrb": Known("GTSRB", _NAMED, "", "_samples"),
    "oxford-iiit-pet": Known(
        "OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}}, "_labels", "_images"
    ),
}


def open_torchvision(spec: str, download: bool, root: Path | None = None) -> Source:
    """Open a torchvision data set from `root` (default: the user's cache folder); fetch it only if `download`."""
    from torchvision import datasets

    known = TORCHVISION[spec]
    root = cache_folder() / "torchvision" if root is None else root
    if download:
        root.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Split] = {}
    classes: list[str] = []
    for name, arguments in known.splits.items():
        data_set = _construct(spec, getattr(datasets, known.kind), root, arguments, download)
        images = getattr(data_set, known.images)
        if known.labels:
            labels = np.asarray(getattr(data_set, known.labels), dtype=np.int64)
        else:
            images, labels = [path for path, _ in images], np.array([label for _, label in images], dtype=np.int64)
        if isinstance(images, list):
            paths = [os.path.relpath(path, root) for path in images]
            splits[name] = FolderSplit(name, root, paths, labels)
        else:
            keys = [f"{spec}-{name}-{i:06d}" for i in range(len(labels))]
            splits[name] = ArraySplit(name, _rgb(np.asarray(images)), labels, keys)
        classes = _class_names(data_set) or classes
    if not classes:
        classes = [str(label) for label in range(1 + max(int(split.labels.max()) for split in splits.values()))]
    return check_source(spec, classes, splits)


def _construct(spec: str, kind: Callable[..., Any], root: Path, arguments: dict[str, Any], download: bool) -> Any:
    try:
        return kind(root=str(root), download=False, **arguments)
    except (RuntimeError, OSError) as error:
        if not download:
            raise DataError(
                f"{spec}: torchvision's data set is not in {root} ({one_line(error)}); add --download to fetch it"
            ) from None
    try:
        return kind(root=str(root), download=True, **arguments)
    except Exception as error:  # Whatever the network, the archive or the disk had to say.
        raise DataError(f"{spec}: it could not be downloaded to {root}: {one_line(error)}") from None


def _rgb(images: np.ndarray) -> np.ndarray:
    """Return (N, H, W), (N, 3, H, W) or (N, H, W, 3) as contiguous (N, H, W, 3) uint8."""
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    elif images.shape[1] == 3 and images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images, dtype=np.uint8)


def _class_names(data_set: Any) -> list[str]:
    """A torchvision data set's names of classes, their label behind those of one name, as ImageNet's two cranes."""
    names = [name if isinstance(name, str) else name[0] for name in getattr(data_set, "classes", None) or []]
    count = Counter(names)
    return [f"{name} {label}" if count[name] > 1 else name for label, name in enumerate(names)]


class HubSplit(Split):
    """A split of a Hugging Face data set whose images stay encoded until they are read."""

    def __init__(self, name: str, rows: Any, image: str, labels: Labels) -> None:
        self.name = name
        self.labels = labels
        self._rows = rows
        self._image = image

    def image_name(self, i: int) -> str:
        """As `Split.image_name`."""
        path = self._rows[i][self._image].get("path")
        return os.path.basename(path) if path else f"{self.name}#{i}"

    def image_names(self) -> Iterable[str]:
        """As `Split.image_names`: their numbers, since their names would cost reading every row."""
        return (f"{self.name}#{i}" for i in range(len(self)))

    def read_bytes(self, i: int) -> bytes:
        """As `Split.read_bytes`. Raises `UnreadableImage` for a row without an image."""
        image = self._rows[i][self._image]
        if image.get("bytes") is not None:
            return bytes(image["bytes"])
        if image.get("path"):
            return read_image_file(image["path"])
        raise UnreadableImage("the row holds no bytes")


def _is_reachable(address: str) -> bool:
    """Whether a web server answers within `_PATIENCE` seconds, through the system's proxy if there is one."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer too
        except (OSError, ValueError, http.client.HTTPException):
            finished.set()
            return
        answered.set()
        finished.set()

    finished = threading.Event()
    threading.Thread(target=ask, daemon=True).start()  # looking up a name has no limit of its own
    finished.wait(_PATIENCE)
    return answered.is_set()


def open_hub(spec: str) -> Source:
    """Open `hf:owner/name`, or `hf:owner/name@configuration`, through the optional `datasets` library."""
    name, _, configuration = spec.removeprefix("hf:").partition("@")
    if not _HUB_NAME.fullmatch(name) or ".." in name or (configuration and not _CONFIGURATION.fullmatch(configuration)):
        raise DataError(f"{quoted(spec)} should be hf:owner/name or hf:owner/name@configuration")
    if os.path.exists(name):  # the library would take it in place of the hub's
        raise DataError(f"{spec}: there is a folder {name} here; give its path, or work in another folder")
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise DataError(f"{spec}: this needs the datasets library; pip install 'alexnet[hub]'") from None
    reachable = _is_reachable(huggingface_hub.constants.ENDPOINT)
    if not reachable:  # what was fetched before is read all the same, and the rest is given up at once
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        published = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # The library raises its own, the network's and the disk's errors.
        if not reachable:
            raise DataError(
                f"{spec}: the hub cannot be reached, and this data set was not fetched before; look at the network"
            ) from None
        raise DataError(f"{spec}: it could not be loaded: {one_line(error)}") from None
    splits: dict[str, Split] = {}
    classes: list[str] = []
    for theirs, rows in published.items():
        ours = "val" if theirs.startswith("val") else theirs
        if ours not in SPLITS:
            continue
        image = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
        labels = [key for key, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
        if image is None or not labels:
            raise DataError(f"{spec}: it needs an image and a class label column; it has {', '.join(rows.features)}")
        label = "label" if "label" in labels else labels[0]
        classes = [str(title) for title in rows.features[label].names]
        values = np.array(rows[label], dtype=np.int64)
        if len(values) and (values < 0).all():
            continue  # A test split published without its labels.
        splits[ours] = HubSplit(ours, rows.cast_column(image, datasets.Image(decode=False)), image, values)
    return check_source(spec, classes, splits)
