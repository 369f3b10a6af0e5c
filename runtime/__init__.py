"""What a device or a server needs to run a bundle (installed as irsplit.runtime)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irsplit.runtime.serving.answers import Answer, ClientMetrics
    from irsplit.runtime.serving.choosing import Policy
    from irsplit.runtime.serving.client import RemoteSession, connect

_HOMES = {
    "Answer": "irsplit.runtime.serving.answers",
    "ClientMetrics": "irsplit.runtime.serving.answers",
    "Policy": "irsplit.runtime.serving.choosing",
    "RemoteSession": "irsplit.runtime.serving.client",
    "connect": "irsplit.runtime.serving.client",
}

__all__ = ["Answer", "ClientMetrics", "Policy", "RemoteSession", "connect"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irsplit.runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
