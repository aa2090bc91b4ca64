"""The CSV log against a model of it: any sequence of logs, kills and resumes keeps what it should."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specpolicy.errors import SpecpolicyError
from specpolicy.logging import NoLogger, make_logger
from specpolicy.logging.csv_logger import CsvLogger

finite = st.floats(allow_nan=False, allow_infinity=False)
logged = st.lists(st.dictionaries(st.sampled_from(["loss", "lr", "a,b"]), finite, min_size=1), max_size=12)


def rows(path):
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


@given(logged, logged, st.integers(0, 12))
def test_resume_keeps_rows_up_to_the_step_and_appends(tmp_path_factory, first, second, step):
    path = tmp_path_factory.mktemp("log") / "metrics.csv"
    with CsvLogger(path) as logger:
        for number, metrics in enumerate(first):
            logger.log(metrics, number)
    with CsvLogger(path, resume_step=step) as logger:
        for number, metrics in enumerate(second):
            logger.log(metrics, step + 1 + number)
    kept = [{**metrics, "step": n} for n, metrics in enumerate(first) if n <= step]
    assert rows(path) == kept + [{**metrics, "step": step + 1 + n} for n, metrics in enumerate(second)]


@pytest.mark.parametrize("torn", ["3,0.", "3", '"3'])
def test_a_line_cut_by_a_kill_is_dropped(tmp_path, torn):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss\n1,0.5\n2,0.25\n{torn}")
    with CsvLogger(path) as logger:
        logger.log({"loss": 0.125}, 3)
    assert rows(path) == [{"step": n, "loss": 0.5**n} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "text", ["step,loss\nx,0.5\n", "step,loss\n,\n", "step,loss\n1,2,3\n", "step\n1\0\n", "step\n\xff\n"]
)
@pytest.mark.parametrize("resume_step", [None, 1])
def test_a_damaged_file_is_one_line(tmp_path, text, resume_step):
    path = tmp_path / "metrics.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecpolicyError, match=rf"^{path} is damaged [^\n]*: mend it or move it away$"):
        CsvLogger(path, resume_step)
    assert path.read_bytes() == text.encode("latin-1")


def test_rows_are_on_disk_before_close(tmp_path):
    logger = CsvLogger(tmp_path / "metrics.csv")
    logger.log({"loss": 1.0}, 1)
    logger.log({"other": 2.0}, 2)
    assert rows(tmp_path / "metrics.csv") == [{"step": 1, "loss": 1.0}, {"step": 2, "other": 2.0}]
    logger.close()


def test_numbers_of_arrays_read_back_exactly(tmp_path):
    import numpy as np
    import torch

    with CsvLogger(tmp_path / "metrics.csv") as logger:
        logger.log({"a": np.float32(0.1), "b": torch.tensor(0.5), "c": 3, "d": True}, 0)
    assert rows(tmp_path / "metrics.csv") == [{"step": 0, "a": float(np.float32(0.1)), "b": 0.5, "c": 3, "d": 1}]


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("name,age\nada,36\n")
    with pytest.raises(SpecpolicyError, match="no metrics file"):
        CsvLogger(path)
    assert path.read_text() == "name,age\nada,36\n"


def test_make_logger_by_name(tmp_path):
    assert isinstance(make_logger({"name": "none"}, tmp_path), NoLogger)
    assert not list(tmp_path.iterdir())
    with make_logger({"name": "csv"}, tmp_path) as logger:
        logger.log({"loss": 1.0}, 0)
        logger.summary({"best": 1.0})
    assert (tmp_path / "metrics.csv").is_file()
    with pytest.raises(SpecpolicyError, match="unknown logger 'tensorboard'"):
        make_logger({"name": "tensorboard"}, tmp_path)
