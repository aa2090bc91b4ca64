"""Checkpoints that the other projects wrote themselves, where a directory of them is at hand.

SPECPOLICY_PEERS names it, or it is shared/peers beside this repository. Each `reference.npz` below it stands beside its
checkpoint, see scripts/check_peers.py.
"""

import os
from pathlib import Path

import pytest
from test_lerobot import check_peers

BESIDE = Path(__file__).parents[3] / "shared" / "peers"
PEERS = os.environ.get("SPECPOLICY_PEERS") or (BESIDE if BESIDE.is_dir() else None)
DIRECTORIES = sorted(path.parent for path in Path(PEERS).rglob("reference.npz")) if PEERS else []


@pytest.mark.skipif(not PEERS, reason="set SPECPOLICY_PEERS to a directory of checkpoints with references")
def test_there_are_peers():
    assert DIRECTORIES


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_our_reading_of_a_peer(directory):
    differences = check_peers().check(directory)
    assert all(difference.fine for difference in differences), differences
