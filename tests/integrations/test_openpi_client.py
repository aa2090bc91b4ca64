"""Our stand-in for openpi's client does what the real one does, against the same server."""

import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.integrations.openpi_client import WebsocketClientPolicy
from specpolicy.serving import PolicyServer, PolicyService, in_background

openpi = pytest.importorskip("openpi_client.websocket_client_policy")
FRAME = {"position": np.array([0.1, 0.2]), "object": np.zeros(3), "prompt": "go"}


def test_it_gets_what_openpis_client_gets(small_policy):
    with in_background(PolicyServer(PolicyService(small_policy), port=0)) as server:
        theirs = openpi.WebsocketClientPolicy("127.0.0.1", server.port)
        ours = WebsocketClientPolicy("127.0.0.1", server.port)
        assert ours.get_server_metadata() == theirs.get_server_metadata()
        answers = [client.infer({**FRAME, "reset": True, "seed": 5}) for client in (ours, theirs)]
        np.testing.assert_array_equal(answers[0]["actions"], answers[1]["actions"])
        assert answers[0].keys() == answers[1].keys() == {"actions", "server_timing", "policy_timing"}
        with pytest.raises(SpecpolicyError, match="no key 'object'"):
            ours.infer({"position": np.zeros(2)})
        ours.reset()
        assert ours.infer(FRAME)["actions"].shape == (7, 2)
        ours.close()
        with pytest.raises(SpecpolicyError, match="is closed"):
            ours.infer(FRAME)
