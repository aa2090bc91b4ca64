"""Recorded latencies, read back."""

import numpy as np
import pytest

from specpolicy.control.trace import check_trace, read_counts, read_trace, trace_digest
from specpolicy.errors import SpecpolicyError


def test_the_calls_of_one_sampler_in_their_order(tmp_path):
    path = tmp_path / "chunks.csv"
    path.write_text("sampler,seed,seconds\nddim,1,0.2\nddpm,1,0.5\nddim,2,0.1\n")
    np.testing.assert_array_equal(read_trace(path, "ddim"), [0.2, 0.1])
    path.write_text("seconds\n0.3\n")
    np.testing.assert_array_equal(read_trace(path), [0.3])


def test_calls_and_rows_where_the_file_has_them(tmp_path):
    path = tmp_path / "chunks.csv"
    path.write_text("sampler,seconds,calls,rows\nddim,0.2,10,10\nasd,0.5,4,60\nasd,0.1,3,40\n")
    counts = read_counts(path, "asd")
    assert counts["calls"].tolist() == [4, 3] and counts["rows"].tolist() == [60, 40]
    path.write_text("sampler,seconds,calls\nddim,0.2,ten\n")
    with pytest.raises(SpecpolicyError, match="an entry in the column 'calls' is no number"):
        read_counts(path, "ddim")
    path.write_text("seconds\n0.3\n")
    assert read_counts(path) == {}


@pytest.mark.parametrize(
    "text, sampler, message",
    (
        ("", None, "needs a column 'seconds'"),
        ("milliseconds\n3\n", None, "needs a column 'seconds'"),
        ("sampler,seconds\na,1\nb,2\n", None, "choose one of a, b"),
        ("sampler,seconds\na,1\n", "c", "no calls of 'c'"),
        ("seconds\nfast\n", None, "is no number"),
        ("seconds\n0.1\nnan\n", None, "finite"),
        ("seconds\n-1\n", None, "not negative"),
    ),
)
def test_files_that_are_no_traces(tmp_path, text, sampler, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(SpecpolicyError, match=message):
        read_trace(path, sampler)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes("sampler,seconds\nd\u00fcpm,1\n".encode("latin-1"))
    with pytest.raises(SpecpolicyError, match="is no latency trace, a CSV file in UTF-8"):
        read_trace(path)


def test_another_file_at_its_place_is_noticed(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("sampler,seconds\nddpm,1\n")
    digest = trace_digest(path)
    check_trace(path, digest)
    path.write_text("sampler,seconds\nddpm,2\n")
    for _ in range(2):
        with pytest.raises(SpecpolicyError, match="is not the trace whose times were charged"):
            check_trace(path, digest)
        path.unlink(missing_ok=True)
