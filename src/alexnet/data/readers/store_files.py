"""The list of a store's source files, files.parquet: its schema, and reading it within limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.data.readers.store_format import FILES, FILES_ROWS, leads_out
from alexnet.errors import DataError, one_line
from alexnet.files import open_regular

FILES_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("sha256", pa.binary()),
        ("label", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("notes", pa.string()),
    ]
)
_MOST_COLUMN = 16 << 20  # bytes of a column of a row group, compressed
_LONGEST_NAME = 1 << 12  # characters


@contextmanager
def open_files(root: Path, name: str, count: int) -> Iterator[pq.ParquetFile]:
    """Open the list of a split's source files. Raises `DataError` where it is not one of `count` rows.

    Its columns are bounded before they are read: a hostile file of a few KB may hold gigabytes.
    """
    path = root / name / FILES
    if leads_out(root, path):
        raise DataError(f"{path}: it is a link that leads out of the store")
    try:
        # Of dictionaries, so that a long text that is repeated stands in memory once.
        with open_regular(path) as raw, pq.ParquetFile(raw, read_dictionary=["file", "sha256", "notes"]) as file:
            known = file.metadata
            groups = [known.row_group(group) for group in range(min(known.num_row_groups, -(-count // FILES_ROWS)))]
            rows = [group.num_rows for group in groups]
            if known.num_rows != count or rows != _group_rows(count):
                raise ValueError(f"it has {known.num_rows} rows in {known.num_row_groups} groups, not {count}")
            if not known.schema.to_arrow_schema().equals(FILES_SCHEMA):
                raise ValueError("it has other columns")
            for column in (group.column(at) for group in groups for at in range(group.num_columns)):
                if column.total_compressed_size > _MOST_COLUMN or column.compression not in ("SNAPPY", "UNCOMPRESSED"):
                    raise ValueError("its columns are too large, or compressed in another way")
            yield file
    except DataError:
        raise
    except (OSError, ValueError, TypeError, LookupError, pa.ArrowException) as error:
        raise DataError(f"{path}: it is not a list of the source files: {one_line(error)}") from None


def _group_rows(count: int) -> list[int]:
    return [min(FILES_ROWS, count - first) for first in range(0, count, FILES_ROWS)]


def read_rows(file: pq.ParquetFile, group: int, columns: list[str]) -> dict[str, list[Any]]:
    """Columns of a row group of an opened list of files. Raises `DataError` where they are damaged."""
    try:
        table = file.read_row_group(group, columns=columns)
        if table.num_rows != file.metadata.row_group(group).num_rows or table.column_names != columns:
            raise ValueError("rows are missing")
        rows = {name: [value for chunk in table.column(name).chunks for value in _values(chunk)] for name in columns}
        if any(table.column(name).null_count for name in columns):
            raise ValueError("values are missing")
        longest = max((len(name) for name in rows.get("file", [])), default=0)
        if longest > _LONGEST_NAME:
            raise ValueError(f"it has a name of {longest} characters")
    except (OSError, ValueError, TypeError, LookupError, pa.ArrowException) as error:
        raise DataError(f"its list of source files is damaged: {one_line(error)}") from None
    return rows


def _values(chunk: pa.Array) -> list[Any]:
    """An array as Python values, equal ones shared where it has a dictionary."""
    if not isinstance(chunk, pa.DictionaryArray):
        return chunk.to_pylist()
    values = chunk.dictionary.to_pylist()
    return [values[at] for at in chunk.indices.to_pylist()]
