"""The library of operators that pack and unpack frames inside of a graph of ONNX Runtime (runtime/c/ort).

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library()))

Hosts in other languages register the same file. It is a plain shared library, and nothing that Python imports.
"""

from importlib.util import find_spec
from pathlib import Path

from irsplit.base.errors import UnsupportedError

CODECS = ("raw", "static-rans")
"""What the operators pack and unpack: the codecs of the C core."""


def library() -> Path:
    """Where the library is. Raises UnsupportedError when it was not built."""
    spec = find_spec("irsplit.runtime.c._operators")
    if spec is None or spec.origin is None:
        raise UnsupportedError(
            "the operators for ONNX Runtime are not built; install a C compiler and reinstall irsplit, "
            "or build runtime/c with cmake -DIRS_ORT_OPERATORS=ON"
        )
    return Path(spec.origin)
