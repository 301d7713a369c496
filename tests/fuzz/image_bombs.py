"""Picture bombs made by hand: small files, or long headers, that would cost seconds, gigabytes or more."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import simplejpeg
from PIL import Image

from alexnet.data.decode import MAX_SCANNED_PIXELS
from tests.fuzz.harness import Family
from tests.fuzz.images import (
    BIG,
    FORMATS,
    chunk,
    jpeg_segments,
    photograph,
    placed,
    png_head,
    read,
    resized,
    rgb,
    saved,
)

END = chunk(b"IEND", b"")
MILLION = 1_000_000


def packed(row: bytes, rows: int, level: int = 1) -> bytes:
    """The same bytes again and again, deflated."""
    packer, block = zlib.compressobj(level), row * max(1, (1 << 20) // len(row))
    total = len(row) * rows
    parts = [packer.compress(block) for _ in range(total // len(block))]
    return b"".join([*parts, packer.compress(block[: total % len(block)]), packer.flush()])


def big_png(rng: Random) -> bytes:
    """8192² pixels of any colour type and depth, any filter, interlaced or not."""
    colours = rng.choice([0, 2, 3, 4, 6])
    depth = rng.choice({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(colours, [8, 16]))
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    side = rng.choice([BIG, BIG, 5000])
    line = bytes([rng.randrange(5)]) + rng.randbytes(1) * (side * bits // 8)
    between = [chunk(b"PLTE", rng.randbytes(3 << min(8, depth)))] if colours in (2, 3) else []
    if colours in (0, 2, 3):
        between.append(chunk(b"tRNS", rng.randbytes({0: 2, 2: 6, 3: 1 << min(8, depth)}[colours])))
    head = png_head(side, side, depth, colours, rng.random() < 0.2)
    return head + b"".join(between) + chunk(b"IDAT", packed(line, side + 9)) + END


def big_jpeg(rng: Random) -> bytes:
    """A baseline JPEG of tens of megapixels, grey or colour."""
    height, width = rng.choice([(8192, 8192), (8000, 12000), (65500, 1000), (3000, 40000)])
    pixels = np.full((height, width, rng.choice([1, 3])), rng.randrange(256), np.uint8)
    pixels[: height // 9, : width // 7] = 50
    space = "GRAY" if pixels.shape[2] == 1 else "RGB"
    return simplejpeg.encode_jpeg(pixels, 80, space, rng.choice(["444", "420"]) if space == "RGB" else "Gray")


def big_by_pillow(rng: Random) -> bytes:
    """Others of tens of megapixels: progressive, CMYK, GIF, BMP."""
    kind, mode, options = rng.choice(
        [
            ("JPEG", "RGB", {"progressive": True}),
            ("JPEG", "CMYK", {}),
            ("JPEG", "CMYK", {"progressive": True}),
            ("GIF", "P", {}),
            ("GIF", "P", {"transparency": 0, "interlace": 1}),
            ("BMP", "L", {}),
            ("BMP", "RGB", {}),
            ("PPM", "L", {}),
        ]
    )
    side = rng.choice([5000, 8192])
    return saved(rgb(rng, mode).resize((side, side)), kind, **options)


def big_webp(rng: Random) -> bytes:
    """A lossless WebP of one colour claims any size in a few bytes, and holds it."""
    data = saved(Image.new(rng.choice(["RGB", "RGBA"]), (9, 9), (1, 2, 3)), "WEBP", lossless=True, method=0)
    return resized(data, *rng.choice([(16383, 16383), (5500, 5500), (16383, 1900), (8192, 8192), (1, 16383)]))


def claim(rng: Random) -> bytes:
    """A small file, perhaps made longer, that claims very many pixels."""
    data = FORMATS[rng.choice(list(FORMATS))](rng)
    sides = rng.choice([(65535, 65535), (16383, 16383), (8192, 8192), (1 << 31, 1), (1, (1 << 32) - 1), (46340, 46341)])
    return resized(data, *sides, rng.random() < 0.5) + bytes(rng.choice([0, 300_000, 4 << 20]))


def long_header(rng: Random) -> bytes:
    """A header without end, or of very many parts."""
    ends = png_head(9, 9, 8, 0)
    choices: list[Callable[[], bytes]] = [
        lambda: b"P6 " + b"#" * 20 * MILLION,
        lambda: b"P6 " + b"#\n" * 10 * MILLION + b"9 9 255\n" + bytes(243),
        lambda: b"P5 " + b"9" * 20 * MILLION,
        lambda: b"P6" + b" " * 20 * MILLION,
        lambda: b"P5 9 9 " + b"0" * 5 * MILLION + b"255 ",
        lambda: b"P3 2000 2000 255\n" + b"1 " * 12 * MILLION,
        lambda: b"P2 2000 2000 255\n" + b"1" * 20 * MILLION,
        lambda: b"P1 9000 9000\n" + b"1" * 20 * MILLION,
        lambda: b"P7\n" + b"WIDTH 9\n" * 2 * MILLION,
        lambda: b"Pf 5000 5000 -1.0\n" + bytes(20 * MILLION),
        lambda: b"\xff\xd8" + b"\xff" * 20 * MILLION,
        lambda: b"\xff\xd8\xff" + b"\xff\0" * 10 * MILLION,
        lambda: b"\xff\xd8" + b"\xff\xe1\0\2" * 4 * MILLION,
        lambda: b"\xff\xd8" + b"\xff\xfe\0\4ab" * 3 * MILLION + FORMATS["JPEG"](rng)[2:],
        lambda: b"\xff\xd8" + b"\xff\xdb\0\2" * 4 * MILLION + FORMATS["JPEG"](rng)[2:],
        lambda: b"\xff\xd8" + b"\xff\xe1\0\x08Exif\0\0" * MILLION + FORMATS["JPEG"](rng)[2:],
        lambda: ends + chunk(b"IDAT", b"") * 2 * MILLION,
        lambda: ends + chunk(b"IDAT", b"") * 60_000 + chunk(b"IDAT", zlib.compress(bytes(90))) + END,
        lambda: ends + chunk(b"tEXt", b"a\0b") * MILLION,
        lambda: ends + ends[8:] * 500_000,
        lambda: ends + chunk(b"PLTE", bytes(30 * MILLION)) + chunk(b"IDAT", zlib.compress(bytes(90))) + END,
        lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe" + b"\1a" * 10 * MILLION,
        lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\0" * 7 * MILLION,
        lambda: b"GIF89a\1\0\1\0\0\0\0" + (b"!\xfe" + (b"\xff" + bytes(255)) * 90_000 + b"\0") + b",",
        lambda: b"GIF89a\1\0\1\0\0\0\0" + b"\0" * 20 * MILLION,
        lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xf9\4\1\0\0\0\0" * 3 * MILLION,
        lambda: b"BM" + bytes(8) + struct.pack("<II", 54, 1 << 30) + bytes(20 * MILLION),
        lambda: riff(b"VP8X" + struct.pack("<I", 10) + bytes(10) + b"junk\0\0\0\0" * 2 * MILLION),
        lambda: b"<" + b"<!--a-->" * 3 * MILLION,
        lambda: b"<?xml" + b" " * 20 * MILLION,
    ]
    return rng.choice(choices)()


def riff(body: bytes) -> bytes:
    """A WebP of chunks."""
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def metadata(rng: Random) -> bytes:
    """Profiles, texts and EXIF blocks that unpack to much more, or refer to themselves."""
    bomb = packed(bytes(1 << 16), 1600)
    kind, body = rng.choice(
        [
            (b"iCCP", b"p\0\0" + bomb),
            (b"zTXt", b"t\0\0" + bomb),
            (b"iTXt", b"t\0\1\0\0\0" + bomb),
            (b"eXIf", ifd(rng)),
        ]
    )
    count = 1 if kind == b"eXIf" else rng.choice([1, 70, 300])
    pixels = chunk(b"IDAT", zlib.compress(bytes(90)))
    if rng.random() < 0.5:
        pixels, parts = pixels + chunk(kind, body) * count, b""
    else:
        parts = chunk(kind, body) * count
    files = [png_head(9, 9, 8, 0) + parts + pixels + END]
    block = b"Exif\0\0" + ifd(rng)[:65000]
    picture = saved(rgb(rng), "JPEG")
    files.append(picture[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + picture[2:])
    mpf = b"MPF\0II*\0\x08\0\0\0\3\0" + struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
    mpf += struct.pack("<HHIIHHII", 0xB001, 4, 1, rng.choice([2, 1 << 31]), 0xB002, 7, rng.choice([16, 1 << 31]), 50)
    files.append(picture[:2] + b"\xff\xe2" + struct.pack(">H", len(mpf) + 2) + mpf + picture[2:])
    files.append(saved(rgb(rng), "WEBP", exif=b"Exif\0\0" + ifd(rng)))
    return rng.choice(files)


def ifd(rng: Random) -> bytes:
    """A directory of EXIF with very many entries that all point at the same bytes, or at itself."""
    count, length = rng.choice([2000, 5000, 65535]), rng.choice([1, 30000, 1 << 20, 1 << 31])
    kind = rng.choice([1, 2, 4, 7, 10, 12])
    entries = b"".join(struct.pack("<HHII", place & 0xFFFF, kind, length, 8) for place in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + struct.pack("<I", 8) + bytes(40_000)


def frames(rng: Random) -> bytes:
    """Many frames, of which the first counts."""
    side = rng.choice([16, 900])
    few = [Image.new("RGB", (side, side), (100 * i, 0, 0)) for i in range(3)]
    kind = rng.choice(["GIF", "WEBP", "PNG"])
    data = saved(few[0], kind, save_all=True, append_images=few[1:])
    if kind == "GIF":
        at = data.index(b"!\xf9", 20)
        return data[:at] + data[at:-1] * rng.choice([10, 5000]) + b";"
    if kind == "WEBP":
        at = data.index(b"ANMF")
        return riff(data[12:at] + data[at:] * rng.choice([10, 5000, 40_000]))
    at = data.index(b"fcTL") - 4
    return data[:at] + data[at:-12] * rng.choice([10, 5000]) + data[-12:]


def scans(rng: Random) -> bytes:
    """A progressive JPEG whose scans come again and again, with other sizes or codings claimed."""
    side = rng.choice([64, 1024, 2040])
    photo = Image.fromarray(photograph(rng)).resize((side, side))
    data = saved(photo, "JPEG", progressive=True, quality=rng.choice([30, 90]))
    first = data.index(b"\xff\xda")
    scan = data[rng.choice([first, data.rindex(b"\xff\xda")]) : -2]
    most = MAX_SCANNED_PIXELS // side**2 - data.count(b"\xff\xda")  # as many as are still decoded
    count = rng.choice([most // scan.count(b"\xff\xda"), 5000, 100_000])
    data = data[:-2] + scan * min(count, (20 << 20) // len(scan)) + data[-2:]
    if rng.random() < 0.3:
        data = resized(data, *rng.choice([(8192, 8192), (65500, 2000), (5000, 5000)]))
    if rng.random() < 0.3:
        data = data.replace(b"\xff\xc2", bytes((0xFF, rng.choice([0xC0, 0xC1, 0xC3, 0xC9, 0xCA, 0xCB]))), 1)
    return data


def factors(rng: Random) -> bytes:
    """A JPEG with extreme sampling factors, or with components in scans of their own."""
    data = bytearray(saved(rgb(rng, rng.choice(["RGB", "CMYK"])), "JPEG", progressive=rng.random() < 0.5))
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    for component in range(data[at + 9]):
        data[at + 11 + 3 * component] = rng.choice(
            [0x11, 0x11, 0x12, 0x21, 0x22, 0x14, 0x41, *[0x44, 0xFF, 0]][: rng.choice([4, 7, 10])]
        )
    scan = data.index(b"\xff\xda")
    segments = jpeg_segments(bytes(data[:scan]))
    large = resized(bytes(data), *rng.choice([(7000, 7000), (65535, 1000), (3000, 3000)]))
    return large[:-2] + rng.randbytes(1000) * rng.choice([1, 400, len(segments)]) + large[-2:]


def packed_bmp(rng: Random) -> bytes:
    """A BMP packed by run lengths."""
    side = rng.choice([5000, 8192, 20000])
    head = struct.pack("<IiiHHIIIIII", 40, side, side, 1, 8, rng.choice([1, 2, 3, 4, 5]), 0, 0, 0, 0, 0)
    body = rng.choice([b"\1\7", b"\0\2\xff\xff", b"\0\0", b"\xff\7"]) * 5 * MILLION
    return b"BM" + struct.pack("<IHHI", 1 << 20, 0, 0, 54 + 1024) + head + bytes(1024) + body


def large_ppm(rng: Random) -> bytes:
    """Binary samples of two bytes, or of a highest value that needs scaling."""
    channels, highest = rng.choice([(1, 65535), (3, 65535), (1, 3), (3, 254)])
    side = rng.choice([3000, 4000, 6500])
    size = channels * (1 if highest < 256 else 2) * side * side
    return f"P{5 if channels == 1 else 6} {side} {side} {highest}\n".encode() + bytes(min(size, 120 << 20))


def dense_png(rng: Random) -> bytes:
    """A PNG that hardly packs, with the slowest filter."""
    side, channels = rng.choice([3000, 4500]), rng.choice([3, 4])
    block = rng.randbytes(1 << 20)
    line = side * channels
    packer, parts = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY), []
    for y in range(side):
        at = y * 977 % (len(block) - line)
        parts.append(packer.compress(b"\4" + block[at : at + line]))
    head = png_head(side, side, 8, 2 if channels == 3 else 6)
    return head + chunk(b"IDAT", b"".join([*parts, packer.flush()])) + END


def bomb(make: Callable[[Random], bytes]) -> Callable[[Random, Path], tuple[Path, str]]:
    """Make a file of a bomb."""

    def target(rng: Random, folder: Path) -> tuple[Path, str]:
        return placed(rng, folder, make(rng))

    return target


LARGE = (big_png, big_png, big_jpeg, big_by_pillow, big_webp, large_ppm, dense_png)


def large(rng: Random) -> bytes:
    """A picture of tens of megapixels, of any format."""
    return rng.choice(LARGE)(rng)


BOMBS = (large, claim, long_header, metadata, frames, scans, factors, packed_bmp)
FAMILIES = [Family(make.__name__.replace("_", " "), bomb(make), read) for make in BOMBS]
