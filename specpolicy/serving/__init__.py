"""A policy over the network: openpi's protocol, websocket and msgpack, as a server and as a client.

    from specpolicy.serving import PolicyService, PolicyServer, RemotePlanner

    PolicyServer(PolicyService(specpolicy.load_policy("checkpoints/lift"), "ddim")).run()      # on one machine
    Controller(RemotePlanner("ws://192.168.0.2:8000"), robot, hz=20).run(seconds=60)           # on the robot's

Needs the extra `serve`. Importing this package imports none of it: each name brings what it needs when it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specpolicy.serving.background import in_background
    from specpolicy.serving.client import RemotePlanner
    from specpolicy.serving.server import PolicyServer
    from specpolicy.serving.service import PolicyService

__all__ = ["PolicyServer", "PolicyService", "RemotePlanner", "in_background"]

_MODULES = {
    "PolicyServer": "server",
    "in_background": "background",
    "PolicyService": "service",
    "RemotePlanner": "client",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(f"specpolicy.serving.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
