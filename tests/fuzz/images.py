"""Hostile pictures: valid ones of every format, changed in many ways; and bombs made by hand.

Every picture is decoded at its whole size, scaled, and as a square of 64, as training, verifying and predicting do;
one that takes long in one of these ways only, so that the cost is that of one picture.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from alexnet.data.preprocess import to_square
from alexnet.data.readers.folder import open_pictures
from alexnet.errors import UnreadableImage
from tests.fuzz.harness import Family

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SIDES = (0, 1, 255, 4096, 8192, 16383, 20000, 46340, 65500, 65535, 1 << 20, (1 << 24) - 1, (1 << 31) - 1, (1 << 32) - 1)
BIG = 8192
WAYS = ("square", "turned square", "whole", "scaled")


# What a user does with a picture.


def read(target: tuple[Path, str]) -> str:
    """Read a picture in one way, and where that was quick in the others too; raise the refusal of the last."""
    path, first = target
    split, answers, refusal = open_pictures(path.parent), [], None
    for way in (first, *(way for way in WAYS if way != first)):
        began = time.process_time()
        try:
            if "square" in way:
                pixels = to_square(path, 64, exif_rotate=way != "square")
                assert pixels.shape == (64, 64, 3)
            else:
                pixels = split.decode(0, 256 if way == "scaled" else 0)
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
            answers.append(f"{way} {pixels.shape[0]}x{pixels.shape[1]}")
            del pixels
        except UnreadableImage as error:
            refusal = error
        if time.process_time() - began > 0.1:
            break
    if refusal and not answers:
        raise refusal
    return ", ".join(answers)


# Valid pictures.


def photograph(rng: Random, channels: int = 3, depth: int = 8) -> np.ndarray:
    """Smooth shapes with noise, (H, W, channels) of uint8 or uint16, of a random small size."""
    numbers = np.random.default_rng(rng.getrandbits(64))
    height, width = rng.randint(1, 40), rng.randint(1, 48)
    coarse = numbers.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + numbers.integers(-rng.randint(0, 40), 41, smooth.shape), 0, 255)[:, :, :channels]
    return noisy.astype(np.uint8) if depth == 8 else (noisy * 257).astype(np.uint16)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(rng: Random, mode: str = "RGB") -> Image.Image:
    """A photograph in a mode of Pillow's."""
    return Image.fromarray(photograph(rng)).convert(mode)


