"""What a device or a server needs to run a bundle (installed as irsplit.runtime)."""

from typing import TYPE_CHECKING

from irsplit.lazy import exports

if TYPE_CHECKING:
    from irsplit.runtime.serving.answers import Answer, ClientMetrics
    from irsplit.runtime.serving.choosing import Policy
    from irsplit.runtime.serving.client import RemoteSession, connect
    from irsplit.runtime.serving.update import Update, update

_HOMES = {
    "Answer": "irsplit.runtime.serving.answers",
    "ClientMetrics": "irsplit.runtime.serving.answers",
    "Policy": "irsplit.runtime.serving.choosing",
    "RemoteSession": "irsplit.runtime.serving.client",
    "Update": "irsplit.runtime.serving.update",
    "connect": "irsplit.runtime.serving.client",
    "update": "irsplit.runtime.serving.update",
}

__all__ = ["Answer", "ClientMetrics", "Policy", "RemoteSession", "Update", "connect", "update"]


__getattr__ = exports(__name__, _HOMES)
