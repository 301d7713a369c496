"""Parquet files of strangers: what is read, what is refused and how, and what a small file may expand to."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alexnet.data.readers import parquet_pages
from alexnet.data.readers.open import open_source
from alexnet.errors import DataError, UnreadableImage

MIB = 1 << 20
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def blobs(photo, encoded):
    return [encoded(photo(i)) for i in range(4)]


def images(blobs, paths=("a", "b", "c", "d")):
    return pa.array([{"bytes": blob, "path": path} for blob, path in zip(blobs, paths, strict=True)], STRUCT)


def write(folder, columns, names=None, file="train-0.parquet", **options):
    table = pa.table(columns)
    if names is not None:
        feature = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    pq.write_table(table, folder / file, **options)


def refused(folder, *words):
    with pytest.raises(DataError) as caught:
        open_source(folder)
    message = str(caught.value)
    assert all(word in message for word in words) and len(message) < 600 and message.isprintable(), message


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [False, True])
def test_files_of_every_kind_of_page_are_read(tmp_path, blobs, compression, version, use_dictionary):
    columns = {"image": images(blobs), "label": pa.array([0, 1, 0, 1])}
    write(tmp_path, columns, compression=compression, data_page_version=version, use_dictionary=use_dictionary)
    split = open_source(tmp_path / "train-0.parquet").splits["train"]
    assert [split.read_bytes(i) for i in range(4)] == blobs and split.image_name(3) == "d"
    assert open_source(tmp_path).splits["train"].labels.tolist() == [0, 1, 0, 1]


def test_rows_without_an_image_or_a_name_are_told(tmp_path, blobs):
    rows = [
        {"bytes": None, "path": "gone.jpg"},
        None,
        {"bytes": blobs[0], "path": None},
        {"bytes": blobs[1], "path": "x" * 9999},
    ]
    write(tmp_path, {"image": pa.array(rows, STRUCT), "label": pa.array([0, 1, 0, 1])})
    split = open_source(tmp_path).splits["train"]
    for i in (0, 1):
        with pytest.raises(UnreadableImage, match="no bytes"):
            split.read_bytes(i)
    assert [split.read_bytes(i) for i in (2, 3)] == blobs[:2]
    assert [split.image_name(i) for i in range(4)] == ["gone.jpg", *[f"train-0.parquet#{i}" for i in (1, 2, 3)]]


@pytest.mark.parametrize(
    "columns, words",
    [
        (lambda b: {"image": images(b)}, ["no label column"]),
        (lambda b: {"label": [0, 1, 0, 1]}, ["no image column"]),
        (lambda b: {"image": pa.array(["a"] * 4), "label": [0, 1, 0, 1]}, ["no image column"]),
        (lambda b: {"image": pa.array([{"bytes": "x"}] * 4), "label": [0, 1, 0, 1]}, ["bytes as 'string'"]),
        (lambda b: {"image": pa.array([{"bytes": 1.5}] * 4), "label": [0, 1, 0, 1]}, ["bytes as 'double'"]),
        (lambda b: {"image": images(b), "label": ["a", "b", "a", "b"]}, ["'label' holds 'string'", "integers"]),
        (lambda b: {"image": images(b), "label": [0, 1, None, 1]}, ["1 rows without a label"]),
        (lambda b: {"image": images(b), "label": [0, 1, 5 * 10**7, 1]}, ["label 50000000 of row 2", "out of range"]),
        (lambda b: {"image": images(b), "label": [0, 1, -(2**63), 1]}, ["of row 2 is out of range"]),
        (
            lambda b: {"image": images(b), "label": pa.array([2**64 - 1] * 4, pa.uint64())},
            ["label 18446744073709551615"],
        ),
        (lambda b: {"image": images(b), "label": [0, 1, 40_000, 1]}, ["label 40000", "no names"]),
        (lambda b: {"image": images(b), "label": [0, 1, -1, 1]}, ["label -1"]),
    ],
)
def test_columns_that_are_not_as_they_should_be_are_named(tmp_path, blobs, columns, words):
    write(tmp_path, columns(blobs))
    refused(tmp_path, "train-0.parquet" if "label -1" not in words and "no names" not in words else "", *words)


def test_a_column_that_is_there_twice_is_refused(tmp_path, blobs):
    labels = pa.array([0, 1, 0, 1])
    table = pa.Table.from_arrays([images(blobs), labels, labels], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "train-0.parquet")
    refused(tmp_path, "same name")


def test_a_path_of_another_type_is_passed_over(tmp_path, blobs):
    rows = pa.array([{"bytes": blob, "path": 7} for blob in blobs])
    write(tmp_path, {"image": rows, "label": [0, 1, 0, 1]})
    split = open_source(tmp_path).splits["train"]
    assert split.image_name(1) == "train-0.parquet#1" and split.read_bytes(1) == blobs[1]


@pytest.mark.parametrize(
    "names, words",
    [
        ("cat", "no list"),
        (7, "no list"),
        (["cat", "cat"], "both called 'cat'"),
        (["cat", 7], "class 1 must be a text"),
        (["x" * 5000, "y"], "class 0 must be a text"),
        ({"a": "cat", "0": "dog"}, "lack one for label 1"),
    ],
)
def test_names_of_classes_that_are_none_are_refused(tmp_path, blobs, names, words):
    write(tmp_path, {"image": images(blobs), "label": [0, 1, 0, 1]}, names)
    refused(tmp_path, words)


def test_names_by_number_are_put_in_order(tmp_path, blobs):
    write(tmp_path, {"image": images(blobs), "label": [0, 1, 0, 1]}, {"1": "dog", "0": "cat"})
    assert open_source(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"{", b"null", b'{"info": 3}', b"\xff", b'{"info": {"features": []}}']
)
def test_a_description_that_makes_no_sense_is_passed_over(tmp_path, blobs, text):
    table = pa.table({"image": images(blobs), "label": [0, 1, 0, 1]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, tmp_path / "train-0.parquet")
    assert open_source(tmp_path).classes == ("0", "1")


def test_a_test_split_whose_labels_are_kept_back_is_left_out(tmp_path, blobs):
    write(tmp_path, {"image": images(blobs), "label": [0, 1, 0, 1]})
    write(tmp_path, {"image": images(blobs), "label": [-1] * 4}, file="test-0.parquet")
    assert set(open_source(tmp_path).splits) == {"train"}


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_shard_with_other_columns_is_named(tmp_path, blobs, column):
    columns = {"image": images(blobs), "label": pa.array([0, 1, 0, 1])}
    write(tmp_path, columns)
    columns[column] = pa.array(["a"] * 4)
    write(tmp_path, columns, file="train-1.parquet")
    refused(tmp_path, "train-1.parquet", column)


def test_what_is_no_file_is_refused_at_once(tmp_path, blobs):
    write(tmp_path, {"image": images(blobs), "label": [0, 1, 0, 1]})
    os.mkfifo(tmp_path / "test-0.parquet")
    refused(tmp_path, "test-0.parquet", "not a regular file")
    refused(tmp_path / "test-0.parquet", "not a regular file")


def test_a_footer_larger_than_its_file_is_refused(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1" + bytes(20) + (2**32 - 1).to_bytes(4, "little") + b"PAR1")
    refused(tmp_path, "footer")


BOMBS = {
    "packed": ([bytes(200 * MIB)] * 2, {"use_dictionary": False}, "expand to more than"),
    "dictionary": ([bytes(MIB)] * 400, {"dictionary_pagesize_limit": 1 << 30}, "take more than|more than fit"),
    "differences": ([bytes(MIB)] * 3, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}, "encoding"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_does_not_expand_to_gigabytes(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MOST_SMALL", 8 * MIB)  # as with 128 MiB, in less time
    blobs, options, words = BOMBS[kind]
    blobs = [blob[: 5 * MIB] for blob in blobs]
    labels = pa.array(np.arange(len(blobs)) % 2)
    if "column_encoding" in options:
        options = options | {"column_encoding": {"image": options["column_encoding"], "label": "PLAIN"}}
    write(tmp_path, {"image": pa.array(blobs, pa.binary()), "label": labels}, compression="zstd", **options)
    split = open_source(tmp_path).splits["train"]
    before = pa.total_allocated_bytes()
    for _ in range(2):  # the second time it is known
        with pytest.raises(UnreadableImage, match=words):
            split.read_bytes(0)
    assert pa.total_allocated_bytes() - before < 20 * MIB


def test_more_rows_than_a_file_can_hold_are_not_believed(tmp_path):
    rows = 1 << 17
    write(
        tmp_path,
        {"image": pa.array([b""] * rows, pa.binary()), "label": pa.array(np.zeros(rows, int))},
        compression="zstd",
    )
    refused(tmp_path, f"it says that it has {rows} rows")