def exif(orientation: int) -> Image.Exif:
    """An EXIF block that says how the picture is turned."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def jpeg(rng: Random) -> bytes:
    """A JPEG of any ordinary kind."""
    mode = rng.choice(["RGB", "RGB", "L", "CMYK"])
    options: dict[str, object] = {"quality": rng.choice([5, 60, 90, 100]), "progressive": rng.random() < 0.4}
    if mode == "RGB":
        options["subsampling"] = rng.randrange(3)
    if rng.random() < 0.3:
        options["exif"] = exif(rng.randint(1, 8))
    if rng.random() < 0.2:
        options["restart_marker_blocks"] = 1
    if rng.random() < 0.2:
        options["comment"] = b"a comment"
    return saved(rgb(rng, mode), "JPEG", **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_head(width: int, height: int, depth: int, colours: int, interlaced: bool = False) -> bytes:
    """The signature and header of a PNG."""
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced))


def png(rng: Random) -> bytes:
    """A PNG of any colour type and depth, interlaced or not, with odd chunks between."""
    colours = rng.choice([0, 2, 3, 4, 6])
    depth = rng.choice({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(colours, [8, 16]))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    pixels, interlaced = photograph(rng, channels, 16 if depth == 16 else 8), rng.random() < 0.4
    height, width = pixels.shape[:2]
    rows = []
    for top, left, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = pixels[top::down, left::right]
        for row in part if part.shape[1] else ():
            if depth == 16:
                packed = row.astype(">u2").tobytes()
            elif depth == 8:
                packed = row.tobytes()
            else:
                bits = np.unpackbits(row >> (8 - depth), axis=1)[:, 8 - depth :]
                packed = np.packbits(bits.reshape(-1)).tobytes()
            rows.append(bytes([rng.randrange(5)]) + packed)
    body = zlib.compress(b"".join(rows))
    cut = rng.randint(0, len(body))
    chunks = [png_head(width, height, depth, colours, interlaced)]
    if rng.random() < 0.3:
        chunks.append(chunk(b"tEXt", b"Title\0a picture"))
    if colours == 3:
        chunks.append(chunk(b"PLTE", rng.randbytes(3 << depth)))
    if colours in (0, 2, 3) and rng.random() < 0.5:
        chunks.append(chunk(b"tRNS", rng.randbytes({0: 2, 2: 6, 3: rng.randint(1, 1 << depth)}[colours])))
    if rng.random() < 0.3:
        chunks.append(chunk(b"eXIf", exif(rng.randint(1, 8)).tobytes()))
    chunks += [chunk(b"IDAT", body[:cut]), chunk(b"IDAT", body[cut:]), chunk(b"IEND", b"")]
    return b"".join(chunks)


def gif(rng: Random) -> bytes:
    """A GIF, perhaps with transparency, a comment or several frames."""
    image = rgb(rng, rng.choice(["P", "L"]))
    options: dict[str, object] = {"interlace": rng.randrange(2)}
    if rng.random() < 0.4:
        options["transparency"] = rng.randrange(200)
    if rng.random() < 0.3:
        options["comment"] = b"a comment"
    if rng.random() < 0.4:
        options |= {"save_all": True, "append_images": [image.rotate(90), image], "loop": 0}
    return saved(image, "GIF", **options)


def bmp(rng: Random) -> bytes:
    """A BMP, perhaps with the top row first."""
    data = bytearray(saved(rgb(rng, rng.choice(["RGB", "L", "P", "1", "RGBA"])), "BMP"))
    if rng.random() < 0.3:
        data[22:26] = struct.pack("<i", -struct.unpack("<i", data[22:26])[0])
    return bytes(data)


def webp(rng: Random) -> bytes:
    """A WebP, lossy or lossless, perhaps with alpha, EXIF or several frames."""
    image = Image.fromarray(photograph(rng, rng.choice([3, 4])))
    options: dict[str, object] = {"lossless": rng.random() < 0.5, "quality": rng.choice([5, 80]), "method": 0}
    if rng.random() < 0.3:
        options["exif"] = exif(rng.randint(1, 8))
    if rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)] * 2}
    return saved(image, "WEBP", **options)


def ppm(rng: Random) -> bytes:
    """A binary PPM or PGM of one or two bytes a sample."""
    channels, depth = rng.choice([1, 3]), rng.choice([8, 16])
    pixels = photograph(rng, channels, depth)
    highest = rng.choice([255, 255, 100]) if depth == 8 else rng.choice([65535, 1023])
    comment = rng.choice(["", "# a comment\n"])
    head = f"P{5 if channels == 1 else 6}\n{comment}{pixels.shape[1]} {pixels.shape[0]}\n{highest}\n"
    return head.encode() + pixels.astype(">u2" if depth == 16 else np.uint8).tobytes()


FORMATS: dict[str, Callable[[Random], bytes]] = {
    "JPEG": jpeg,
    "PNG": png,
    "GIF": gif,
    "BMP": bmp,
    "WebP": webp,
    "PPM": ppm,
}
SUFFIXES = (".jpg", ".JPEG", ".png", ".gif", ".bmp", ".webp", ".ppm", "")


# Changes.


def bytes_changed(rng: Random, data: bytes) -> bytes:
    """Some bytes anywhere replaced, flipped, removed, inserted or repeated."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(max(1, len(changed)))
        match rng.randrange(6):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                changed[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in changed[at : at + 1])
            case 2:
                del changed[at : at + rng.randint(1, 40)]
            case 3:
                changed[at:at] = rng.randbytes(rng.randint(1, 20))
            case 4:
                changed[at : at + 2] = bytes((0xFF, rng.randrange(256)))
            case 5:
                changed[at:at] = changed[at : at + rng.randint(1, 200)] * rng.randint(1, 50)
    return bytes(changed)


