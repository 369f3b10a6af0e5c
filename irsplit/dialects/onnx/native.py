"""ONNX's own type inference, in a process of its own: it follows shapes that a stranger wrote, without bounds.

The process loads the extension module of the onnx package alone (`onnx_types.py`).
"""

import sys
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path

from irsplit.base.confined import Bounds, Confined, ConfinedError, TimeUpError

_log = getLogger("irsplit")

_PACKAGE = "onnx"
_EXTENSION = "onnx.onnx_cpp2py_export"
_PROGRAM = Path(__file__).with_name("onnx_types.py")
_FOLLOWED, _LEFT = "followed", ""
_BOUNDS = Bounds(256 << 20, 2)
"""For any model; a graph of 50 000 nodes (6.5 MB without weights) takes 100 MB and 0.7 s."""
_MEMORY_A_BYTE, _BYTES_A_SECOND = 32, 500_000
"""More for larger ones: these grow with the file, not with what it claims."""


class InferenceError(ValueError):
    """What ONNX says of a model that it cannot infer types for."""


class Inference:
    """Inference for one model; a context manager. A process can load while the model is still being read."""

    def __init__(self) -> None:
        self._process: Confined | None = None
        self.followed = True
        """Whether the elements of shapes could be followed within the bounds."""

    def __enter__(self) -> "Inference":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()

    def start(self) -> None:
        """Let the process load: it will be needed."""
        with suppress(ConfinedError):  # `types` tries again, and says why it fails
            self._process = self._process or _started(_FOLLOWED)

    def types(self, model: bytes, name: str) -> bytes:
        """The ModelProto with the types that ONNX infers; what contradicts itself is left as it is.

        The elements of shapes are followed, unless there is no memory for them: a warning says so. Raises
        InferenceError for what ONNX refuses, ConfinedError where even the rest takes more than it may.
        """
        bounds = bounds_for(len(model))
        process, self._process = self._process or _started(_FOLLOWED), None  # it answers once
        try:
            with process:
                answer = process.answer(model, bounds)
        except TimeUpError:
            raise
        except ConfinedError as error:
            self.followed = False
            _log.warning(
                "%s: shapes that the model computes are not known: to infer them %s", name, error
            )
            with _started(_LEFT) as process:
                answer = process.answer(model, bounds)
        if answer[:1] == b"\0":
            raise InferenceError(answer[1:].decode())
        return answer


def bounds_for(size: int) -> Bounds:
    """What looking at a model of `size` bytes may take."""
    return Bounds(_BOUNDS.memory + _MEMORY_A_BYTE * size, _BOUNDS.seconds + size // _BYTES_A_SECOND)


def _started(follow: str) -> Confined:
    return Confined(_PROGRAM, _extension(), follow)


@cache
def _extension() -> str:
    """The path of the extension module; nothing of the package is imported."""
    package = sys.modules[_PACKAGE].__spec__ if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    places = None if package is None else package.submodule_search_locations
    spec = PathFinder.find_spec(_EXTENSION, places)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {_PACKAGE} has no {_EXTENSION}", name=_EXTENSION)
    return spec.origin
