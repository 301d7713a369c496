"""One way of an image: training, preparing and predicting see the same pixels, and nothing hangs on a strange file."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from alexnet.data.decode import decode
from alexnet.data.loader import BatchLoader
from alexnet.data.preprocess import SCALING_ROOM, read_image_file, square, to_square
from alexnet.data.readers.folder import image_files, open_pictures
from alexnet.data.readers.open import open_source
from alexnet.data.store.prepare import prepare
from alexnet.errors import DataError, UnreadableImage

SIZE = 64
SIDES = [(64, 64), (65, 90), (131, 100), (600, 801), (1200, 1600), (6000, 400)]


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture with coarse shapes and fine noise."""
    rng = np.random.default_rng((seed, height, width))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(smooth + rng.integers(-20, 21, (height, width, 1)), 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, orientation: int = 0) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, object] = {"quality": 90} if kind in ("JPEG", "WEBP") else {}
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """Photographs of all kinds and sizes, by file name."""
    made = {}
    for height, width in SIDES:
        image = photograph(height, width)
        made[f"rgb-{height}x{width}.jpg"] = saved(image, "JPEG")
        made[f"turned-{height}x{width}.jpg"] = saved(image, "JPEG", 6)
        made[f"grey-{height}x{width}.jpg"] = saved(image.convert("L"), "JPEG")
    image = photograph(300, 420)
    made["cmyk.jpg"] = saved(image.convert("CMYK"), "JPEG")
    made["upside-down.png"] = saved(image, "PNG", 3)
    made["mirrored.webp"] = saved(image, "WEBP", 2)
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
    made["sixteen.png"] = saved(Image.fromarray(wide), "PNG")
    alpha = image.convert("RGBA")
    alpha.putalpha(image.convert("L"))
    made["alpha.png"], made["alpha.webp"] = saved(alpha, "PNG"), saved(alpha, "WEBP")
    made["palette.gif"] = saved(image.convert("P"), "GIF")
    return made


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("exif_rotate", [False, True])
def test_training_preparing_and_predicting_see_the_same_pixels(tmp_path: Path, exif_rotate: bool) -> None:
    contents = files()
    for place, (name, data) in enumerate(contents.items()):
        path = tmp_path / "pictures" / ("cat", "dog")[place % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    split = open_source(tmp_path / "pictures").splits["train"]
    prepare(tmp_path / "pictures", tmp_path / "store", size=SIZE, codec="raw", exif_rotate=exif_rotate)
    store = open_source(tmp_path / "store")
    assert store.exif_rotate is exif_rotate
    options = {"seed": 0, "shuffle": False, "exif_rotate": exif_rotate}
    batch = next(BatchLoader(split, SIZE, len(split), **options).epoch(0))
    streamed = next(BatchLoader(split, SIZE, len(split), memory=0, **options).epoch(0))
    assert len(batch.labels) == len(contents)
    for i in range(len(split)):
        data = contents[Path(split.image_name(i)).name]
        expected = to_square(data, SIZE, exif_rotate)
        scaled = decode(data, shortest=SCALING_ROOM * SIZE, exif_rotate=exif_rotate)
        seen = {
            "loader": batch.images[i].numpy(),
            "loader without memory": streamed.images[i].numpy(),
            "split": (split.rotated() if exif_rotate else split).resize_crop(i, SIZE),
            "store": store.splits["train"].decode(i),
            "path": to_square(tmp_path / "pictures" / split.image_name(i), SIZE, exif_rotate),
            "text": to_square(str(tmp_path / "pictures" / split.image_name(i)), SIZE, exif_rotate),
            "array": to_square(scaled, SIZE),
        }
        for way, pixels in seen.items():
            assert np.array_equal(pixels, expected), f"{split.image_name(i)} by {way}"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", sorted(files()))
def test_the_square_is_that_of_pillow_within_a_grey_level(name: str) -> None:
    data = files()[name]
    with Image.open(io.BytesIO(data)) as image:
        if image.mode in ("RGB", "L"):
            upright = ImageOps.exif_transpose(image).convert("RGB")
            side = min(upright.size)
            left, top = (upright.width - side) // 2, (upright.height - side) // 2
            middle = upright.crop((left, top, left + side, top + side))
            pixels = np.asarray(middle.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(int)
            assert np.abs(to_square(data, SIZE, exif_rotate=True) - pixels).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_each_orientation_is_turned_as_pillow_does(kind: str, orientation: int) -> None:
    image = photograph(40, 56)
    data = saved(image, kind, orientation)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    turned = decode(data, exif_rotate=True)
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected).max() <= (2 if kind == "JPEG" else 0)
    assert decode(data).shape == (40, 56, 3)


def test_a_turned_photograph_is_decoded_at_its_scale_too() -> None:
    data = saved(photograph(1200, 1600), "JPEG", 6)
    assert decode(data, shortest=256, exif_rotate=True).shape == (400, 300, 3)


def test_a_pipe_a_folder_a_device_and_a_huge_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(1 << 30)
    for path, reason in (
        (tmp_path / "pipe.jpg", "not a regular file"),
        (tmp_path / "folder.jpg", "regular file|directory"),
        (Path(os.devnull), "not a regular file"),
        (tmp_path / "huge.jpg", "more than the limit"),
        (tmp_path / "absent.jpg", "No such file"),
    ):
        errors: list[Exception] = []

        def attempt(path: Path = path, errors: list[Exception] = errors) -> None:
            try:
                to_square(path, 16)
            except UnreadableImage as error:
                errors.append(error)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(20)
        assert len(errors) == 1, f"{path} is waited for"
        with pytest.raises(UnreadableImage, match=reason):
            read_image_file(path)
        assert str(errors[0]).startswith(f"{path}: ") and "\n" not in str(errors[0])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(UnreadableImage, match=r"uint8 \(H, W, 3\)"):
        to_square(pixels, 8)  # type: ignore[arg-type]


def test_pixels_of_the_right_size_stay_as_they_are() -> None:
    pixels = np.asarray(photograph(20, 30))
    assert np.array_equal(square(pixels, 20), pixels[:, 5:25])


def test_pictures_of_a_folder_are_found_without_hidden_ones(tmp_path: Path) -> None:
    data = saved(photograph(20, 20), "JPEG")
    names = [
        "b.jpg",
        "a/c.jpg",
        "a/d.JPG",
        ".hidden.jpg",
        ".git/x.jpg",
        "__MACOSX/._b.jpg",
        "__MACOSX/e.jpg",
        "notes.txt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = [os.fspath(path.relative_to(tmp_path)) for path in image_files(tmp_path)]
    assert found == ["a/c.jpg", "a/d.JPG", "b.jpg"]
    split = open_pictures(tmp_path)
    assert [split.image_name(i) for i in range(len(split))] == found and split.labels.tolist() == [-1] * 3
    assert len(next(BatchLoader(split, 16, 3, 0).epoch(0)).labels) == 3


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="no pictures"):
        open_pictures(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        image_files(tmp_path / "absent")


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_of_one_row_or_column_is_squared(height: int, width: int, orientation: int) -> None:
    data = saved(photograph(height, width), "PNG", orientation)
    assert to_square(data, 5, exif_rotate=True).shape == (5, 5, 3)
    assert to_square(decode(data)[::-1, ::-1], 5).shape == (5, 5, 3)
