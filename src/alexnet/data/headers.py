"""What an image file says of itself before a pixel is decoded: its format, its size, and what decoding it would take.

The walks here are short on purpose: they find the sizes and the pixels' bytes and leave out everything else (profiles,
texts, thumbnails, later frames), so that Pillow never sees it. H W rows and columns of an image.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from alexnet.errors import UnreadableImage

READ = "JPEG, PNG, GIF, BMP, WebP and binary PPM and PGM"  # what the formats read are called in messages
MAX_PARTS = 1 << 16  # chunks, segments or blocks of a file; each costs a moment of Python
MAX_SAMPLES = 192 << 20  # bytes of all samples of a PNG, which bounds the time that unpacking them takes

_UNREAD = (
    (rb"(II\*\0|II\+\0|MM\0[*+])", "a TIFF or a camera's raw file"),
    (rb"....ftypavi[fs]", "an AVIF"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC"),
    (rb"(IIU\0|IIR|MMOR|FUJIFILMCCD-RAW|....ftypcrx)", "a camera's raw file"),
    (rb"(\xff\x0a|\0\0\0\x0cJXL )", "a JPEG XL"),
    (rb"(\xff\x4f\xff\x51|\0\0\0\x0cjP  )", "a JPEG 2000"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\s*<(svg|!DOCTYPE svg|(\?xml|!--)(?=.*<svg))", "an SVG"),
    (rb"(?i)\s*(<!DOCTYPE html|<html|<head)", "a web page"),
    (rb"P[1-4][\s#]", "a text or bitmap PPM"),
    (rb"(P7\s|P[fF]\s)", "a PAM or PFM"),
    (rb"\0\0[\1\2]\0", "an icon"),
    (rb"%PDF", "a PDF"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR"),
    (rb"....ftyp", "a video or another file of its kind"),
)
_UNREAD_FORMATS = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _UNREAD)
_MARKER = re.compile(rb"\xff(?![\xff\0])")
_PPM = re.compile(rb"P([56])" + rb"(?:\s|#[^\n\r]{0,999}[\n\r]){1,99}(\d{1,9})" * 3 + rb"\s")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour types
# Of a JPEG's markers: those without a segment, those of frames, and those of tables.
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_TABLES = frozenset((0xC4, 0xDB, 0xDD))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_ORIENTATION = 0x0112  # of EXIF's tags


@dataclass(frozen=True)
class Header:
    """A file's format and size, and what decoding it takes.

    `memory` is the bytes that the decoder and its image hold at once, besides the file and the RGB made of it;
    `content` the file without what is not needed for its pixels; `exif` its EXIF block, or nothing. `offset` and
    `highest` say where a PPM's samples begin and what white is among them.
    """

    format: str
    height: int
    width: int
    memory: int
    content: bytes
    exif: bytes = b""
    offset: int = 0
    highest: int = 255

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8; 1, upright, where there is none or it cannot be read."""
        block = self.exif.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}.get(block[:2])
        try:
            (start,) = struct.unpack_from(f"{order}I", block, 4)
            (count,) = struct.unpack_from(f"{order}H", block, start)
            for place in range(count):
                tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * place)
                if tag == _ORIENTATION:
                    return value if kind == 3 and 1 <= value <= 8 else 1
        except struct.error:
            pass
        return 1