def fields_changed(rng: Random, data: bytes) -> bytes:
    """Some fields of the header set to extreme numbers."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        size, order = rng.choice([1, 2, 4]), rng.choice(["little", "big"])
        at = rng.randrange(min(len(data), rng.choice([40, 200, 2000])))
        value = rng.choice([*EXTREMES, *SIDES, rng.getrandbits(32)]) & ((1 << 8 * size) - 1)
        changed[at : at + size] = value.to_bytes(size, order)
    return bytes(changed)


def sides_changed(rng: Random, data: bytes) -> bytes:
    """The fields of the dimensions replaced by others, of ordinary and extreme sizes."""
    width, height = (rng.choice([*SIDES, rng.randint(1, 20000), rng.randint(1, 64)]) for _ in range(2))
    return resized(data, width, height, rng.random() < 0.5)


def resized(data: bytes, width: int, height: int, both: bool = True) -> bytes:
    """A file that claims other dimensions, as far as its fields can hold them; of a GIF those of its frame `both`."""

    def low(side: int, bits: int) -> int:
        return side & ((1 << bits) - 1)

    changed = bytearray(data)
    if data[:2] == b"\xff\xd8":
        for marker in range(0xC0, 0xC3):
            at = data.find(bytes((0xFF, marker, 0)))
            if at >= 0:
                changed[at + 5 : at + 9] = struct.pack(">HH", low(height, 16), low(width, 16))
    elif data[:8] == SIGNATURE:
        head = struct.pack(">II", low(width, 32), low(height, 32)) + data[24:29]
        changed[8:33] = chunk(b"IHDR", head)
    elif data[:3] == b"GIF":
        changed[6:10] = struct.pack("<HH", low(width, 16), low(height, 16))
        at = data.find(b",\0\0\0\0", 13)
        if both and at >= 0:
            changed[at + 5 : at + 9] = changed[6:10]
    elif data[:2] == b"BM":
        changed[18:26] = struct.pack("<II", low(width, 32), low(height, 32))
    elif data[8:12] == b"WEBP":
        for kind, at in ((kind, data.find(kind)) for kind in (b"VP8X", b"VP8L", b"VP8 ")):
            if at < 0:
                continue
            if kind == b"VP8X":
                changed[at + 12 : at + 18] = b"".join(
                    low(side - 1, 24).to_bytes(3, "little") for side in (width, height)
                )
            elif kind == b"VP8L":
                (bits,) = struct.unpack_from("<I", data, at + 9)
                bits = bits & 0xF0000000 | low(width - 1, 14) | low(height - 1, 14) << 14
                changed[at + 9 : at + 13] = struct.pack("<I", bits)
            else:
                changed[at + 14 : at + 18] = struct.pack("<HH", low(width, 14), low(height, 14))
    elif data[:1] == b"P":
        changed = bytearray(data[:3] + f"{width} {height} 255\n".encode() + data[12:])
    return bytes(changed)


def truncated(rng: Random, data: bytes) -> bytes:
    """A file cut off, perhaps with rubbish after the cut."""
    return data[: rng.randrange(len(data))] + (rng.randbytes(rng.randint(1, 500)) if rng.random() < 0.3 else b"")


def spliced(rng: Random, data: bytes) -> bytes:
    """The beginning of a file and the end of another, perhaps of another format."""
    other = rng.choice(list(FORMATS.values()))(rng) if rng.random() < 0.5 else data
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def repaired(rng: Random, data: bytes) -> bytes:
    """Parts of a PNG, WebP, JPEG or GIF changed, doubled, moved or dropped, with lengths and checksums set right."""
    if data[:8] == SIGNATURE:
        return SIGNATURE + b"".join(chunk(kind, body) for kind, body in rearranged(rng, png_chunks(data)))
    if data[8:12] == b"WEBP":
        parts = rearranged(rng, riff_chunks(data))
        body = b"".join(kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for kind, part in parts)
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    if data[:2] == b"\xff\xd8":
        scan = data.index(b"\xff\xda")
        parts = rearranged(rng, jpeg_segments(data[:scan]))
        head = b"".join(kind + struct.pack(">H", (len(part) + 2) & 0xFFFF) + part for kind, part in parts)
        return data[:2] + head + data[scan:]
    return fields_changed(rng, bytes_changed(rng, data))


Parts = list[tuple[bytes, bytes]]


def png_chunks(data: bytes) -> Parts:
    """The kinds and bodies of a PNG's chunks."""
    parts, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def riff_chunks(data: bytes) -> Parts:
    """The kinds and bodies of a WebP's chunks."""
    parts, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        parts.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def jpeg_segments(head: bytes) -> Parts:
    """The markers and bodies of a JPEG's segments."""
    parts, at = [], 2
    while at + 4 <= len(head):
        (length,) = struct.unpack_from(">H", head, at + 2)
        parts.append((head[at : at + 2], head[at + 4 : at + 2 + length]))
        at += 2 + length
    return parts


