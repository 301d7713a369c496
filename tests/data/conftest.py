"""Small images and archives with exactly the layouts that people have."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs {name} in ../shared/data, which is absent")
    return folder


@pytest.fixture
def cifar10() -> Path:
    return shared("cifar10")


@pytest.fixture
def imagenet_samples() -> Path:
    return shared("imagenet-samples")


def photo_pixels(seed: int = 0, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth colourful picture, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    if kind == "JPEG":
        options.setdefault("quality", 95)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photo() -> Callable[..., np.ndarray]:
    return photo_pixels


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    return encode


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of class folders: `class_folders({"cat": 3, "dog": 2}, split="train")`."""

    def make(counts: dict[str, int], split: str = "", root: Path | None = None, seed: int = 0) -> Path:
        root = root or tmp_path / "pictures"
        for c, (name, count) in enumerate(sorted(counts.items())):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = photo_pixels(seed + 1000 * c + i, 36 + 3 * i % 17, 40 + 5 * c % 13)
                (folder / f"{i:03d}.jpg").write_bytes(encode(pixels))
        return root

    return make


def tar_of(files: dict[str, bytes], kind: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=kind) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def make_tar() -> Callable[..., bytes]:
    return tar_of


# Out of order on purpose: the id of a category is not the rank of its wnid, and a parent has an id in between.
SYNSETS = [
    ("n02119789", 1, "kit fox, Vulpes macrotis", 0),
    ("n02100735", 2, "English setter", 0),
    ("n01440764", 3, "tench, Tinca tinca", 0),
    ("n02096294", 4, "Australian terrier", 0),
    ("n00001740", 5, "entity", 4),
]


def meta_mat(year: int) -> bytes:
    kind = np.dtype(
        [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
        + [("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]
    )
    rows = np.empty((len(SYNSETS), 1), dtype=kind)
    for at, (wnid, number, words, children) in enumerate(reversed(SYNSETS)):
        rows[at, 0] = (number, wnid, words, "", children, np.zeros((1, children)), 0, 2)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": rows})
    return buffer.getvalue()


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with one year's official archives: 4 categories of 3 training images, and 8 in val (and test)."""

    def make(year: int = 2012, truth: tuple[int, ...] = (3, 1, 4, 2, 2, 3, 1, 4)) -> Path:
        root = tmp_path / f"ilsvrc{year}"
        root.mkdir()
        inner = {}
        for wnid, number, _, children in SYNSETS:
            if not children:
                files = {f"{wnid}_{i}.JPEG": encode(photo_pixels(100 * number + i)) for i in range(3)}
                inner[f"{wnid}.tar"] = tar_of(files)
        lines = "".join(f"{number}\n" for number in truth).encode()

        def flat(split: str) -> bytes:
            # Written in an order that is not that of the names, as tars often are.
            base = 5000 if split == "val" else 6000
            files = {
                f"ILSVRC{year}_{split}_{i + 1:08d}.JPEG": encode(photo_pixels(base + 100 * truth[i] + i))
                for i in reversed(range(len(truth)))
            }
            return tar_of(files)

        if year == 2012:
            names = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
            kit, top = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12"
            texts = {"ILSVRC2012_validation_ground_truth.txt": lines}
        else:
            names = ("ILSVRC2010_images_train.tar", "ILSVRC2010_images_val.tar")
            kit, top = "ILSVRC2010_devkit-1.0.tar.gz", "devkit-1.0"
            texts = {f"ILSVRC2010_{kind}_ground_truth.txt": lines for kind in ("validation", "test")}
            (root / "ILSVRC2010_images_test.tar").write_bytes(flat("test"))
        (root / names[0]).write_bytes(tar_of(inner))
        (root / names[1]).write_bytes(flat("val"))
        members = {f"{top}/data/{name}": text for name, text in texts.items()} | {
            f"{top}/data/meta.mat": meta_mat(year)
        }
        (root / kit).write_bytes(tar_of(members, "w:gz"))
        return root

    return make
