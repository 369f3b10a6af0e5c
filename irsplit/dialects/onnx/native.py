"""ONNX's own type inference, in a confined process.

Inference follows shapes that a stranger wrote, and sets itself no bounds. The process loads only
the extension module of the onnx package (`onnx_types.py`).
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

# What `onnx_types.answer` takes: whether to follow the elements of shapes.
_FOLLOWED, _LEFT = "followed", ""

_BOUNDS = Bounds(256 << 20, 2)
"""For any model. A graph of 50 000 nodes (6.5 MB without weights) takes 100 MB and 0.7 s."""

_MEMORY_A_BYTE, _BYTES_A_SECOND = 32, 500_000
"""Additional bounds for larger models: they grow with the file, not with what the file claims."""


class InferenceError(ValueError):
    """ONNX cannot infer types for a model; the text is ONNX's own."""


class Inference:
    """Type inference for one model; a context manager.

    The process can load while the model is still being read (see `start`).
    """

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
        """Let the process load now, because it will be needed."""
        # If that fails, `types` tries again and says why.
        with suppress(ConfinedError):
            self._process = self._process or _started(_FOLLOWED)

    def types(self, model: bytes, name: str) -> bytes:
        """Infer the types of a model.

        Elements of shapes are followed too, unless that takes more memory than it may: then a
        warning says so, and inference runs once more without them.

        Args:
            model: A ModelProto.
            name: Name of the model for messages.

        Returns:
            The ModelProto with the inferred types; contradictions are left as they were.

        Raises:
            InferenceError: ONNX refuses the model.
            ConfinedError: Inference takes more than it may, even without the elements of shapes.
        """
        bounds = bounds_for(len(model))
        # A process answers once.
        process, self._process = self._process or _started(_FOLLOWED), None

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
    """Memory and time that looking at a model of `size` bytes may take."""
    memory = _BOUNDS.memory + _MEMORY_A_BYTE * size
    return Bounds(memory, _BOUNDS.seconds + size // _BYTES_A_SECOND)


def _started(follow: str) -> Confined:
    return Confined(_PROGRAM, _extension(), follow)


@cache
def _extension() -> str:
    """The path of the extension module, found without importing the package."""
    package = sys.modules[_PACKAGE].__spec__ if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    folders = None if package is None else package.submodule_search_locations
    spec = PathFinder.find_spec(_EXTENSION, folders)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {_PACKAGE} has no {_EXTENSION}", name=_EXTENSION)
    return spec.origin
