"""What a device or a server needs to run a bundle (installed as irsplit.runtime)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irsplit.runtime.serving.client import Answer, RemoteSession, connect

_HOMES = dict.fromkeys(("Answer", "RemoteSession", "connect"), "irsplit.runtime.serving.client")

__all__ = ["Answer", "RemoteSession", "connect"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irsplit.runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
