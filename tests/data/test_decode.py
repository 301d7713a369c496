"""Bytes to RGB: right colours from every mode, and no harm from any bytes."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from alexnet.data.decode import MAX_JPEG_PIXELS, MAX_PIXELS, decode, decode_with_notes
from alexnet.data.preprocess import square
from alexnet.errors import UnreadableImage

# pytest undoes the filters that the module sets for its users.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore::PIL.Image.DecompressionBombWarning")

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "teal": (0, 128, 128),
}


def save(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM"])
def test_each_format_keeps_its_colour(name, kind):
    found = decode(save(Image.new("RGB", (24, 20), COLOURS[name]), kind))
    assert found.shape == (20, 24, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - COLOURS[name]).max() <= 4


@pytest.mark.parametrize("name", COLOURS)
def test_a_palette_becomes_its_colours(name):
    image = Image.new("P", (24, 20), 2)
    image.putpalette([1, 2, 3, 4, 5, 6, *COLOURS[name]])
    decoded = decode_with_notes(save(image))
    assert (decoded.pixels == COLOURS[name]).all()
    assert decoded.notes == ("palette",)


@pytest.mark.parametrize(
    "ink, colour",
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 255, 0), (0, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_a_cmyk_jpeg_is_not_a_negative(ink, colour):
    decoded = decode_with_notes(save(Image.new("CMYK", (24, 20), ink), "JPEG", quality=95))
    assert np.abs(decoded.pixels.astype(int) - colour).max() <= 4
    assert decoded.notes == ("CMYK",)


def test_transparent_pixels_become_white_and_half_transparent_ones_half_so():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    decoded = decode_with_notes(save(image))
    assert decoded.pixels[0, 0].tolist() == [255, 255, 255]
    assert np.abs(decoded.pixels[0, 1].astype(int) - [255, 127, 127]).max() <= 1
    assert decoded.notes == ("alpha, over white",)


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert (decode(save(image, transparency=1)) == 255).all()


@pytest.mark.parametrize("value", [0, 255, 256, 32767, 65535])
def test_sixteen_bit_grey_is_scaled_not_clipped(value):
    image = Image.fromarray(np.full((5, 6), value, np.uint16))
    decoded = decode_with_notes(save(image))
    assert (decoded.pixels == round(value * 255 / 65535)).all()
    assert decoded.notes == ("16-bit grey",)


def test_grey_is_the_same_in_three_channels():
    values = np.arange(60, dtype=np.uint8).reshape(6, 10)
    decoded = decode_with_notes(save(Image.fromarray(values)))
    assert (decoded.pixels == values[:, :, None]).all() and decoded.notes == ("grey",)
    jpeg = decode_with_notes(save(Image.fromarray(values), "JPEG", quality=100))
    assert jpeg.notes == ("grey",) and np.abs(jpeg.pixels.astype(int) - values[:, :, None]).max() <= 3


def test_black_and_white_bits_become_0_and_255():
    assert decode(save(Image.new("1", (9, 9), 1))).min() == 255


def test_exif_orientation_is_applied_only_on_request(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = save(Image.fromarray(photo(1, 40, 48)), "JPEG", exif=exif, quality=95)
    assert decode(data).shape == (40, 48, 3)
    turned = decode_with_notes(data, exif_rotate=True)
    assert turned.pixels.shape == (48, 40, 3) and (turned.height, turned.width) == (48, 40)
    assert np.abs(turned.pixels.astype(int) - np.rot90(decode(data), -1)).max() <= 2


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00" + b"\xff" * 99]
)
@pytest.mark.parametrize("exif_rotate", [False, True])
def test_broken_exif_does_not_matter(photo, exif, exif_rotate):
    plain = save(Image.fromarray(photo(1)), "JPEG", quality=95)
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert decode(data, exif_rotate=exif_rotate).shape == (40, 48, 3)


def test_a_png_named_jpeg_is_simply_read(photo):
    decoded = decode_with_notes(save(Image.fromarray(photo(2))))
    assert decoded.format == "PNG" and (decoded.pixels == photo(2)).all()


@pytest.mark.parametrize(
    "shortest, shape",
    [
        (0, (200, 300)),
        (101, (200, 300)),
        (100, (100, 150)),
        (60, (100, 150)),
        (50, (50, 75)),
        (25, (25, 38)),
        (3, (25, 38)),
    ],
)
def test_scaled_decoding_never_falls_below_what_is_needed(photo, encoded, shortest, shape):
    data = encoded(photo(3, 200, 300))
    decoded = decode_with_notes(data, shortest=shortest)
    assert decoded.pixels.shape[:2] == shape and (decoded.height, decoded.width) == (200, 300)


def test_scaled_decoding_looks_like_decoding_and_scaling(photo, encoded):
    data = encoded(photo(3, 256, 256))
    quarter = decode(data, shortest=64).astype(int)
    assert np.abs(quarter - square(decode(data), 64)).mean() < 1.5


def png_claiming(width, height, data=b"\x00" * 64):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg_claiming(data, width, height):
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize("width, height", [(100_000, 100_000), (MAX_PIXELS + 1, 1), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_its_pixels_are_allocated(width, height):
    with pytest.raises(UnreadableImage):
        decode(png_claiming(width, height))


def test_a_jpeg_that_claims_too_many_pixels_names_the_limit(photo, encoded):
    with pytest.raises(UnreadableImage, match=f"limit of {MAX_JPEG_PIXELS}"):
        decode(jpeg_claiming(encoded(photo(1)), 65500, 65500))


def test_a_jpeg_of_endless_scans_is_refused(photo):
    data = save(Image.fromarray(photo(1)), "JPEG", progressive=True)
    data = jpeg_claiming(data.replace(b"\xff\xc2", b"\xff\xc0", 1), 8000, 8000).replace(b"\xff\xc0", b"\xff\xc2", 1)
    scan = data[data.index(b"\xff\xda") : data.rindex(b"\xff\xd9")]
    with pytest.raises(UnreadableImage, match="scans"):
        decode(data[:-2] + scan * 400 + b"\xff\xd9")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00" * 5000,
        b"hello, I am a text\n" * 50,
        b"<html></html>",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0" * 99,
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM" + b"\xff" * 60,
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"P6 99999999 99999999 255\n",
        b"II*\x00" + b"\x01" * 64,
        b"%PDF-1.4",
        b"\x1f\x8b" + b"\x00" * 64,
        b"P3 2 2 65535 1 2 x 4",
    ],
)
def test_what_is_no_image_is_unreadable_with_a_reason_of_one_line(data):
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_format_outside_the_allowed_ones_is_unreadable(photo):
    with pytest.raises(UnreadableImage, match="it is a TIFF .* convert it to JPEG or PNG"):
        decode(save(Image.fromarray(photo(1)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_truncated_at_any_length_is_unreadable_or_an_image(photo, kind):
    data = save(Image.fromarray(photo(1, 16, 20)), kind)
    for length in range(len(data)):
        try:
            pixels = decode(data[:length])
        except UnreadableImage:
            continue
        assert length > len(data) - 24, "half a picture must not pass for a whole one"
        assert pixels.shape == (16, 20, 3)


def test_a_jpeg_with_stray_bytes_is_read_and_noted(photo, encoded):
    data = encoded(photo(1))
    at = data.index(b"\xff\xda")
    decoded = decode_with_notes(data[:at] + b"\x00\x00\x00" + data[at:])
    assert decoded.pixels.shape == (40, 48, 3) and decoded.notes == ("damaged, read all the same",)


def mutated(rng, originals):
    data = bytearray(originals[rng.integers(len(originals))])
    for _ in range(rng.integers(1, 12)):
        at = int(rng.integers(len(data)))
        change = rng.integers(5)
        if change == 0:
            data[at] = rng.integers(256)
        elif change == 1:
            data[at] ^= 1 << rng.integers(8)
        elif change == 2:
            del data[at : at + int(rng.integers(1, 40))]
        elif change == 3:
            data[at:at] = rng.integers(0, 256, rng.integers(1, 20), dtype=np.uint8).tobytes()
        else:
            data[at : at + 2] = bytes([0xFF, rng.integers(256)])
        if not data:
            data = bytearray(b"\xff")
    return bytes(data)


def test_ten_thousand_mutated_images_are_read_or_refused(photo):
    grey = Image.fromarray(photo(4, 20, 24)).convert("L")
    colour = Image.fromarray(photo(5, 24, 20))
    originals = [save(colour, "JPEG"), save(colour, "JPEG", progressive=True), save(grey, "JPEG")]
    originals += [save(colour.convert("CMYK"), "JPEG"), save(colour, "JPEG", subsampling=0)]
    originals += [save(image, kind) for image in (colour, grey) for kind in ("PNG", "GIF", "BMP", "WEBP", "PPM")]
    originals += [save(colour.convert(mode)) for mode in ("P", "RGBA", "1", "LA")]
    rng = np.random.default_rng(2012)
    outcomes = {True: 0, False: 0}
    for k in range(10_000):
        try:
            pixels = decode(mutated(rng, originals), shortest=(0, 8)[k % 2], exif_rotate=k % 3 == 0)
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            outcomes[True] += 1
        except UnreadableImage as error:
            assert str(error) and "\n" not in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 1000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"P6 "]))
def test_arbitrary_bytes_never_raise_anything_else(data, magic):
    with contextlib.suppress(UnreadableImage):
        assert decode(magic + data).ndim == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70))
def test_a_square_is_a_square_whatever_the_size(height, width, size):
    pixels = np.full((height, width, 3), 77, np.uint8)
    found = square(pixels, size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert (found == 77).all()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, (13, 13, 3)))
def test_a_square_of_the_right_size_stays_as_it_is(pixels):
    assert (square(pixels, 13) == pixels).all()


@pytest.mark.parametrize("height, width", [(300, 400), (400, 300), (75, 256), (64, 50), (333, 500)])
def test_a_square_agrees_with_pillow_within_a_grey_level(photo, height, width):
    pixels, side = photo(7, height, width), min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    expected = np.asarray(cut.resize((96, 96), Image.Resampling.BILINEAR))
    assert np.abs(square(pixels, 96).astype(int) - expected).max() <= 1