def read_header(data: bytes) -> Header:
    """Read the header of an image file. Raises `UnreadableImage` for other formats, by their name where it is known."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith((b"P5", b"P6")):
            return _ppm(data)
    except (struct.error, IndexError):
        raise UnreadableImage("its header is cut off") from None
    head = data[:2000]
    for pattern, name in _UNREAD_FORMATS:
        if pattern.match(head):
            raise UnreadableImage(f"it is {name}; convert it to JPEG or PNG: the formats read are {READ}")
    raise UnreadableImage(f"it is not an image of a known format: the formats read are {READ}")


def _parts(what: str) -> Iterator[None]:
    """Count to `MAX_PARTS`, then raise `UnreadableImage`."""
    for _ in range(MAX_PARTS):
        yield
    raise UnreadableImage(f"it has more than {MAX_PARTS} {what}")


def _cannot_hold(data: bytes, height: int, width: int) -> UnreadableImage:
    return UnreadableImage(f"its {len(data)} bytes cannot hold {width}x{height} pixels")


def _jpeg(data: bytes) -> Header:
    """Walk the segments before the first scan; the frame, its tables and Adobe's colour transform are kept."""
    kept, seen, exif, frame, coding, at = [b"\xff\xd8"], set(), b"", b"", 0, 2
    for _ in _parts("segments"):
        found = _MARKER.search(data, at)
        if found is None or data[found.end()] == 0xD9:
            raise UnreadableImage("it has no scan")
        start, marker, at = found.start(), data[found.end()], found.end() + 1
        if marker in _ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        segment = data[at : at + length]
        if marker == 0xDA:
            break
        if marker in _FRAMES and not frame:
            frame, coding = segment, marker
        elif marker == 0xE1 and not exif and segment[2:8] == b"Exif\0\0":
            exif = segment[2:]
        if marker in _TABLES or (marker not in seen and marker in (coding, 0xE0, 0xEE)):
            kept.append(bytes((0xFF, marker)) + segment)
        seen.add(marker)
        at += max(2, length)
    if not frame:
        raise UnreadableImage("it has no size before its first scan")
    height, width, components = struct.unpack_from(">HHB", frame, 3)
    if coding not in (0xC0, 0xC1, 0xC2) or not 1 <= components <= 4:
        raise UnreadableImage("it is a lossless or arithmetic-coded JPEG; convert it to an ordinary one")
    progressive = coding == 0xC2
    # A block of 8×8 takes at least two bits, its first coefficient and its end; one in a progressive file.
    if height * width > (512 if progressive else 256) * len(data):
        raise _cannot_hold(data, height, width)
    memory = 0
    if progressive or segment[2] < components:  # the coefficients of all components are kept, two bytes each
        factors = [divmod(frame[9 + 3 * i], 16) for i in range(components)]
        wide, high = (max(1, *sides) for sides in zip(*factors, strict=True))
        units = -(-width // (8 * wide)) * -(-height // (8 * high))
        memory = 128 * units * sum(f[0] * f[1] for f in factors)
    return Header("JPEG", height, width, memory, b"".join(kept) + data[start:], exif)


def _png(data: bytes) -> Header:
    """Walk the chunks; the header, palette, transparency and pixels are kept."""
    width, height, depth, colours = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or colours not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise UnreadableImage("its header is wrong")
    kept, seen, exif, packed, at = [data[:33]], set(), b"", 0, 33
    for _ in _parts("chunks"):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND" or (kind == b"fcTL" and packed):
            break
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind in (b"PLTE", b"tRNS") and kind not in seen:
            if length > 768:
                raise UnreadableImage("its palette has more than 256 colours")
            kept.append(data[at:end])
        elif kind == b"IDAT":
            packed += length
            kept.append(data[at:end])
        seen.add(kind)
        at = end
    kept.append(_PNG_END if kind == b"fcTL" else data[at : at + 12])  # of an animation, the first frame
    bits = depth * _CHANNELS[colours]
    samples = height * -(-width * bits // 8)
    if samples > MAX_SAMPLES:
        raise UnreadableImage(f"its samples take {samples >> 20} MiB, more than the limit of {MAX_SAMPLES >> 20} MiB")
    if samples > 1032 * (min(packed, len(data)) + 64):  # the most that deflate can pack
        raise _cannot_hold(data, height, width)
    planes = 1 if colours == 3 or (colours == 0 and depth < 16) else 4
    return Header("PNG", height, width, planes * height * width, b"".join(kept), exif)


def _gif(data: bytes) -> Header:
    """Walk the blocks before the first frame; of them, the one that says what is transparent is kept."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    parts, head, control = _parts("blocks before its first frame"), data[:at], b""
    while (kind := data[at]) != 0x2C:
        next(parts)
        at += 1
        if kind == 0x3B:
            raise UnreadableImage("it has no frame")
        if kind == 0x21:
            if data[at] == 0xF9:
                control = data[at - 1 : at + 2 + data[at + 1]] + b"\0"
            at += 1
            while data[at]:
                next(parts)
                at += 1 + data[at]
            at += 1
    left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
    if across * down > 2731 * (len(data) - at):  # the most that LZW can pack: 4096 pixels in 12 bits
        raise _cannot_hold(data, down, across)
    width, height = max(width, left + across), max(height, top + down)
    return Header("GIF", height, width, 2 * height * width, head + control + data[at:])


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    short = size == 12  # of the oldest kind, which is never packed
    width, height, _, bits = struct.unpack_from("<HHHH" if short else "<iiHH", data, 18)
    (packing,) = (0,) if short else struct.unpack_from("<I", data, 30)
    if packing not in (0, 3) or bits not in (1, 4, 8, 16, 24, 32):
        raise UnreadableImage("it is a BMP packed in an uncommon way; convert it to JPEG or PNG")
    height = abs(height)  # negative where the first row is the top one
    if height * 4 * -(-width * bits // 32) > len(data):
        raise _cannot_hold(data, height, width)
    return Header("BMP", height, width, (1 if bits <= 8 else 4) * height * width, data)


def _webp(data: bytes) -> Header:
    """Read the size of the canvas; all of the file is kept, as its reader takes the first frame and leaves the rest."""
    kind, exif = data[12:16], b""
    if kind == b"VP8X" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise UnreadableImage("its header is wrong")
    parts, at = _parts("chunks"), 12
    while kind == b"VP8X" and at + 8 <= len(data):
        next(parts)
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            exif = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return Header("WEBP", height, width, 16 * height * width + 2 * len(data), data, exif)


def _ppm(data: bytes) -> Header:
    found = _PPM.match(data)
    if found is None:
        raise UnreadableImage("its header is wrong")
    channels = 1 if found[1] == b"5" else 3
    width, height, highest = (int(found[i]) for i in (2, 3, 4))
    if not 1 <= highest <= 65535:
        raise UnreadableImage(f"its highest value is {highest}, not 1 to 65535")
    if height * width * channels * (1 if highest < 256 else 2) > len(data) - found.end():
        raise _cannot_hold(data, height, width)
    return Header("PPM", height, width, 0, data, offset=found.end(), highest=highest)
