"""What a file's header says: sizes, costs, and refusals before any pixel is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from alexnet.data import decode as decoding
from alexnet.data import headers
from alexnet.data.decode import MAX_MEMORY, decode, decode_with_notes
from alexnet.data.headers import read_header
from alexnet.errors import UnreadableImage
from tests.fuzz import images as fuzz
from tests.fuzz.images import FORMATS, chunk, exif, png_head, resized, saved

# pytest undoes the filters that the module sets for its users.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

Photo = Callable[..., np.ndarray]


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where any decoder is asked to decode."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    monkeypatch.setattr(Image, "open", fail)
    monkeypatch.setattr(np, "frombuffer", fail)


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_of_every_format_are_read_at_the_size_that_the_header_says(kind: str) -> None:
    for seed in range(40):
        data = FORMATS[kind](Random(seed))
        header, decoded = read_header(data), decode_with_notes(data)
        assert (header.height, header.width) == decoded.pixels.shape[:2], seed
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (header.width, header.height)
            notes = image.mode
            expected = np.asarray(image.convert("RGB"))
        if notes in ("RGB", "L", "CMYK") and not decoded.notes:
            assert np.abs(decoded.pixels.astype(int) - expected).max() <= 2, seed


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("side", [16383, 46340, 65535, 1 << 24, (1 << 31) - 1])
def test_sides_beyond_the_limits_are_refused_before_decoding(kind: str, side: int, untouched: None) -> None:
    for seed in range(9):
        data = resized(FORMATS[kind](Random(seed)), side, side)
        if kind == "WebP" and side not in (16383, 46340, 65535):
            continue  # its fields cannot hold them
        with pytest.raises(UnreadableImage):
            decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM"])
def test_bytes_that_cannot_hold_the_pixels_are_refused_before_decoding(kind: str, untouched: None) -> None:
    for seed in range(9):
        data = resized(FORMATS[kind](Random(seed)), 8000, 7000)
        with pytest.raises(UnreadableImage, match="cannot hold 8000x7000 pixels|limit of 192 MiB|header is wrong"):
            decode(data)


def test_a_png_of_many_samples_is_refused_for_what_they_take(untouched: None) -> None:
    data = png_head(8192, 8192, 16, 6) + chunk(b"IDAT", bytes(1 << 20))
    with pytest.raises(UnreadableImage, match="its samples take 512 MiB, more than the limit of 192 MiB"):
        decode(data)


def test_a_webp_that_would_take_too_much_is_refused_for_it(untouched: None) -> None:
    data = saved(Image.new("RGB", (9, 9)), "WEBP", lossless=True)
    with pytest.raises(UnreadableImage, match="7000x7000 pixels .* more than the limit of 600 MiB"):
        decode(resized(data, 7000, 7000))
    assert read_header(resized(data, 5000, 5000)).memory < MAX_MEMORY


def megapixels(height: int, width: int) -> bytes:
    """A grey JPEG of many pixels of nearly one colour."""
    pixels = np.full((height, width, 1), 90, np.uint8)
    pixels[: height // 3] = 120
    return simplejpeg.encode_jpeg(pixels, 90, "GRAY", "Gray")


def test_the_largest_camera_jpeg_is_read_scaled_and_whole() -> None:
    data = megapixels(8736, 11648)
    assert decode(data, shortest=1024).shape == (1092, 1456, 3)
    decoding._check_memory(60 << 20, read_header(data).memory, 8736, 11648, turned=False)  # whole, with 60 MiB of bytes


def test_a_progressive_jpeg_keeps_its_coefficients_so_that_less_fits(photo: Photo) -> None:
    data = saved(Image.fromarray(photo(1, 64, 64)), "JPEG", progressive=True, subsampling=0)
    assert read_header(data).memory == 64 * 64 * 3 * 2
    assert read_header(saved(Image.fromarray(photo(1, 64, 64)), "JPEG", progressive=True)).memory == 64 * 64 * 3
    assert read_header(saved(Image.fromarray(photo(1, 64, 64)), "JPEG")).memory == 0
    claims = resized(data, 9000, 9000) + bytes(1 << 20)
    with pytest.raises(UnreadableImage, match="more than the limit of 600 MiB"):
        decode(claims)


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA])
def test_lossless_and_arithmetic_coded_jpegs_of_many_pixels_are_named(marker: int, untouched: None) -> None:
    data = megapixels(2100, 2100).replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    with pytest.raises(UnreadableImage, match="lossless or arithmetic-coded"):
        read_header(data)


@pytest.mark.parametrize(
    "head, name",
    [
        (b"II*\0\x08\0\0\0", "a TIFF or a camera's raw file"),
        (b"MM\0*\0\0\0\x08", "a TIFF or a camera's raw file"),
        (b"\0\0\0\x1cftypavif", "an AVIF"),
        (b"\0\0\0\x24ftypheic", "a HEIC"),
        (b"\0\0\0\x24ftypmif1", "a HEIC"),
        (b"\0\0\0\x18ftypcrx ", "a camera's raw file"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (b"\xff\x0a\0\0", "a JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="x">', "an SVG"),
        (b"\n<svg>", "an SVG"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"P3 2 2 255\n1 2 3", "a text or bitmap PPM"),
        (b"P7\nWIDTH 9", "a PAM or PFM"),
        (b"Pf 9 9 -1.0\n", "a PAM or PFM"),
        (b"\0\0\1\0\1\0", "an icon"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_formats_that_are_not_read_are_named_with_what_to_do(head: bytes, name: str) -> None:
    with pytest.raises(UnreadableImage, match=f"it is {name}.*; convert it to JPEG or PNG: the formats read are JPEG"):
        decode(head + bytes(200))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_read_from_the_exif_block_of_any_format(order: str, kind: str, orientation: int) -> None:
    block = exif(orientation)
    block.endian = order
    data = saved(Image.new("RGB", (8, 6)), kind, exif=block)
    assert read_header(data).orientation == orientation
    assert decode(data, exif_rotate=True).shape[:2] == ((8, 6) if orientation > 4 else (6, 8))


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"XX*\0\x08\0\0\0\1\0",
        b"II*\0\x08\0\0\0\xff\xff" + bytes(50),
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 9, 0),
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x0112, 4, 1, 6, 0),
    ],
)
def test_an_exif_block_that_makes_no_sense_leaves_the_picture_as_it_is(block: bytes) -> None:
    data = png_head(8, 6, 8, 0) + chunk(b"eXIf", block) + chunk(b"IDAT", zlib.compress(bytes(54))) + chunk(b"IEND", b"")
    assert decode(data, exif_rotate=True).shape == (6, 8, 3)


def png_with(*parts: bytes) -> bytes:
    return png_head(9, 9, 8, 0) + b"".join(parts) + chunk(b"IDAT", zlib.compress(bytes(90))) + chunk(b"IEND", b"")


def test_profiles_texts_and_later_frames_never_reach_the_decoder(photo: Photo) -> None:
    bomb = chunk(b"zTXt", b"t\0\0" + zlib.compress(bytes(1 << 20))) + chunk(b"iCCP", b"p\0\0" + b"x" * 99)
    assert b"zTXt" not in read_header(png_with(bomb)).content and b"iCCP" not in read_header(png_with(bomb)).content
    plain = saved(Image.fromarray(photo(1)), "JPEG")
    padded = plain[:2] + b"\xff\xe2\0\x06MPF\0" + b"\xff\xfe\0\4no" + plain[2:]
    assert read_header(padded).content == read_header(plain).content == plain
    gif = saved(Image.fromarray(photo(1)), "GIF", comment=b"a comment", transparency=3)
    assert b"a comment" not in read_header(gif).content
    assert (decode(gif) == decode(saved(Image.fromarray(photo(1)), "GIF", transparency=3))).all()


@pytest.mark.parametrize(
    "data",
    [
        png_with(chunk(b"tEXt", b"") * (headers.MAX_PARTS + 9)),
        b"\xff\xd8" + b"\xff\xe1\0\2" * (headers.MAX_PARTS + 9),
        b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1a" * (headers.MAX_PARTS + 9) + b"\0,",
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + b"junk\0\0\0\0" * (headers.MAX_PARTS + 9),
    ],
    ids=["PNG", "JPEG", "GIF", "WebP"],
)
def test_a_file_of_very_many_parts_is_refused(data: bytes, untouched: None) -> None:
    with pytest.raises(UnreadableImage, match=f"more than {headers.MAX_PARTS}"):
        read_header(data)


@pytest.mark.parametrize(
    "head", [b"P6 " + b"#" * 9999, b"P5" + b" " * 9999, b"P5 " + b"9" * 9999, b"P6 0 0 0\n", b"P6 2 2 70000\n"]
)
def test_a_ppm_without_an_ordinary_header_is_refused(head: bytes, untouched: None) -> None:
    with pytest.raises(UnreadableImage):
        decode(head + bytes(99))


@pytest.mark.parametrize("packing", [1, 2, 4, 5])
def test_a_packed_bmp_is_refused_by_name(packing: int, untouched: None) -> None:
    data = bytearray(saved(Image.new("P", (9, 9)), "BMP"))
    data[30:34] = struct.pack("<I", packing)
    with pytest.raises(UnreadableImage, match="packed in an uncommon way"):
        decode(bytes(data))


@pytest.mark.parametrize("highest", [1, 100, 255, 256, 1023, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_of_a_ppm_are_scaled_to_255(channels: int, highest: int) -> None:
    samples = np.linspace(0, highest, 6 * channels).round().astype(">u2" if highest > 255 else np.uint8)
    data = f"P{5 if channels == 1 else 6}\n# a comment\n3 2\n{highest}\n".encode() + samples.tobytes()
    expected = np.floor(samples.astype(float) * 255 / highest + 0.5).reshape(2, 3, channels)
    assert (decode(data) == expected).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_pictures_converted_strip_by_strip_are_the_same(
    mode: str, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(photo(1, 40, 33))
    if mode == "I;16":
        image = Image.fromarray(photo(1)[:, :, 0].astype(np.uint16) * 255)
    elif mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(photo(2, 40, 33)[:, :, 0]))
    data = saved(image if mode == "I;16" else image.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    whole = decode(data)
    monkeypatch.setattr(decoding, "_STRIP", 100)
    assert (decode(data) == whole).all()


def test_the_first_frame_of_an_animation_is_read(photo: Photo) -> None:
    frames = [Image.fromarray(photo(seed)) for seed in range(3)]
    for kind in ("PNG", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert (decode(data) == photo(0)).all(), kind


def test_a_valid_picture_is_changed_by_every_change() -> None:
    rng = Random(1)
    for make in FORMATS.values():
        data = make(rng)
        for change in fuzz.CHANGES:
            assert any(change(rng, data) != data for _ in range(9)), change


def test_a_jpeg_of_a_subsampling_that_the_fast_decoder_does_not_know_is_read(
    photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: bytes) -> None:
        raise KeyError(6)

    data = saved(Image.fromarray(photo(1)), "JPEG")
    expected = decode(data)
    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", unknown)
    decoded = decode_with_notes(data)
    assert (decoded.pixels == expected).all() and decoded.notes == ()
