"""The library of operators that pack and unpack frames inside of an ONNX Runtime graph.

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library()))

Its sources are in runtime/c/ort. It is a plain shared library that hosts in other languages
register as well; Python never imports it.
"""

from importlib.util import find_spec
from pathlib import Path

from irsplit.base.errors import UnsupportedError

CODECS = ("raw", "static-rans")
"""The codecs that the operators know: those of the C core."""


def library() -> Path:
    """Find the library.

    Returns:
        Its path, to register with a session of ONNX Runtime.

    Raises:
        UnsupportedError: The library was not built when irsplit was installed.
    """
    spec = find_spec("irsplit.runtime.c._operators")
    if spec is None or spec.origin is None:
        raise UnsupportedError(
            "the operators for ONNX Runtime are not built; install a C compiler and reinstall "
            "irsplit, or build runtime/c with cmake -DIRS_ORT_OPERATORS=ON"
        )
    return Path(spec.origin)
