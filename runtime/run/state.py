"""State that a segment takes as inputs and gives as outputs, kept between calls."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import BundleError, EngineError
from irsplit.runtime.bundle.segment import StateInfo
from irsplit.runtime.bundle.store import ModelFile
from irsplit.runtime.run.engines import Engine, EngineOptions, open_engine

__all__ = [
    "Segment",
    "StateInfo",
    "StateValues",
    "StatefulEngine",
    "named_outputs",
    "open_segment",
]


class StateValues:
    """The current values of some states.

    Attributes:
        values: The arrays, by the name of the input that takes each.
    """

    def __init__(self, infos: Sequence[StateInfo]) -> None:
        self._infos = tuple(infos)
        self.values: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Set every state to zeros.

        Raises:
            BundleError: A state has a type without a zero, or is larger than the memory.
        """
        for info in self._infos:
            # Texts, for example, have no array of zeros.
            dtype = BY_NAME.get(info.dtype)
            if dtype is None or dtype.storage is None:
                raise BundleError(
                    f"state '{info.input}' of type {info.dtype} cannot be kept; leave it an input"
                )

            try:
                self.values[info.input] = np.zeros(info.shape, dtype.storage)
            except (MemoryError, ValueError) as error:
                raise BundleError(
                    f"state '{info.input}' of shape {list(info.shape)} is too large for this "
                    "machine; give other sizes with 'irsplit compile --dim'"
                ) from error

    def keep(self, outputs: Mapping[str, Any]) -> None:
        """Take the new values of all states from the outputs of a call, by name."""
        for info in self._infos:
            self.values[info.input] = outputs[info.output]


class Segment(Protocol):
    """What `open_segment` reads of a segment. The outputs are those without the state."""

    @property
    def format(self) -> str: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def state(self) -> tuple[StateInfo, ...]: ...


def named_outputs(segment: Segment, outputs: Sequence[Any]) -> dict[str, Any]:
    """The outputs of a segment's engine by name.

    Raises:
        EngineError: There are more or fewer than described: the file is another one.
    """
    _check_count(len(outputs), len(segment.outputs))
    return dict(zip(segment.outputs, outputs, strict=True))


def _check_count(count: int, described: int) -> None:
    """Raise EngineError unless a file gives as many outputs as the manifest describes."""
    if count != described:
        raise EngineError(
            f"a segment gave {count} outputs, its manifest has {described}; "
            "compile the bundle again"
        )


class StatefulEngine:
    """An engine that feeds a segment's state back from each call to the next.

    In the segment's file, states come behind the other inputs and outputs. An output that is both a
    state and an ordinary output is in the file once, among the ordinary ones.
    """

    def __init__(self, engine: Engine, segment: Segment) -> None:
        self._engine = engine
        self._outputs = segment.outputs
        self._kept = [info.output for info in segment.state if info.output not in segment.outputs]
        self._states = StateValues(segment.state)
        self.optimized = engine.optimized

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        """As `Engine.run`, for the inputs and outputs without the state."""
        outputs = self._engine.run([*inputs, *self._states.values.values()], large)
        names = (*self._outputs, *self._kept)
        _check_count(len(outputs), len(names))

        self._states.keep(dict(zip(names, outputs, strict=True)))
        return outputs[: len(self._outputs)]

    @property
    def state_bytes(self) -> int:
        """Size of the current state."""
        return sum(value.nbytes for value in self._states.values.values())

    def reset(self) -> None:
        self._engine.reset()
        self._states.reset()


def open_segment(file: ModelFile, segment: Segment, options: EngineOptions) -> Engine:
    """Load a segment's file into an engine that keeps the segment's state between calls.

    Raises:
        BundleError: The state cannot be kept.
        EngineError: The engine is not installed, or refuses the file.
    """
    engine = open_engine(file, segment.format, options)
    return StatefulEngine(engine, segment) if segment.state else engine
