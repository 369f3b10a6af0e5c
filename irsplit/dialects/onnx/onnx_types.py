"""A program for `confined.py`, never imported: ONNX's own type inference, out of its extension module.

The package around the extension takes forty times as long to import and is of no use here; of Python this imports as
little as `confined_child.py`. `answer` gives the ModelProto with the types that ONNX infers, what contradicts itself
left as it is; or, behind a zero byte, what ONNX says of a model that it cannot infer types for.
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
    extension = sys.modules[_EXTENSION] = loader.create_module(
        ModuleSpec(_EXTENSION, loader, origin=path)
    )
    loader.exec_module(extension)
    _loaded[_EXTENSION] = extension


def answer(model: bytes, _: str, follow: str) -> bytes:
    """`follow`, when it says anything, follows the elements of shapes too."""
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
