"""Bounds on a stranger's data file: it may use its own bytes only, and no more memory than a machine has.

HDF5 lets a dataset lie in any other file of the machine. Both HDF5 and parquet store a million equal numbers in a few
bytes.
"""

from pathlib import Path
from typing import Any

import h5py

from specpolicy.errors import SpecpolicyError

MOST_BYTES = 4 * 2**30  # of an array in memory
PACKED = 1100  # most bytes that deflate packs into one
ALWAYS = 2**20  # bytes that any array may have


def check_dataset(array: h5py.Dataset, where: str, path: str | Path) -> None:
    """Raise unless an HDF5 dataset lies in its own file and can have its stated size.

    Raises:
        SpecpolicyError: it does not.
    """
    if array.external or array.is_virtual or array.file.filename != str(path):
        raise SpecpolicyError(f"{path}: {where} lies in another file: copy it into this one")
    if array.nbytes > MOST_BYTES or array.nbytes > ALWAYS + PACKED * array.id.get_storage_size():
        raise SpecpolicyError(f"{path}: {where} says it has the shape {array.shape}, which is more than it can hold")


def check_table(metadata: Any, names: list[str], file: Path) -> None:
    """Raise if columns of a parquet file are too large.

    Args:
        metadata: of pyarrow's `ParquetFile`.
        names: of the columns.
        file: the parquet file, for messages.

    Raises:
        SpecpolicyError: a column is too large.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    # The numbers of a list `state` are the column `state.list.element`.
    prefixes = tuple(f"{name}." for name in names)
    count = sum(column.num_values for column in columns if f"{column.path_in_schema}.".startswith(prefixes))
    if 8 * max(count, metadata.num_rows) > MOST_BYTES:
        raise SpecpolicyError(f"{file} says it has {metadata.num_rows} rows, {count} numbers: that is too many")
