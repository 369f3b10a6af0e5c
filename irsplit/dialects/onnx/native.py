"""ONNX's own type inference: an extension module, loaded without the package around it.

The package imports numpy, protobuf's classes and every helper that it has, which takes forty times as long as its
extension and is of no use here. Whoever imports onnx later, in the same process, gets the same extension.
"""

import sys
import threading
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

_PACKAGE = "onnx"
_EXTENSION = "onnx.onnx_cpp2py_export"
_LOADING = threading.Lock()


class InferenceError(ValueError):
    """What ONNX says of a model that it cannot infer types for."""


def infer_shapes(model: bytes) -> bytes:
    """The ModelProto with the types that ONNX infers, values of shapes followed; what contradicts itself is left as it
    is. Raises InferenceError."""
    with _LOADING:
        extension = sys.modules.get(_EXTENSION) or _load()
    inference, checker = extension.shape_inference, extension.checker
    try:
        return inference.infer_shapes(model, False, False, True)
    except (checker.ValidationError, inference.InferenceError, RuntimeError, ValueError) as error:
        raise InferenceError(str(error)) from error


def _load() -> Any:
    package = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    spec = (
        None
        if package is None
        else PathFinder.find_spec(_EXTENSION, package.submodule_search_locations)
    )
    if spec is None or spec.loader is None:
        return import_module(_EXTENSION)
    # Under its own name from the start: an extension cannot be loaded twice, and `import onnx` finds it there.
    extension = sys.modules[_EXTENSION] = module_from_spec(spec)
    spec.loader.exec_module(extension)
    return extension
