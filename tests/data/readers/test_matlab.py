"""Our reader of MATLAB files beside scipy's, and files that nobody's program wrote."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from alexnet.data.readers.matlab import MOST_BYTES, read_records
from tests.data.conftest import meta_mat

FIELDS = ("ILSVRC2012_ID", "WNID", "words", "num_children")


def by_scipy(data, fields=FIELDS):
    rows = np.atleast_1d(scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"])
    return [
        {name: row[name].item() if isinstance(row[name], np.ndarray) else row[name] for name in fields} for row in rows
    ]


def saved(rows, **options):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"before": np.arange(5), "synsets": rows, "after": "text"}, **options)
    return buffer.getvalue()


def records(*rows, fields=FIELDS):
    array = np.empty((len(rows), 1), dtype=[(name, "O") for name in fields])
    for i, row in enumerate(rows):
        array[i, 0] = row
    return array


ROWS = records((1.0, "n00000001", "kit fox, Vulpes", 0), (np.uint16(2), "n00000002", "Bär 熊", np.int8(-3)))


@pytest.mark.parametrize("compressed", [False, True])
def test_records_are_those_that_scipy_reads(compressed):
    data = saved(ROWS, do_compression=compressed)
    assert read_records(data, "synsets", FIELDS) == by_scipy(data)
    assert read_records(meta_mat(2012), "synsets", FIELDS) == by_scipy(meta_mat(2012))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_numbers_of_every_kind_are_read(kind):
    data = saved(records((kind(7), "n", "w", kind(0))))
    assert read_records(data, "synsets", FIELDS)[0]["ILSVRC2012_ID"] == 7


def test_what_is_no_text_and_no_number_is_none():
    data = saved(records((np.arange(3), "", np.zeros((0, 0)), ROWS)))
    assert read_records(data, "synsets", FIELDS) == [dict(zip(FIELDS, (None, "", None, None), strict=True))]


def test_files_written_on_a_big_endian_machine_are_read():
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(number, sizes, name, *rest):
        head = element(6, struct.pack(">II", number, 0)) + element(5, struct.pack(">2i", *sizes)) + element(1, name)
        return element(14, head + b"".join(rest))

    names = b"a".ljust(32, b"\0") + b"b".ljust(32, b"\0")
    number, text = array(6, (1, 1), b"", element(9, struct.pack(">d", 3))), array(4, (1, 2), b"", element(4, b"\0h\0i"))
    data = (
        bytes(124)
        + b"\1\0MI"
        + array(2, (1, 1), b"synsets", struct.pack(">HHi", 4, 5, 32), element(1, names), number, text)
    )
    assert read_records(data, "synsets", ("a", "b")) == [{"a": 3.0, "b": "hi"}]


@pytest.mark.parametrize("compressed", [False, True])
def test_any_byte_may_be_wrong(compressed):
    data = saved(ROWS, do_compression=compressed)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        try:
            read_records(bytes(damaged[: rng.integers(len(data)) if rng.random() < 0.2 else None]), "synsets", FIELDS)
        except ValueError as error:
            assert str(error) and "struct.error" not in str(error) and "codec" not in str(error)


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "not a MATLAB file"),
        (saved(ROWS)[:200], "cut short|no struct array"),
        (saved(records((1, "n", "w", 0), fields=("ILSVRC2010_ID", *FIELDS[1:]))), "no field ILSVRC2012_ID"),
        (saved(np.arange(3)), "no struct array synsets"),
        (saved(records((1, "n", "w" * 100_000, 0))), "a text of it has 100000 bytes"),
    ],
)
def test_what_is_wrong_is_said(data, words):
    with pytest.raises(ValueError, match=words):
        read_records(data, "synsets", FIELDS)


def test_a_bomb_is_not_expanded():
    packed = zlib.compress(bytes(4 * MOST_BYTES))
    header = saved(ROWS)[:128]
    bomb = struct.pack("<II", 15, len(packed)) + packed
    with pytest.raises(ValueError, match="too large"):
        read_records(header + bomb, "synsets", FIELDS)
    small = zlib.compress(bytes(MOST_BYTES // 2))
    with pytest.raises(ValueError, match="too large"):
        read_records(header + 3 * (struct.pack("<II", 15, len(small)) + small), "synsets", FIELDS)
