"""The images of a LeRobot data set that lie in its parquet files: a PNG or JPEG an entry. Needs the extra `data`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specpolicy.data.bounds import MOST_BYTES
from specpolicy.data.frames import Source
from specpolicy.data.png import from_picture
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_OPEN = 32  # files: a data set may have one an episode, and a process may have 1024 of all kinds
MOST_PACKED = 256 * 2**20  # bytes of packed images that a process keeps: a file can be read by whole row groups only


class ParquetImages(Source):
    """The files of a data set; a place is a feature, and an image's number is its row in all files together."""

    def __init__(self, files: Sequence[Path]):
        super().__init__()
        self.files = list(files)
        self.sizes: dict[str, tuple[int, int, int]] = {}

    def open(self) -> _Opened:
        """See `Source.open`."""
        return _Opened(self.files)

    def measure(self, feature: str) -> tuple[int, int, int]:
        """Return (H, W, 3) of the images of a feature, as the first one has it.

        Raises:
            SpecpolicyError: it is no image.
        """
        if feature not in self.sizes:
            height, width, channels = self._image(feature, 0).shape
            self.sizes[feature] = height, width, channels
        return self.sizes[feature]

    def read(self, where: str, steps: np.ndarray) -> np.ndarray:
        """See `Source.read`."""
        size = self.measure(where)
        images = [self._image(where, int(step)) for step in steps]
        for step, image in zip(steps, images, strict=True):
            if image.shape != size:
                raise SpecpolicyError(
                    f"{self.files[0].parent}: '{where}' in row {step} has shape {image.shape}, expected {size}"
                )
        return np.stack(images)

    def _image(self, feature: str, row: int) -> np.ndarray:
        file, group, place = self.opened.locate(row)
        packed = self.opened.group(file, group, feature)[place].as_py()
        where = f"{self.files[file]}: '{feature}' in row {row}"
        if not packed:
            raise SpecpolicyError(f"{where} holds no image: files of images are not read, embed them in the parquet")
        return from_picture(packed, where)


class _Opened:
    """The files that were read last, open, and their packed images."""

    def __init__(self, files: Sequence[Path]):
        from pyarrow import ArrowException, parquet

        self._paths = files
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._groups: list[tuple[int, int]] = []
        counts = []
        try:
            for number, file in enumerate(files):
                metadata = parquet.read_metadata(file)
                for group in range(metadata.num_row_groups):
                    self._groups.append((number, group))
                    counts.append(metadata.row_group(group).num_rows)
        except (ArrowException, OSError) as error:
            raise SpecpolicyError(f"{files[0].parent} cannot be read ({str(error).splitlines()[0]})") from None
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._kept: OrderedDict[tuple[int, int, str], pa.Array] = OrderedDict()

    def locate(self, row: int) -> tuple[int, int, int]:
        """(file, row group, row in it) of a row of all files."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        file, group = self._groups[number]
        return file, group, row - int(self._starts[number])

    def group(self, file: int, group: int, feature: str) -> pa.Array:
        """The packed images of a row group."""
        key = (file, group, feature)
        if key not in self._kept:
            self._kept[key] = self._read(file, group, feature)
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > MOST_PACKED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _file(self, number: int) -> Any:
        from pyarrow import ArrowException, parquet

        if number not in self._files:
            try:
                self._files[number] = parquet.ParquetFile(self._paths[number])
            except (ArrowException, OSError) as error:
                path, reason = self._paths[number], str(error).splitlines()[0]
                raise SpecpolicyError(f"{path} cannot be read ({reason})") from None
            if len(self._files) > MOST_OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(number)
        return self._files[number]

    def _read(self, file: int, group: int, feature: str) -> pa.Array:
        import pyarrow as pa

        one, path = self._file(file), self._paths[file]
        metadata = one.metadata.row_group(group)
        columns = [metadata.column(index) for index in range(metadata.num_columns)]
        size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == f"{feature}.bytes")
        if size > MOST_BYTES:
            raise SpecpolicyError(
                f"{path}: the images '{feature}' of one row group take {size} bytes: that is too many"
            )
        try:
            column: Any = one.read_row_group(group, columns=[feature]).column(0).combine_chunks()
        except (pa.ArrowException, OSError, IndexError) as error:
            raise SpecpolicyError(f"{path}: '{feature}' cannot be read ({str(error).splitlines()[0]})") from None
        kind = column.type
        index = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
        if index < 0 or not (
            pa.types.is_binary(kind.field(index).type) or pa.types.is_large_binary(kind.field(index).type)
        ):
            raise SpecpolicyError(f"{path}: '{feature}' holds {kind}, expected images (bytes and path)")
        return column.field(index)
