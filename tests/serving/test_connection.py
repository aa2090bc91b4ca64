"""Addresses of policy servers."""

import pytest

from specpolicy import SpecpolicyError
from specpolicy.serving.connection import full_url


def test_addresses_are_completed():
    assert full_url("robot") == "ws://robot:8000" and full_url("ws://robot:1/x") == "ws://robot:1/x"
    with pytest.raises(SpecpolicyError, match="http://robot:8000 is no address of a policy server: write ws://"):
        full_url("http://robot:8000")
    assert full_url("ws://[::1]") == "ws://[::1]:8000" and full_url("wss://robot") == "wss://robot"
