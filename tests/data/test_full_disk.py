"""A disk that fills up while demonstrations are written: one line, and no crash of the process by HDF5 at its end."""

import subprocess
import sys

import pytest

# A process of its own, as HDF5 crashes where it cannot write, some of the time only when Python ends.
PROGRAM = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from specpolicy.data import robomimic_hdf5 as stored
from specpolicy.errors import SpecpolicyError

what, place, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
one = np.random.default_rng(0).normal(size=(1000, 2))
made = stored.Demonstration(one, one, one[:, 0], one[:, 0], {"state": np.repeat(one, 2, 0)[:1001]}, True)
if what == "assemble":
    stored.write_part(place / "part.hdf5", made, True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if what == "assemble":
        stored.assemble(place / "out.hdf5", [place / "part.hdf5"] * 3, {}, {}, [0], 20.0)
    else:
        stored.write_part(place / "out.hdf5", made, True)
except SpecpolicyError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 100, 8192, 30000])
@pytest.mark.parametrize("what", ["write_part", "assemble"])
def test_it_is_one_line(what, limit, tmp_path):
    arguments = [sys.executable, "-c", PROGRAM, what, str(tmp_path), str(limit)]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{tmp_path / 'out.hdf5'} cannot be written: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["part.hdf5"] * (what == "assemble")
