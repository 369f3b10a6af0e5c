"""What a device or a server needs to run a bundle (installed as irsplit.runtime)."""

from typing import TYPE_CHECKING

from irsplit.lazy import exports

if TYPE_CHECKING:
    from irsplit.runtime.engines import Accelerator, EngineOptions
    from irsplit.runtime.serving.answers import Answer, ClientMetrics
    from irsplit.runtime.serving.choosing import Policy
    from irsplit.runtime.serving.client import RemoteSession, connect
    from irsplit.runtime.serving.update import Update, update

_HOMES = {
    "Accelerator": "irsplit.runtime.engines",
    "Answer": "irsplit.runtime.serving.answers",
    "ClientMetrics": "irsplit.runtime.serving.answers",
    "EngineOptions": "irsplit.runtime.engines",
    "Policy": "irsplit.runtime.serving.choosing",
    "RemoteSession": "irsplit.runtime.serving.client",
    "Update": "irsplit.runtime.serving.update",
    "connect": "irsplit.runtime.serving.client",
    "update": "irsplit.runtime.serving.update",
}

__all__ = [
    "Accelerator",
    "Answer",
    "ClientMetrics",
    "EngineOptions",
    "Policy",
    "RemoteSession",
    "Update",
    "connect",
    "update",
]


__getattr__ = exports(__name__, _HOMES)
