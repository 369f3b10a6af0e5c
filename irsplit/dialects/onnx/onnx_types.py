"""A program for `confined.py`, never imported: ONNX's own type inference, in its extension module.

The package around the extension takes forty times as long to import, and nothing of it is needed.
For the same reason this program imports as little of Python as `confined_child.py` does.
"""

import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXTENSION = "onnx.onnx_cpp2py_export"
_loaded: "dict[str, Any]" = {}


def load(path: str, _: str) -> None:
    """Load the extension module at this path."""
    loader = ExtensionFileLoader(_EXTENSION, path)
    spec = ModuleSpec(_EXTENSION, loader, origin=path)
    extension = sys.modules[_EXTENSION] = loader.create_module(spec)
    loader.exec_module(extension)
    _loaded[_EXTENSION] = extension


def answer(model: bytes, _: str, follow: str) -> bytes:
    """Infer the types of a model.

    Args:
        model: A ModelProto.
        follow: Any text: follow the elements of shapes too. Empty: do not.

    Returns:
        The ModelProto with the inferred types, where contradictions are left as they were. If ONNX
        cannot infer types for the model: a zero byte, then what ONNX says.
    """
    onnx = _loaded[_EXTENSION]
    errors = (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
    )

    try:
        return onnx.shape_inference.infer_shapes(model, False, False, bool(follow))
    except errors as error:
        return b"\0" + str(error).encode(errors="replace")
