"""A server that answers with numbers that say who asked."""

import pytest
from services import Counting

from specpolicy.serving import PolicyServer, in_background


@pytest.fixture
def service():
    return Counting()


@pytest.fixture
def server(service):
    with in_background(PolicyServer(service, port=0)) as running:
        yield running
