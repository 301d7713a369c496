"""Bytes to RGB: hardened decoding of untrusted image files.

H W rows and columns of an image.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from alexnet.errors import UnreadableImage, one_line

Pixels = NDArray[np.uint8]
Bytes = bytes | bytearray | memoryview

# Formats with small, well-worn decoders. TIFF and the rest stay out: every decoder is attack surface.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM")
MAX_PIXELS = 1 << 26
MAX_BYTES = 1 << 28
# A progressive JPEG visits every block once a scan, so scans times pixels bounds its time.
MAX_SCANNED_PIXELS = 1 << 30

_ORIENTATION = 0x0112  # of EXIF's tags
_QUARTER_TURNS = (5, 6, 7, 8)  # the orientations that swap rows and columns

# Broken EXIF is common and harmless here; the warning would be printed from a worker thread for every such file.
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
    that many pixels. Alpha is composited over white, 16 bits are rounded to 8, CMYK becomes RGB. EXIF orientation is
    applied only on request, as nobody applied it in 2012.

    Raises `UnreadableImage` for anything else than an image of an allowed format and at most `MAX_PIXELS` pixels.
    """
    if len(data) == 0:
        raise UnreadableImage("the file is empty")
    data = bytes(data)
    if data[:3] != b"\xff\xd8\xff":
        return _decode_by_pillow(data, exif_rotate)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(height), int(width)
        check_pixels(height, width)
        _check_scans(data, height, width)
        if space in ("YCbCr", "RGB", "Gray"):
            pixels = simplejpeg.decode_jpeg(data, "RGB", **_scale(height, width, shortest))
            if exif_rotate and b"Exif\x00" in data[:65536]:
                orientation = _orientation(data)
                pixels = _turn(pixels, orientation)
                height, width = (width, height) if orientation in _QUARTER_TURNS else (height, width)
            return Decoded(pixels, height, width, "JPEG", ("grey",) if space == "Gray" else ())
    except UnreadableImage:
        raise
    except ValueError:
        # Files with stray bytes are read by everybody else's tools; Pillow is lenient, but not to truncated ones.
        return _decode_by_pillow(data, exif_rotate, damaged=True)
    return _decode_by_pillow(data, exif_rotate)


def notes_of(decoded: Decoded, name: str) -> tuple[str, ...]:
    """Return an image's notes, with one more where the file called `name` is not the JPEG that it says."""
    if decoded.format != "JPEG" and name.lower().endswith((".jpg", ".jpeg")):
        return (f"{decoded.format} named JPEG", *decoded.notes)
    return decoded.notes


def check_pixels(height: int, width: int) -> None:
    """Raise `UnreadableImage` for an image with no pixels or more than `MAX_PIXELS`, before any is allocated."""
    if height < 1 or width < 1:
        raise UnreadableImage(f"it has no pixels ({width}x{height})")
    if height * width > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels are more than the limit of {MAX_PIXELS}")


def _scale(height: int, width: int, shortest: int) -> dict[str, int]:
    """Return simplejpeg's arguments for decoding at 1/1, 1/2, 1/4 or 1/8: those have fast inverse transforms."""
    factor = min(height, width) // shortest if shortest else 1
    if factor < 2:
        return {}
    factor = 1 << min(3, factor.bit_length() - 1)
    return {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}


def _check_scans(data: bytes, height: int, width: int) -> None:
    if data.count(b"\xda") * height * width <= MAX_SCANNED_PIXELS:
        return  # Counting one byte is several times as fast as counting the marker, and nearly always enough.
    scans = data.count(b"\xff\xda")
    if scans > 1 and scans * height * width > MAX_SCANNED_PIXELS:
        raise UnreadableImage(f"{scans} scans of {width}x{height} pixels would take too long to decode")


def _decode_by_pillow(data: bytes, exif_rotate: bool, damaged: bool = False) -> Decoded:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            check_pixels(height, width)
            kind = str(image.format)
            if kind in ("JPEG", "MPO"):
                _check_scans(data, height, width)
            notes = ["damaged, read all the same"] if damaged else []
            image.load()
            pixels = _turn(_to_rgb(image, notes), _orientation(image) if exif_rotate else 1)
            height, width = pixels.shape[:2]
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError:
        raise UnreadableImage(f"it is not an image of a known format ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise UnreadableImage("there is not enough memory to decode it") from None
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error on hostile files.
        raise UnreadableImage(one_line(error)) from None
    return Decoded(pixels, height, width, kind, tuple(notes))


def _orientation(image: Image.Image | bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where there is none or it cannot be read."""
    try:
        if isinstance(image, bytes):
            with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
                return _orientation(opened)
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises anything on a broken block; the pixels are good even so.
        return 1


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Set an image upright, (H, W, 3) to (H, W, 3) or (W, H, 3)."""
    if orientation in _QUARTER_TURNS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image, notes: list[str]) -> Pixels:
    """Convert any mode of Pillow's to (H, W, 3) uint8 and note what was done."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if mode == "F":
        raise UnreadableImage("its pixels are floating-point numbers")
    if mode == "I" or mode.startswith("I;16"):
        notes.append("16-bit grey")
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        notes.append("alpha, over white")
        layers = image.convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB"))
    notes.append({"L": "grey", "1": "black and white", "P": "palette"}.get(mode, mode))
    return np.array(image.convert("RGB"))
