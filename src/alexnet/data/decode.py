"""Bytes to RGB: hardened decoding of untrusted image files.

What decoding a picture would take is known from its header (`alexnet.data.headers`) before any pixel is allocated. H W
rows and columns of an image.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.headers import Header, read_header
from alexnet.errors import UnreadableImage, one_line

Pixels = NDArray[np.uint8]
Bytes = bytes | bytearray | memoryview

MAX_BYTES = 1 << 27  # of a file
MAX_PIXELS = 1 << 26
MAX_JPEG_PIXELS = 1 << 27  # larger, as cameras make them and their decoder is fast
MAX_SIDE = 65535
MAX_MEMORY = 600 << 20  # bytes: the most that a process may grow by while a picture is read, decoded and squared
# A progressive JPEG visits every block once a scan, so scans times pixels bounds its time.
MAX_SCANNED_PIXELS = 1 << 30

_SMALL_JPEG = 1 << 22  # pixels up to which no JPEG takes much, however it is coded
_STRIP = 1 << 20  # pixels that are converted at once
_QUARTER_TURNS = (5, 6, 7, 8)  # the orientations that swap rows and columns

# Broken metadata is common and harmless here; the warning would be printed from a worker thread for every such file.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoded:
    """An image and what was odd about its file.

    `pixels` is (H, W, 3) uint8 RGB; `height` and `width` are those of the file (larger than the pixels' after scaled
    decoding); `format` is the file's true one, such as "JPEG"; `notes` are short reasons such as "grey" or "CMYK".
    """

    pixels: Pixels
    height: int
    width: int
    format: str
    notes: tuple[str, ...] = ()


def decode(data: Bytes, *, shortest: int = 0, exif_rotate: bool = False) -> Pixels:
    """Decode an image file to RGB, (H, W, 3) uint8; see `decode_with_notes`."""
    return decode_with_notes(data, shortest=shortest, exif_rotate=exif_rotate).pixels


def decode_with_notes(data: Bytes, *, shortest: int = 0, exif_rotate: bool = False) -> Decoded:
    """Decode an image file to RGB and say what was odd about it.

    `shortest` > 0 lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size as long as the shorter side stays at or above
    that many pixels. Alpha is composited over white, 16 bits are rounded to 8, CMYK becomes RGB; of several frames the
    first is taken. EXIF orientation is applied only on request, as nobody applied it in 2012.

    Raises `UnreadableImage` for another format than those of `alexnet.data.headers.READ`, for what cannot be an image,
    and before decoding for one of more than `MAX_PIXELS` pixels (a JPEG `MAX_JPEG_PIXELS`) or that would take more than
    `MAX_MEMORY`, 600 MiB.
    """
    if len(data) == 0:
        raise UnreadableImage("the file is empty")
    data = bytes(data)
    try:
        decoded = _decode_jpeg(data, shortest, exif_rotate) if data[:3] == b"\xff\xd8\xff" else None
    except UnreadableImage:
        raise
    except MemoryError:
        raise UnreadableImage("there is not enough memory to decode it") from None
    except KeyError:  # an uncommon subsampling
        decoded = None
    except Exception:
        # Files with stray bytes are read by everybody else's tools; Pillow is lenient, but not to truncated ones.
        return _decode_others(data, exif_rotate, damaged=True)
    return decoded or _decode_others(data, exif_rotate)


def notes_of(decoded: Decoded, name: str) -> tuple[str, ...]:
    """Return an image's notes, with one more where the file called `name` is not the JPEG that it says."""
    if decoded.format != "JPEG" and name.lower().endswith((".jpg", ".jpeg")):
        return (f"{decoded.format} named JPEG", *decoded.notes)
    return decoded.notes


def check_pixels(height: int, width: int, most: int = MAX_PIXELS) -> None:
    """Raise `UnreadableImage` for an image with no pixels or more than `most`, before any is allocated."""
    if height < 1 or width < 1:
        raise UnreadableImage(f"it has no pixels ({width}x{height})")
    if height * width > most or max(height, width) > MAX_SIDE:
        raise UnreadableImage(f"{width}x{height} pixels are more than the limit of {most}, or of {MAX_SIDE} for a side")


def _check_memory(file: int, decoder: int, height: int, width: int, turned: bool) -> None:
    """Raise `UnreadableImage` where reading and squaring RGB of (H, W) would take more than `MAX_MEMORY`.

    Beside the file's bytes and the RGB there are at one time the decoder's own, at another a turned copy or the square.
    """
    rgb = 3 * height * width
    peak = file + rgb + max(decoder, rgb if turned else 3 * min(height, width) ** 2)
    if peak > MAX_MEMORY:
        raise UnreadableImage(
            f"decoding {width}x{height} pixels of a file like this would take {peak >> 20} MiB, more than the limit of "
            f"{MAX_MEMORY >> 20} MiB"
        )


