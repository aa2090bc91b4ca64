"""Pictures as LeRobot's data sets have them: of 8 bits, turned as they say, in however many files."""

import io

import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.data import parquet_images
from specpolicy.data.png import from_picture


def packed(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def test_a_map_of_depths_is_refused_and_a_photograph_is_turned_as_it_says():
    Image = pytest.importorskip("PIL.Image")
    depths = Image.fromarray(np.full((2, 3), 4000, np.uint16))
    with pytest.raises(SpecpolicyError, match="here is an image of mode I;16: 8 bits a channel are read"):
        from_picture(packed(depths), "here")
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(from_picture(packed(Image.fromarray(grey)), "here"), np.stack([grey] * 3, axis=-1))
    turn = Image.Exif()
    turn[0x0112] = 3  # upside down
    halves = np.repeat(np.array([0, 255], np.uint8), 8)[:, None].repeat(16, axis=1)
    found = from_picture(packed(Image.fromarray(halves), "JPEG", exif=turn), "here")
    assert found[0].min() > 250 and found[-1].max() < 5


def test_few_files_are_open_however_many_there_are(tmp_path, monkeypatch):
    """One a file of an episode, as LeRobot's second version has them."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    Image = pytest.importorskip("PIL.Image")
    files = [tmp_path / f"episode_{number}.parquet" for number in range(9)]
    for number, file in enumerate(files):
        rows = [{"bytes": packed(Image.new("RGB", (2, 2), (number, step, 0))), "path": ""} for step in range(3)]
        parquet.write_table(pa.table({"top": rows}), file)
    opened = []

    class Counted(parquet.ParquetFile):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)

        def close(self, *arguments, **options):
            super().close(*arguments, **options)
            opened.remove(self)

    monkeypatch.setattr(parquet, "ParquetFile", Counted)
    monkeypatch.setattr(parquet_images, "MOST_OPEN", 2)
    images = parquet_images.ParquetImages(files)
    for _ in range(2):
        found = images.read("top", np.arange(27))
        assert found[:, 0, 0, :2].tolist() == [[number, step] for number in range(9) for step in range(3)]
        assert len(opened) == 2
