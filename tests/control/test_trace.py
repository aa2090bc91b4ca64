"""Recorded latencies, read back."""

import numpy as np
import pytest

from specpolicy.control.trace import read_trace
from specpolicy.errors import SpecpolicyError


def test_the_calls_of_one_sampler_in_their_order(tmp_path):
    path = tmp_path / "chunks.csv"
    path.write_text("sampler,seed,seconds\nddim,1,0.2\nddpm,1,0.5\nddim,2,0.1\n")
    np.testing.assert_array_equal(read_trace(path, "ddim"), [0.2, 0.1])
    path.write_text("seconds\n0.3\n")
    np.testing.assert_array_equal(read_trace(path), [0.3])


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
