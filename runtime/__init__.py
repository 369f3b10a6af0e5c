"""What a device or a server needs to run a bundle (installed as irsplit.runtime)."""

from typing import TYPE_CHECKING

from irsplit.base.lazy import exports

if TYPE_CHECKING:
    from irsplit.runtime.run.engines import Accelerator, EngineOptions
    from irsplit.runtime.serving.client.answers import Answer, ClientMetrics
    from irsplit.runtime.serving.client.session import RemoteSession, connect
    from irsplit.runtime.serving.client.switching import SwitchingPolicy
    from irsplit.runtime.serving.client.update import Update, update

_HOMES = {
    "Accelerator": "irsplit.runtime.run.engines",
    "Answer": "irsplit.runtime.serving.client.answers",
    "ClientMetrics": "irsplit.runtime.serving.client.answers",
    "EngineOptions": "irsplit.runtime.run.engines",
    "SwitchingPolicy": "irsplit.runtime.serving.client.switching",
    "RemoteSession": "irsplit.runtime.serving.client.session",
    "Update": "irsplit.runtime.serving.client.update",
    "connect": "irsplit.runtime.serving.client.session",
    "update": "irsplit.runtime.serving.client.update",
}

__all__ = [
    "Accelerator",
    "Answer",
    "ClientMetrics",
    "EngineOptions",
    "RemoteSession",
    "SwitchingPolicy",
    "Update",
    "connect",
    "update",
]


__getattr__ = exports(__name__, _HOMES)