def _decode_jpeg(data: bytes, shortest: int, exif_rotate: bool) -> Decoded | None:
    """Decode a JPEG by the fast way, or return None for the colours it does not know. Raises ValueError for others."""
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    height, width = int(height), int(width)
    check_pixels(height, width, MAX_JPEG_PIXELS)
    _check_scans(data, height, width)
    if space not in ("YCbCr", "RGB", "Gray"):
        return None
    factor = _factor(height, width, shortest)
    smaller = (-(-height // factor), -(-width // factor))
    orientation = 1
    if height * width > _SMALL_JPEG or (exif_rotate and b"Exif\x00" in data[:65536]):
        header = read_header(data)
        orientation = header.orientation if exif_rotate else 1
        _check_memory(len(data), header.memory, *smaller, orientation != 1)
    scale = {"min_height": smaller[0], "min_width": smaller[1], "min_factor": factor} if factor > 1 else {}
    pixels = _turn(simplejpeg.decode_jpeg(data, "RGB", **scale), orientation)
    height, width = (width, height) if orientation in _QUARTER_TURNS else (height, width)
    return Decoded(pixels, height, width, "JPEG", ("grey",) if space == "Gray" else ())


def _factor(height: int, width: int, shortest: int) -> int:
    """Return 1, 2, 4 or 8, the divisor of a JPEG's size: those have fast inverse transforms."""
    factor = min(height, width) // shortest if shortest else 1
    return 1 << min(3, max(1, factor).bit_length() - 1)


def _check_scans(data: bytes, height: int, width: int) -> None:
    if data.count(b"\xda") * height * width <= MAX_SCANNED_PIXELS:
        return  # Counting one byte is several times as fast as counting the marker, and nearly always enough.
    scans = data.count(b"\xff\xda")
    if scans > 1 and scans * height * width > MAX_SCANNED_PIXELS:
        raise UnreadableImage(f"{scans} scans of {width}x{height} pixels would take too long to decode")


def _decode_others(data: bytes, exif_rotate: bool, damaged: bool = False) -> Decoded:
    """Decode a file of any format but most JPEGs."""
    header = read_header(data)
    height, width, kind = header.height, header.width, header.format
    check_pixels(height, width)
    orientation = header.orientation if exif_rotate else 1
    file, decoder = len(data), header.memory
    if kind == "JPEG":
        _check_scans(data, height, width)
        decoder += 4 * height * width
    if header.content is not data:
        file += len(header.content)
    _check_memory(file, decoder, height, width, orientation != 1)
    notes = ["damaged, read all the same"] if damaged else []
    try:
        pixels = _from_samples(header, notes) if kind == "PPM" else _by_pillow(header, notes)
        pixels = _turn(pixels, orientation)
    except MemoryError:
        raise UnreadableImage("there is not enough memory to decode it") from None
    height, width = pixels.shape[:2]
    return Decoded(pixels, height, width, kind, tuple(notes))


def _by_pillow(header: Header, notes: list[str]) -> Pixels:
    try:
        with Image.open(io.BytesIO(header.content), formats=(header.format,)) as image:
            if image.size != (header.width, header.height):
                raise UnreadableImage("its parts contradict each other about its size")
            image.load()
            return _to_rgb(image, notes)
    except (UnreadableImage, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise UnreadableImage(f"its {header.format} header is damaged") from None
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error on hostile files.
        raise UnreadableImage(one_line(error)) from None


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Set an image upright, (H, W, 3) to (H, W, 3) or (W, H, 3)."""
    if orientation in _QUARTER_TURNS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.array(pixels, order="C") if orientation != 1 else pixels


def _to_rgb(image: Image.Image, notes: list[str]) -> Pixels:
    """Convert any mode of Pillow's to (H, W, 3) uint8, a strip at a time, and note what was done."""
    mode, (width, height) = image.mode, image.size
    alpha = mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info
    if mode == "I" or mode.startswith("I;16"):
        convert = _wide_grey
        notes.append("16-bit grey")
    elif alpha:
        convert = _over_white
        notes.append("alpha, over white")
    elif mode == "RGB":
        convert = _as_it_is
    else:
        convert = _plain
        notes.append({"L": "grey", "1": "black and white", "P": "palette"}.get(mode, mode))
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = convert(image if rows >= height else image.crop((0, top, width, bottom)))
    return pixels


def _as_it_is(image: Image.Image) -> Pixels:
    return np.asarray(image)


def _plain(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def _over_white(image: Image.Image) -> Pixels:
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema() == (255, 255):
        return np.asarray(layers.convert("RGB"))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB"))


def _wide_grey(image: Image.Image) -> Pixels:
    return _eight_bits(np.asarray(image), 65535)[:, :, None]


def _eight_bits(samples: NDArray[np.generic], highest: int) -> Pixels:
    """Scale samples of 0 to `highest` to 0 to 255, rounded."""
    wide = np.clip(samples, 0, highest).astype(np.uint32)
    return ((wide * 255 + highest // 2) // highest).astype(np.uint8)


def _from_samples(header: Header, notes: list[str]) -> Pixels:
    """The pixels of a binary PPM or PGM: samples of one or two bytes, row by row, of 1 or 3 channels."""
    height, width, highest = header.height, header.width, header.highest
    channels = 1 if header.content[1:2] == b"5" else 3
    if channels == 1:
        notes.append("grey" if highest < 256 else "16-bit grey")
    kind = np.dtype(np.uint8 if highest < 256 else ">u2")
    samples = np.frombuffer(header.content, kind, height * width * channels, header.offset)
    samples = samples.reshape(height, width, channels)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = samples[top : top + rows]
        pixels[top : top + rows] = strip if highest == 255 else _eight_bits(strip, highest)
    return pixels