def rearranged(rng: Random, parts: Parts) -> Parts:
    """Parts of a file with one to three things changed."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(parts))
        kind, body = parts[at]
        match rng.randrange(6):
            case 0 | 1:
                body = bytes_changed(rng, body)[:60000] if body else rng.randbytes(rng.randint(0, 9))
                parts[at] = (kind, body)
            case 2:
                parts.insert(rng.randint(0, len(parts)), (kind, body))
            case 3:
                parts[at], parts[0] = parts[0], parts[at]
            case 4:
                parts = [*parts[:at], *parts[at + 1 :]] or parts
            case 5:
                if kind == b"IDAT":
                    parts[at] = (kind, zlib.compress(rng.randbytes(rng.randint(0, 300)) * rng.randint(1, 30)))
                else:
                    parts[at] = (bytes((kind[0], (kind[1] + rng.randint(1, 9)) % 256)) + kind[2:], body)
    return parts


def changed(format: str, change: Callable[[Random, bytes], bytes]) -> Callable[[Random, Path], tuple[Path, str]]:
    """Make pictures of a format that are changed."""

    def make(rng: Random, folder: Path) -> tuple[Path, str]:
        return placed(rng, folder, change(rng, FORMATS[format](rng)))

    return make


def placed(rng: Random, folder: Path, data: bytes) -> tuple[Path, str]:
    """A file in a folder of its own, and the way it is read first."""
    (folder / "pictures").mkdir()
    path = folder / "pictures" / f"picture{rng.choice(SUFFIXES)}"
    path.write_bytes(data)
    return path, rng.choice(WAYS)


def rubbish(rng: Random, folder: Path) -> tuple[Path, str]:
    """A known beginning and bytes of no meaning."""
    magics = [
        b"",
        b"\xff\xd8\xff",
        SIGNATURE,
        b"GIF89a",
        b"BM",
        b"RIFF\xff\xff\xff\xffWEBPVP8",
        b"P6 ",
        b"P5\n",
        b"P7\n",
    ]
    magics += [
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x1cftypheic",
        b"8BPS",
        b"<svg ",
        b"<?xml ",
        b"\xff\x0a",
    ]
    filling = rng.choice([rng.randbytes, lambda n: bytes(n), lambda n: b"\xff" * n, lambda n: b"<!--a-->" * (n // 8)])
    return placed(rng, folder, rng.choice(magics) + filling(rng.choice([0, 1, 9, 40, 400, 4000])))


def other_format(rng: Random, folder: Path) -> tuple[Path, str]:
    """A picture of a format that is not read, under any name, perhaps changed."""
    kind = rng.choice(["TIFF", "AVIF", "JPEG2000", "ICO", "PCX", "TGA", "SGI", "DDS", "IM", "PDF", "MPO", "PPM"])
    data = saved(rgb(rng, "1" if kind == "PPM" else "RGB").resize((16, 16)), kind)
    return placed(rng, folder, bytes_changed(rng, data) if rng.random() < 0.3 else data)


CHANGES = (bytes_changed, fields_changed, sides_changed, truncated, spliced, repaired)
FAMILIES = [
    *(
        Family(f"{format} {change.__name__.replace('_', ' ')}", changed(format, change), read)
        for format in FORMATS
        for change in CHANGES
    ),
    Family("rubbish", rubbish, read),
    Family("other formats", other_format, read),
]
